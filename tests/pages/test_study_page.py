from pathlib import Path

import pytest

from pages.components import diagnosing
from storage.catalog import Catalog
from tests.pages.looking import components_of, rows_of, words_of
from tests.pages.seeded import PAYLOADS, make_run

TAG = "study-20260101-120000"


@pytest.fixture
def studied(store_root: Path) -> Path:
    """Two methods over two seeds, one run of them failed before its first step, all tagged alike; and two runs tagged by hand."""
    catalog = Catalog(store_root)
    for method, seed, recorded, state in (("grpo", 0, 12, "finished"), ("grpo", 1, 12, "finished"), ("opo", 0, 12, "finished"), ("opo", 1, 0, "failed")):
        run_id = make_run(store_root, {"name": f"{method} seed {seed}", "method": method, "seed": seed, "steps": 12}, recorded=recorded, state=state)
        catalog.set_tags(run_id, [TAG])
    for lr, tags in ((1e-4, [PAYLOADS[0]]), (1e-3, [PAYLOADS[0], "alone"])):
        catalog.set_tags(make_run(store_root, {"name": f"lr {lr}", "steps": 2, "lr": lr}, recorded=2, state="finished"), tags)
    return store_root


def test_a_study_says_what_it_found(studied: Path, open_page) -> None:
    app = open_page(studied, "study")
    assert app.selectbox(key="study.tag").value == TAG and app.selectbox(key="study.tag").options == [TAG, PAYLOADS[0]]
    said = words_of(app)
    assert "ends highest on held-out prompts with" in said and "differ in more than" not in said
    methods, runs = rows_of(app, "study.methods"), rows_of(app, "study.runs")
    assert [row["id"] for row in methods["rows"]] == ["grpo", "opo"] and len(runs["rows"]) == 4
    failed = runs["rows"][3]["cells"]
    assert failed[3]["text"] == "not available" and failed[5]["chip"]["text"] == "not available" and failed[6]["chip"]["text"] == "failed"
    drawn = [one for one in components_of(app) if "figure" in one]
    assert len(drawn) == 2


def test_what_is_looked_at_stands_in_the_address(studied: Path, open_page) -> None:
    app = open_page(studied, "study", measure="reward_mean", x="elapsed_s")
    assert app.selectbox(key="study.measure").value == "reward_mean"
    app.selectbox(key="study.measure").set_value("entropy").run()
    assert app.query_params["measure"] == "entropy" and not app.exception


def test_runs_that_differ_in_more_are_told(studied: Path, open_page) -> None:
    app = open_page(studied, "study", study=PAYLOADS[0])
    assert "differ in more than method and seed: lr" in words_of(app) and "<script" not in "".join(w.value for w in app.warning)


def test_an_unknown_study_is_a_sentence(studied: Path, open_page) -> None:
    app = open_page(studied, "study", study="gone")
    assert len(app.error) == 1 and "No two runs of this store are tagged gone" in words_of(app)


def test_without_a_study_it_says_how_to_get_one(seeded, open_page) -> None:
    assert "compare" in words_of(open_page(seeded[0], "study")) and "No study yet" in words_of(open_page(seeded[0], "study"))


def test_verdicts_appear_without_asking_again(studied: Path, open_page, monkeypatch) -> None:
    """However little of the diagnoses one refresh of the page has time for: at least one a time."""
    monkeypatch.setattr(diagnosing, "AT_ONCE_S", 1e-3)
    chips = [row["cells"][5]["chip"]["text"] for row in rows_of(open_page(studied, "study"), "study.runs")["rows"]]
    assert "not available" not in chips[:3] and chips[3] == "not available"

"""Pages on a run whose old tokens were thinned, and the panel that thins: a sentence in place of an empty chart, and nothing taken unasked."""

import base64
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grpo_core.launch.folder import RunFolder
from grpo_core.launch.retain import outlook
from grpo_core.launch.status import read_word, write_word
from pages.components.token_strip import strip_data
from storage.queries.groups import rollouts_of_group
from storage.queries.retention import thinned_groups
from storage.reader import Store
from storage.retention import Retention
from storage.segments import RunWriter
from storage.thinning import read_record, retain
from tests.pages.looking import components_of, rows_of, words_of
from tests.pages.seeded import PIECES, hasten_merges, make_merged_run, make_run

STEPS = 20
EVERY = Retention(keep="every", every=5, recent=2)


@pytest.fixture
def hasty(monkeypatch):
    hasten_merges(monkeypatch)


@pytest.fixture
def merged(store_root: Path, hasty) -> str:
    """An ended run of 20 steps in files of 8, 8 and one each."""
    return make_merged_run(store_root, {"name": "long", "steps": STEPS, "epochs": 2}, recorded=STEPS)


@pytest.fixture
def thinned(store_root: Path, merged: str) -> str:
    retain(store_root / "runs" / merged, EVERY, by="a test")
    return merged


def place(store_root: Path, run_id: str) -> tuple[int, int, int]:
    """A step, a group of it that has no tokens any more, and one that has."""
    store = Store(store_root)
    gone = thinned_groups(store, run_id, 3)
    assert gone and len(gone) < 6
    return 3, gone[0], next(group for group in range(6) if group not in gone)


def told(what: str) -> str:
    return f"The tokens of {what} were thinned on {time.strftime('%Y-%m-%d')} by the policy 'every 5th step'"


def test_a_group_without_tokens_says_why_and_keeps_its_texts_and_figures(store_root: Path, thinned: str, open_page) -> None:
    step, group, whole = place(store_root, thinned)
    app = open_page(store_root, "group", run=thinned, step=step, group=group)
    assert f"{told(f'group {group} of step {step}')}; its figures and texts are kept." in words_of(app)
    cards = rows_of(app, "group.strip")["rollouts"]
    rows = rollouts_of_group(Store(store_root), thinned, step, group)
    assert [card["text"] for card in cards] == rows["text"].tolist() and all(card["pieces"] == [] and card["notes"] == [] for card in cards)
    assert any(name == "Δ log-prob" for _, name, *_ in cards[0]["facts"])
    assert not [one for one in app.get("button_group") if one.label == "Colour tokens by"]
    assert "thinned" not in words_of(open_page(store_root, "group", run=thinned, step=step, group=whole))


def test_lost_likelihood_lists_what_is_left_and_says_so(store_root: Path, thinned: str, open_page) -> None:
    step, _, _ = place(store_root, thinned)
    gone = len(thinned_groups(Store(store_root), thinned, step))
    said = words_of(open_page(store_root, "likelihood", run=thinned, step=step))
    assert f"{told(f'{gone} of 6 groups of step {step}')}; their figures and texts are kept." in said
    assert "thinned" not in words_of(open_page(store_root, "likelihood", run=thinned, step=5))


def test_conflicts_keep_their_figures_and_say_whose_tokens_are_gone(store_root: Path, thinned: str, open_page) -> None:
    step, group, whole = place(store_root, thinned)
    app = open_page(store_root, "conflicts", run=thinned, step=step, group=group)
    said = words_of(app)
    assert told(f"group {group} of step {step}") in said and "Rollouts that oppose each other" not in said
    assert "By token position" in said and [one for one in components_of(app) if "columns" in one]
    assert "Rollouts that oppose each other" in words_of(open_page(store_root, "conflicts", run=thinned, step=step, group=whole))


def test_the_laboratory_weighs_what_is_there_and_says_what_is_not(store_root: Path, thinned: str, open_page) -> None:
    step, group, whole = place(store_root, thinned)
    said = words_of(open_page(store_root, "lab", run=thinned, step=step, group=group))
    assert told(f"group {group} of step {step}") in said and f"group {whole}" in said
    app = open_page(store_root, "lab", run=thinned, step=step)
    assert "as if they were the whole step" in words_of(app) and app.query_params["group"] not in map(str, thinned_groups(Store(store_root), thinned, step))
    assert "thinned" not in words_of(open_page(store_root, "lab", run=thinned, step=5))


@pytest.mark.parametrize("page", ["diagnosis", "variance", "run", "runs", "sql"])
def test_every_other_page_opens(store_root: Path, thinned: str, open_page, page: str) -> None:
    app = open_page(store_root, page, run=thinned, step=3)
    assert not app.error


def test_a_record_that_is_lost_leaves_a_sentence_all_the_same(store_root: Path, thinned: str, open_page) -> None:
    step, group, _ = place(store_root, thinned)
    record = store_root / "runs" / thinned / "retention.jsonl"
    record.write_text("torn\n")
    said = words_of(open_page(store_root, "group", run=thinned, step=step, group=group))
    assert "were thinned by a retention policy; its figures and texts are kept" in said


def test_a_strip_of_thinned_and_whole_rollouts_colours_only_the_whole(store_root: Path, thinned: str) -> None:
    step, group, whole = place(store_root, thinned)
    store = Store(store_root)
    both = pd.concat([rollouts_of_group(store, thinned, step, one).head(1) for one in (group, whole)], ignore_index=True)
    data = strip_data(both, PIECES, "delta", identity="x", chosen=None, stacked=False)
    assert [card["text"] is None for card in data["rollouts"]] == [False, True]
    assert len(np.frombuffer(base64.b64decode(data["ids"]), "<i4")) == both["length"].iloc[1] == len(data["rollouts"][1]["pieces"])


# The panel -----------------------------------------------------------------------------------------------------------


def panel(app):
    app.session_state["run.storage"] = True
    return app.run()


def test_the_panel_says_what_each_policy_would_free_and_why_the_rest_stays(store_root: Path, merged: str, open_page) -> None:
    app = panel(open_page(store_root, "run", run=merged, every=5, recent=2))
    assert not app.exception
    plan = outlook(store_root, merged)(EVERY)
    policies = rows_of(app, "retain.policies")["rows"]
    assert [row["cells"][0]["text"] for row in policies] == ["Every 5th step", "Flagged groups only", "At most 1.0 MB of tokens"]
    assert policies[0]["cells"][4]["text"] == str(len(plan.lost)) and policies[0]["chosen"]
    kept = {row["cells"][0]["text"]: row["cells"][3]["text"] for row in rows_of(app, "retain.kept")["rows"]}
    assert kept == {one.reason: str(one.groups) for one in plan.kept()}
    assert f"{len(plan.lost)} groups in {len(plan.steps)} steps from 1 to 14" in words_of(app)
    assert f"retain {merged} --keep every --every 5 --recent 2" in words_of(app)


def test_nothing_is_taken_before_the_dialog_is_confirmed(store_root: Path, merged: str, open_page) -> None:
    app = panel(open_page(store_root, "run", run=merged, every=5, recent=2))
    app.button(key="retain.go").click().run()
    said = words_of(app)
    assert "**long** loses the token lists of" in said and "cannot be brought back" in said
    assert read_record(store_root / "runs" / merged) == ()
    app.button(key="thin.no").click().run()
    assert "cannot be brought back" not in words_of(app) and read_record(store_root / "runs" / merged) == ()


def test_confirmed_it_thins_in_a_process_of_its_own_and_says_what_was_freed(store_root: Path, open_page) -> None:
    run_id = make_run(store_root, {"name": "long", "steps": 70}, recorded=70, state="finished", prompts=2)
    with RunWriter.open(store_root / "runs" / run_id) as writer:
        assert writer.compact() == 64
    time.sleep(2.2)  # a merged file counts so much later, and only then may be written anew
    app = panel(open_page(store_root, "run", run=run_id, every=5, recent=2))
    app.button(key="retain.go").click().run()
    app.button(key="thin.yes").click().run()
    until = time.monotonic() + 90
    while "have no tokens any more" not in (said := "\n".join(one.value for one in app.success)) and time.monotonic() < until and not app.error:
        time.sleep(1)
        app.run()
    assert "have no tokens any more" in said and not app.error, said
    (done,) = read_record(store_root / "runs" / run_id)
    assert done.by == "the app" and done.policy == "every 5th step" and not done.holds(5)
    app = panel(app.button(key="thin.close").click().run())
    assert "Thinned up to step 63 by the policy 'every 5th step'" in words_of(app)


def test_a_run_that_lives_is_left_alone(store_root: Path, merged: str, open_page) -> None:
    folder = RunFolder.open(store_root, merged)
    live = make_run(store_root, {"name": "live", "steps": 30}, recorded=3, state="running")
    write_word(folder, replace(read_word(RunFolder.open(store_root, live)), step=STEPS, steps=STEPS + 5))
    app = panel(open_page(store_root, "run", run=merged, every=5, recent=2))
    assert app.button(key="retain.go").disabled and "stop it first" in words_of(app)


def test_numbers_in_the_address_that_cannot_work_are_mended(store_root: Path, merged: str, open_page) -> None:
    app = panel(open_page(store_root, "run", run=merged, keep="budget", budget=0, every=0, recent=2))
    assert app.number_input(key="retain.budget").value == 1 and not app.error
    app.number_input(key="retain.budget").set_value(3).run()
    assert app.query_params["budget"] == "3"


def test_the_list_of_runs_has_their_sizes(store_root: Path, merged: str, open_page) -> None:
    (row,) = rows_of(open_page(store_root), "runs.rows")["runs"]
    assert row["size"].endswith(("kB", "MB")) and "checkpoints" in row["size_means"]

from pathlib import Path

import pytest

from grpo_core.launch.folder import RunFolder
from tests.pages.looking import rows_of, words_of
from tests.pages.seeded import PAYLOADS, make_run


def test_empty_store_says_what_will_appear_and_how(store_root: Path, open_page) -> None:
    app = open_page(store_root)
    said = words_of(app)
    assert "No runs yet" in said and "make demo" in said
    assert app.button(key="empty.launch").label == "Launch a run"


@pytest.mark.parametrize("page", ["run", "group"])
def test_other_pages_on_an_empty_store(store_root: Path, open_page, page: str) -> None:
    assert "No runs yet" in words_of(open_page(store_root, page))


def test_every_state_is_told_truthfully(seeded, open_page) -> None:
    root, runs = seeded
    rows = {row["run_id"]: row for row in rows_of(open_page(root), "runs.rows")["runs"]}
    states = {name: rows[run_id]["chip"]["text"] for name, run_id in runs.items()}
    assert states == {
        "healthy": "finished", "collapsing": "running", "stopped": "stopped", "failed": "failed", "lost": "lost", "starting": "starting", "hostile": "finished",
    }  # fmt: skip
    assert rows[runs["starting"]]["message"] == "warming up the tiny model 120 / 250"
    assert rows[runs["failed"]]["message"] == "the reward my_rewards:judge cannot be imported"
    assert "without a final word" in rows[runs["lost"]]["message"]
    assert [name for name, run_id in runs.items() if rows[run_id]["alive"]] == ["collapsing", "starting"]


def test_a_row_has_progress_reward_tags_and_note(seeded, open_page) -> None:
    root, runs = seeded
    rows = {row["run_id"]: row for row in rows_of(open_page(root), "runs.rows")["runs"]}
    healthy, collapsing = rows[runs["healthy"]], rows[runs["collapsing"]]
    assert healthy["tags"] == ["baseline", "demo"] and healthy["note"] == "The one to compare with."
    assert len(healthy["rewards"]) == 38 and healthy["reward"] == f"{healthy['rewards'][-1]:.2f}"
    assert collapsing["progress"].startswith("26 of 40 · about") and collapsing["share"] == 26 / 40
    assert rows[runs["starting"]]["rewards"] == []


def test_search_and_state_filter_come_from_the_address(seeded, open_page) -> None:
    root, runs = seeded
    found = rows_of(open_page(root, q="baseline"), "runs.rows")["runs"]
    assert [row["run_id"] for row in found] == [runs["healthy"]]
    found = rows_of(open_page(root, state="failed,lost"), "runs.rows")["runs"]
    assert {row["run_id"] for row in found} == {runs["failed"], runs["lost"]}
    assert "None of the" in words_of(open_page(root, q="no such thing"))


def test_typing_a_search_writes_the_address(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root)
    app.text_input(key="runs.search").set_value("dapo").run()
    assert app.query_params["q"] == "dapo"
    assert [row["run_id"] for row in rows_of(app, "runs.rows")["runs"]] == [runs["starting"]]


def test_names_and_notes_reach_the_browser_as_they_are(seeded, open_page) -> None:
    root, runs = seeded
    row = next(row for row in rows_of(open_page(root), "runs.rows")["runs"] if row["run_id"] == runs["hostile"])
    assert row["name"] == PAYLOADS[1] and row["note"] == " ".join(PAYLOADS)


def test_a_damaged_config_hides_no_other_run(store_root: Path, open_page) -> None:
    good = make_run(store_root, {"name": "good", "steps": 3}, recorded=2, state="finished")
    bad = make_run(store_root, {"name": "bad", "steps": 3}, recorded=1, state="finished")
    RunFolder.open(store_root, bad).config.write_text('{"method": "no such method"}')
    app = open_page(store_root)
    assert [row["run_id"] for row in rows_of(app, "runs.rows")["runs"]] == [good]
    assert "unknown method" in app.warning[0].value


def test_the_sidebar_counts_what_lives(seeded, open_page) -> None:
    assert "2 live" in words_of(open_page(seeded[0]))

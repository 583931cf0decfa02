"""What of a run's life an export carries, and what an imported run is."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from grpo_core.errors import LaunchError
from grpo_core.launch.exchange import about_run, import_run
from grpo_core.launch.folder import RunFolder, read_json
from grpo_core.launch.fork import create_fork, read_fork
from grpo_core.launch.start import prepare_resume, resume_run
from grpo_core.launch.status import read_word, run_status
from storage.about import About
from storage.catalog import Catalog
from storage.errors import ExportRefused, StoreError
from storage.queries.export import export_database
from storage.reader import Store
from tests.pages.seeded import make_run

STATES = {
    "finished": ("finished", 4, ""),
    "failed": ("failed", 4, "the reward cannot be imported"),
    "running": ("stopped", 3, "it was running when it was exported"),
    "lost": ("failed", 3, "it was lost when it was exported: the process ended without a final word; steps finished before that: 3"),
}


def exported(root: Path, run: str, target: Path, **changes: object) -> Path:
    export_database(Store(root), run, target, replace(about_run(root, run, name="a name"), **changes))
    return target


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A store of another machine, which is not there yet."""
    return tmp_path / "elsewhere" / "store"


@pytest.fixture
def run_id(store_root: Path) -> str:
    return make_run(store_root, {"steps": 4}, recorded=4, state="finished")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a finished run, made once."""
    root = tmp_path_factory.mktemp("made")
    return exported(root, make_run(root, {"steps": 4}, recorded=2, state="finished"), tmp_path_factory.mktemp("exports") / "run.duckdb")


def saying(made: Path, place: Path, **facts: str | None) -> Path:
    """A copy of the export that says something else about its run."""
    file = Path(shutil.copy(made, place / "said.duckdb"))
    with duckdb.connect(str(file)) as database:
        for name, value in facts.items():
            database.execute(f"update run_info set {name} = ?", [value])
    return file


@pytest.mark.parametrize("state", STATES)
def test_an_imported_run_has_ended_and_says_how(store_root: Path, other: Path, tmp_path: Path, state: str) -> None:
    recorded = 4 if state in ("finished", "failed") else 3
    message = "the reward cannot be imported" if state == "failed" else ""
    run_id = make_run(store_root, {"steps": 4, "webhook": "https://example.org/hook?secret"}, recorded=recorded, state=state, message=message)
    before = run_status(store_root, run_id)
    assert before.state == state and before.pid
    file = exported(store_root, run_id, tmp_path / "run.duckdb")
    assert b"example.org/hook" not in file.read_bytes() and os.uname().nodename.encode() not in file.read_bytes()
    shutil.rmtree(store_root / "runs")
    done = import_run(other, file)
    assert (done.run_id, done.new, done.steps) == (run_id, True, recorded) and "no checkpoints, log, tags, note" in done.notes[0] and len(done.notes) == 1
    status = run_status(other, run_id)
    assert (status.state, status.step, status.message) == STATES[state] and not status.alive
    assert (status.pid, status.host) == (None, None) and (status.steps, status.started_at) == (4, before.started_at)
    assert status.ended_at == pytest.approx(before.ended_at or before.updated_at)
    folder = RunFolder.open(other, run_id)
    assert folder.read_config().steps == 4 and folder.read_config().webhook == ""
    origin = read_json(folder.imported)
    assert (origin["source"], origin["run_id"]) == (str(file), run_id) and abs(origin["imported_at"] - time.time()) < 60
    assert Catalog(other).annotations()[["run_id", "name"]].values.tolist() == [[run_id, "a name"]]


def test_where_a_fork_comes_from_is_carried(store_root: Path, other: Path, run_id: str, tmp_path: Path) -> None:
    fork = create_fork(store_root, run_id, step=0, changes={"lr": 1e-4})
    import_run(other, exported(store_root, fork.run_id, tmp_path / "fork.duckdb"))
    assert read_fork(RunFolder.open(other, fork.run_id)) == read_fork(fork)


def test_an_imported_run_goes_nowhere(store_root: Path, other: Path, run_id: str, tmp_path: Path) -> None:
    import_run(other, exported(store_root, run_id, tmp_path / "run.duckdb"))
    folder = RunFolder.open(other, run_id)
    before = sorted(folder.path.iterdir()), read_word(folder)
    for go_on in (
        lambda: prepare_resume(folder, steps=9),
        lambda: resume_run(other, run_id, steps=9),
        lambda: create_fork(other, run_id, step=0, changes={"lr": 1e-4}),
    ):
        with pytest.raises(LaunchError, match=f"run {run_id} was imported, and an export carries no checkpoints .* `python -m grpo_core show {run_id}`"):
            go_on()
    assert (sorted(folder.path.iterdir()), read_word(folder)) == before and len(Store(other).run_ids()) == 1


def test_the_same_run_changes_nothing_and_another_is_refused(store_root: Path, other: Path, run_id: str, tmp_path: Path) -> None:
    file = exported(store_root, run_id, tmp_path / "run.duckdb")
    first = import_run(other, file)
    Catalog(other).rename(run_id, "mine")
    for root in (other, store_root):  # as imported, and as trained
        before = {path: path.stat().st_mtime_ns for path in (root / "runs").rglob("*") if path.suffix != ".lock"}
        assert import_run(root, file) == replace(first, new=False, notes=())
        assert {path: path.stat().st_mtime_ns for path in (root / "runs").rglob("*") if path.suffix != ".lock"} == before
    assert Catalog(other).annotations()["name"].tolist() == ["mine"]
    with duckdb.connect(str(file)) as database:
        database.execute("update rollouts set text = 'other' where step = 2 and group_index = 0 and rollout_index = 1")
    with pytest.raises(ExportRefused, match=f"another run {run_id} is in {other} already .different: rollouts.*--as {run_id}-imported, or .*--store"):
        import_run(other, file)
    settled = exported(store_root, run_id, tmp_path / "settled.duckdb", config={"steps": 5})
    with pytest.raises(ExportRefused, match="different: config.json"):
        import_run(other, settled)
    assert import_run(other, file, run_id=f"{run_id}-imported").new
    assert Store(other).run_ids() == [run_id, f"{run_id}-imported"]
    assert read_json(RunFolder.open(other, f"{run_id}-imported").imported)["run_id"] == run_id


@pytest.mark.parametrize("hostile", ["../escaped", "..", "/tmp/escaped", "a/b", "", ".hidden", "a\x00b", "a\nb", "a" * 200, "-rf", "run\u202e"])
def test_an_id_that_is_no_folder_name_is_refused(made: Path, other: Path, tmp_path: Path, hostile: str) -> None:
    file = saying(made, tmp_path, run_id=hostile)
    before = sorted(tmp_path.iterdir())
    for run_id in (None, hostile):
        with pytest.raises(ExportRefused, match="cannot be a run id") as caught:
            import_run(other, file, run_id=run_id)
        assert "\n" not in str(caught.value) and "\x00" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before and not other.exists()


def test_a_run_whose_id_is_refused_may_have_another(made: Path, other: Path, tmp_path: Path) -> None:
    assert import_run(other, saying(made, tmp_path, run_id="../escaped"), run_id="plain").run_id == "plain"
    assert Store(other).run_ids() == ["plain"]


BAD_LIVES = [
    {},
    {"state": "dancing"},
    {"state": "finished", "step": -1},
    {"state": "finished", "step": "many"},
    {"state": "finished", "ended_at": 1e300},
    {"state": "finished", "message": "x" * 5000},
]


@pytest.mark.parametrize("life", BAD_LIVES, ids=str)
def test_an_end_that_cannot_be_is_refused(made: Path, other: Path, tmp_path: Path, life: dict) -> None:
    file = saying(made, tmp_path, status=json.dumps(life))
    with pytest.raises(ExportRefused, match="says of how its run ended what cannot be") as caught:
        import_run(other, file)
    assert "\n" not in str(caught.value) and not other.exists()


def test_facts_that_are_lost(made: Path, other: Path, tmp_path: Path) -> None:
    assert import_run(other, saying(made, tmp_path, status="null"), run_id="silent").new
    assert run_status(other, "silent").state == "failed"
    with pytest.raises(ExportRefused, match="lacks the settings of its run, whose config.json could not be read"):
        import_run(other, saying(made, tmp_path, config="null"))
    done = import_run(other, saying(made, tmp_path, config='{"steps": 4, "warp": 9}'), run_id="newer")
    assert "settings are not of this version" in done.notes[1] and run_status(other, "newer").state == "finished"


def test_a_damaged_config_does_not_keep_the_tables_in(store_root: Path, run_id: str) -> None:
    folder = RunFolder.open(store_root, run_id)
    folder.config.write_text("{")
    folder.status.write_text("{")
    about = about_run(store_root, run_id, name="")
    assert about == About(run_id=run_id)


def test_what_lies_in_the_way_stays(store_root: Path, other: Path, run_id: str, tmp_path: Path) -> None:
    file = exported(store_root, run_id, tmp_path / "run.duckdb")
    place = other / "runs" / run_id
    place.mkdir(parents=True)
    with pytest.raises(ExportRefused, match="is there already and is no run that can be read; move it away, or give another id with --as"):
        import_run(other, file)
    place.rmdir()
    (other / "catalog.sqlite").write_text("no database")
    with pytest.raises(StoreError, match="catalogue .* is damaged"):
        import_run(other, file)
    assert not place.exists()


def test_the_files_of_an_imported_run_are_plain_json(store_root: Path, other: Path, tmp_path: Path) -> None:
    run_id = make_run(store_root, {"steps": 4, "name": "naïve — 日本語 🙂"}, recorded=1, state="finished")
    import_run(other, exported(store_root, run_id, tmp_path / "run.duckdb"))
    folder = RunFolder.open(other, run_id)
    assert folder.read_config() == RunFolder.open(store_root, run_id).read_config()
    assert json.loads(folder.status.read_text(encoding="utf-8"))["process"] is None

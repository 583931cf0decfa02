"""A store on a path of quotes, blanks, wildcards and other scripts, and a run folder that came from another machine: everything works as on a plain path."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import duckdb
import pytest
from streamlit.testing.v1 import AppTest

from grpo_core.cli import main
from grpo_core.launch.folder import RunFolder
from grpo_core.launch.process import Machine, ProcessId, identify, this_machine
from grpo_core.launch.status import Word, run_status, write_word
from storage import compaction
from storage.catalog import Catalog
from storage.reader import Store
from storage.segments import RunWriter
from tests.factories import make_step_tables
from tests.pages.seeded import make_run

ROOT = Path(__file__).resolve().parents[1]
STRANGE = "it's \"a\" store, 100%41 #1 & [x]*{y} ünï 日本 $HOME;--"


def plain_steps(run_dir: Path) -> int:
    with duckdb.connect(str(run_dir / "run.duckdb"), read_only=True) as database:
        return database.execute("select count(*) from steps").fetchone()[0]


def errors(root: Path, run_id: str, page: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the page complains of."""
    monkeypatch.setenv("GROUPSCOPE_STORE", str(root))
    app = AppTest.from_file(str(ROOT / "pages" / "frame.py"), default_timeout=60)
    app.switch_page(f"{page}.py")
    app.query_params["run"] = run_id
    app.run()
    assert not app.exception and len(app.main.children) > 1, page
    return [error.value for error in app.error]


@pytest.mark.xdist_group("processes")
def test_a_store_on_a_strange_path(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(compaction, "BLOCK", 4)
    root = tmp_path / STRANGE / "store"
    run_id = make_run(root, {"name": "strange", "steps": 20}, recorded=6, state="stopped")
    run_dir = root / "runs" / run_id
    with RunWriter.open(run_dir) as writer:
        assert writer.compact() == 4
    exports = {form: tmp_path / STRANGE / f"out [{form}]*" for form in ("parquet", "duckdb", "csv")}
    exports["duckdb"] = exports["duckdb"].with_suffix(".duckdb")
    for state in ("live", "sealed"):
        assert Store(root).frame(run_id, "select count(*) as n from steps").n.tolist() == [6] == [plain_steps(run_dir)], state
        for command in (["runs"], ["show", run_id], ["diagnose", run_id], ["sql", "select count(*) from tokens", "--run", run_id]):
            assert main([*command, "--store", str(root)]) == 0, command
        for form, target in exports.items():
            assert main(["export", run_id, "--to", str(target), "--format", form, "--store", str(root)]) == 0, form
            if form != "csv":
                assert main(["import", str(target), "--as", f"{state}-{form}", "--store", str(root)]) == 0
                copy = f"{state}-{form}"
                assert Store(root).frame(copy, "select count(*) as n from steps").n.tolist() == [6] == [plain_steps(root / "runs" / copy)]
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        Catalog(root).set_note(run_id, state)
        assert Catalog(root).annotations().set_index("run_id").note[run_id] == state
        assert "Traceback" not in capsys.readouterr().err
        assert errors(root, run_id, "run", monkeypatch) == errors(root, run_id, "variance", monkeypatch) == []
        capsys.readouterr()  # Streamlit's own logging, where no page is served
        assert main(["seal", run_id, "--store", str(root)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [STRANGE], "nothing lies where a name was misread"
    assert "Traceback" not in capsys.readouterr().err


# from another machine ----------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(tmp_path: Path) -> tuple[Path, str]:
    """A store with a copy of a run that was being trained elsewhere: other absolute paths, a run.lock nobody holds, a status that says running."""
    run_id = make_run(tmp_path / "there", {"name": "copied", "steps": 20}, recorded=6, state="stopped")
    (tmp_path / "there" / "runs" / run_id / "run.lock").touch()
    shutil.copytree(tmp_path / "there" / "runs" / run_id, tmp_path / "here" / "runs" / run_id)
    shutil.rmtree(tmp_path / "there")
    return tmp_path / "here", run_id


SOMEONE = identify(1)
ELSEWHERE = Machine("another-machine", "another-boot")


@pytest.mark.parametrize(
    ("machine", "process"),
    [
        (this_machine(), ProcessId(2**22 - 1, 1)),  # a pid that is not there
        (this_machine(), ProcessId(SOMEONE.pid, SOMEONE.started + 1)),  # a pid that is someone else's by now
        (Machine(this_machine().host, "another-boot"), SOMEONE),
        (ELSEWHERE, ProcessId(4711, 1)),
        (ELSEWHERE, SOMEONE),
    ],
)
def test_a_run_from_another_machine_reads_and_is_not_taken_for_running(copied, machine, process, monkeypatch) -> None:
    root, run_id = copied
    folder = RunFolder.open(root, run_id)
    write_word(folder, Word(state="running", phase="training", step=5, steps=20, started_at=1.0, updated_at=2.0, process=process, machine=machine))
    assert run_status(root, run_id).state == "lost"
    store = Store(root)
    assert store.frame(run_id, "select count(*) as n from steps").n.tolist() == [6] and store.damaged(run_id) == []
    assert main(["show", run_id, "--store", str(root)]) == 0 and main(["runs", "--store", str(root)]) == 0
    assert main(["resume", run_id, "--store", str(root)]) in (1, 2), "without a checkpoint it is refused"
    (said,) = errors(root, run_id, "run", monkeypatch)
    assert any(words in said for words in ("ended without a final word", "was restarted", "Last heard from")), said


@pytest.mark.parametrize("heal", ["seal", "write"])
@pytest.mark.parametrize("lock", ["stale", "gone"])
def test_plain_duckdb_reads_a_copied_run_after_seal_or_a_writer(copied, heal, lock) -> None:
    root, run_id = copied
    run_dir = root / "runs" / run_id
    if lock == "gone":
        (run_dir / "run.lock").unlink()
    with pytest.raises(duckdb.IOException, match="there"):  # its views name the folder it came from
        plain_steps(run_dir)
    if heal == "seal":
        assert main(["seal", run_id, "--store", str(root)]) == 0
    else:
        with RunWriter.open(run_dir) as writer:
            writer.append_step(make_step_tables(writer.last_step + 1))
    assert plain_steps(run_dir) == (6 if heal == "seal" else 7)
    moved = root.rename(root.with_name("moved on"))  # sealing again remakes the views of a sealed run too
    assert main(["seal", run_id, "--store", str(moved)]) == 0 and plain_steps(moved / "runs" / run_id) == (6 if heal == "seal" else 7)


@pytest.mark.parametrize("said", ['{"state": "running"', "", "[]", json.dumps({"state": "running", "process": 7})])
def test_a_torn_status_is_no_running_run(copied, said) -> None:
    root, run_id = copied
    folder = RunFolder.open(root, run_id)
    folder.status.write_text(said)
    os.utime(folder.config, (1, 1))
    assert not run_status(root, run_id).alive and main(["show", run_id, "--store", str(root)]) == 0

"""`export` and `import` as a person meets them: a run that moves to another store answers as before."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from grpo_core.cli import main
from grpo_core.launch.status import read_word, write_word
from storage.reader import Store
from storage.segments import is_sealed
from tests.collapsing import STEPS, recorded

TABLES = ("steps", "groups", "rollouts", "updates", "positions", "tokens", "vocabulary")


def said(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def answers(capsys: pytest.CaptureFixture, store: Path, run_id: str) -> dict[str, object]:
    """Every table in full, and the diagnosis."""
    ask = "select * from {} order by all".format
    rows = Store(store).read(run_id, lambda run: {name: [repr(row) for row in run.execute(ask(name)).fetchall()] for name in TABLES})
    code, report, _ = said(capsys, "diagnose", run_id, "--json", "--store", str(store))
    return rows | {"diagnose": (code, json.loads(report))}


@pytest.mark.parametrize("form", ["duckdb", "parquet"])
def test_a_run_that_moves_answers_as_before(store_root: Path, model_cache: Path, tmp_path: Path, capsys, form: str) -> None:
    folder = recorded(store_root, model_cache)
    write_word(folder, replace(read_word(folder), state="finished", step=STEPS, ended_at=time.time()))
    run_id = folder.run_id
    before = answers(capsys, store_root, run_id)
    assert len(before["steps"]) == STEPS and before["diagnose"][0] == 3 and before["diagnose"][1]["level"] == "collapsed"
    target = tmp_path / "out" / ("run.duckdb" if form == "duckdb" else "run")
    code, out, err = said(capsys, "export", "too fast", "--to", str(target), "--format", form)
    assert code == 0 and err == "" and [line.split()[:2] for line in out.splitlines()[1:2]] == [["steps", str(STEPS)]]
    shutil.rmtree(store_root / "runs")
    (store_root / "catalog.sqlite").unlink()
    moved = (tmp_path / "out").rename(tmp_path / "moved") / target.name

    other = tmp_path / "other machine"
    code, out, err = said(capsys, "import", str(moved), "--store", str(other))
    assert (code, out) == (0, f"imported: run {run_id}, {STEPS} steps\n")
    assert err == (
        "note: an export carries no checkpoints, log, tags, note and superseded steps, so this run can be read and diagnosed, but not resumed or forked\n"
    )
    shutil.rmtree(tmp_path / "moved")
    assert answers(capsys, other, run_id) == before
    assert is_sealed(other / "runs" / run_id)
    code, out, _ = said(capsys, "runs", "--json", "--store", str(other))
    (row,) = json.loads(out)
    assert (row["run_id"], row["name"], row["state"], row["step"], row["method"]) == (run_id, "too fast", "finished", STEPS, "grpo")
    assert said(capsys, "show", "too fast", "--store", str(other))[0] == said(capsys, "seal", run_id, "--store", str(other))[0] == 0
    for command in (["resume", run_id], ["resume", run_id, "--steps", "99", "--detach"], ["fork", run_id], ["fork", run_id, "--step", "0", "--lr", "1e-4"]):
        code, out, err = said(capsys, *command, "--store", str(other))
        assert (code, out) == (1, "") and err.startswith(f"error: run {run_id} was imported, and an export carries no checkpoints") and err.count("\n") == 1
    assert Store(other).run_ids() == [run_id]


def test_the_same_again_and_under_another_id(store_root: Path, model_cache: Path, tmp_path: Path, capsys) -> None:
    run_id = recorded(store_root, model_cache, steps=2).run_id
    file = str(tmp_path / "run.duckdb")
    assert said(capsys, "export", run_id, "--to", file, "--format", "duckdb", "--json")[0] == 0
    assert said(capsys, "import", file) == (0, f"run {run_id} is here already, with the same 2 steps; nothing was changed\n", "")
    code, out, _ = said(capsys, "import", file, "--as", "second", "--json")
    assert code == 0 and json.loads(out) == {"run_id": "second", "new": True, "steps": 2}
    with duckdb.connect(file) as database:
        database.execute("update steps set reward_mean = 0.5")
    code, out, err = said(capsys, "import", file)
    assert code == 1 and err.startswith(f"error: another run {run_id} is in ") and f"--as {run_id}-imported" in err and err.count("\n") == 1
    assert Store(store_root).run_ids() == [run_id, "second"]


def test_bad_input_is_one_line_and_an_exit_code(store_root: Path, model_cache: Path, tmp_path: Path, capsys) -> None:
    run_id = recorded(store_root, model_cache, steps=1).run_id
    capsys.readouterr()  # loading a model shows a bar, the first time in a process
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "steps.csv").write_text("step\n0\n")
    (tmp_path / "text").write_text("hello")
    before = sorted((store_root / "runs").iterdir())
    refused = {
        ("export", run_id, "--to", str(tmp_path), "--format", "duckdb"): (1, "is a folder, and a run is exported into one file"),
        ("export", run_id, "--to", str(tmp_path / "text"), "--format", "duckdb"): (1, "is there already and is no DuckDB file"),
        ("export", run_id, "--to", str(tmp_path / "text")): (1, "cannot write to "),
        ("export", "nobody", "--to", str(tmp_path / "x")): (1, "no run 'nobody' in "),
        ("export", run_id, "--to", str(tmp_path / "x"), "--format", "duckdb", "--format", "csv"): (2, "--format duckdb makes one file, parquet and csv"),
        ("export", run_id, "--to", str(tmp_path / "x"), "--format", "xlsx"): (2, "Invalid value for '--format': 'xlsx'"),
        ("import", str(tmp_path / "nowhere")): (1, "there is no "),
        ("import", str(tmp_path / "csv")): (1, "is CSV, in which numbers and lists are only text"),
        ("import", str(tmp_path / "text")): (1, "is no export of a run"),
        ("import",): (2, "Missing argument 'EXPORT'"),
    }
    for arguments, (code, sentence) in refused.items():
        ended, out, err = said(capsys, *arguments)
        assert (ended, out) == (code, "") and err.startswith("error: ") and sentence in err and err.count("\n") == 1, (arguments, err)
    assert sorted((store_root / "runs").iterdir()) == before and not (tmp_path / "x").exists()

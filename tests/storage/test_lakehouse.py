"""A run in a DuckLake, in an environment of its own that pip makes from PyPI; where it cannot, these tests are skipped and say so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from grpo_core.cli import main
from storage.errors import StoreError
from storage.lakehouse import INSTALL, adopt
from storage.reader import Store
from storage.segments import RunWriter, seal
from tests.factories import make_step_tables
from tests.servers import Postgres

pytestmark = [pytest.mark.xdist_group("ducklake"), pytest.mark.timeout(600)]

ASK = """
import duckdb, json, sys
from duckdb_extensions import import_extension
lake = duckdb.connect()
for extension in ("ducklake", "postgres_scanner"):
    import_extension(extension, con=lake)
    lake.execute(f"load {extension}")
lake.execute("attach 'ducklake:" + sys.argv[1].replace("'", "''") + "' as lake (read_only)")
lake.execute("use lake")
print(json.dumps([lake.execute(sql).fetchall() for sql in sys.argv[2:]], default=str))
"""


@pytest.fixture(scope="session")
def lake_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter that the sentence in lakehouse.py has one make."""
    folder = tmp_path_factory.mktemp("lake")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pins = INSTALL.partition("pip install ")[2].split()
    installed = subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "-q", *pins], capture_output=True, text=True, timeout=400)
    if installed.returncode:
        pytest.skip(f"DuckLake's extension cannot be installed from PyPI here: {installed.stderr.strip().splitlines()[-1][:200]}")
    return str(folder / "bin" / "python")


@pytest.fixture
def sealed(tmp_path: Path):
    """sealed(run_id, first, last) is a run in the store of tmp_path with several files per table."""

    def make(run_id: str, first: int, last: int) -> Path:
        run_dir = tmp_path / "runs" / run_id
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "config.json").write_text("{}")
        with RunWriter.open(run_dir) as writer:
            for step in range(first, last + 1):
                writer.append_step(make_step_tables(step))
            writer.write_vocabulary(["a", "b", "it's"])
        seal(run_dir)
        return run_dir

    return make


def ask(python: str, lake: Path | str, *queries: str) -> list[list[list]]:
    done = subprocess.run([python, "-c", ASK, str(lake), *queries], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


FIGURES = {
    "steps": "select count(*), sum(step), round(sum(entropy), 6), min(reward_mean) from {}",
    "groups": "select count(*), sum(step), sum(len(prompt_ids)), max(prompt) from {}",
    "rollouts": "select count(*), sum(length), round(sum(list_sum(entropy)), 3), sum(len(token_ids)), max(text), sum(len(map_keys(reward_parts))) from {}",
    "vocabulary": "select count(*), sum(token_id), max(piece), 0 from {}",
}


def test_two_runs_in_one_lake_have_the_rows_and_sums_of_the_store(tmp_path: Path, lake_python: str, sealed) -> None:
    store, lake = Store(tmp_path), tmp_path / "a lake" / "team's.ducklake"
    lake.parent.mkdir()
    for run_id, first, last in (("20260101-run.one", 0, 69), ("two", 5, 9)):
        sealed(run_id, first, last)
        written, already = adopt(store, run_id, str(lake), lake_python)
        assert [one.table for one in written] == list(FIGURES) and not already
    for run_id in ("20260101-run.one", "two"):
        here = [json.loads(json.dumps(store.frame(run_id, sql.format(name)).values.tolist())) for name, sql in FIGURES.items()]
        assert ask(lake_python, lake, *(sql.format(f'"{run_id}".{name}') for name, sql in FIGURES.items())) == here
    by_run = ask(lake_python, lake, "select run_id, count(*), min(step), max(step) from steps group by run_id order by run_id")
    assert by_run == [[["20260101-run.one", 70, 0, 69], ["two", 5, 5, 9]]]
    assert adopt(store, "two", str(lake), lake_python)[1], "the same files again change nothing"


def test_a_query_by_step_opens_only_the_files_that_hold_it(tmp_path: Path, lake_python: str, sealed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.sealing.LARGEST_BYTES", 200_000)  # several files per table
    run_dir, lake = sealed("r1", 0, 69), tmp_path / "lake.ducklake"
    files = len(list(run_dir.glob("sealed/rollouts/c*.parquet")))
    assert files > 1
    adopt(Store(tmp_path), "r1", str(lake), lake_python)
    [[[_, plan]]] = ask(lake_python, lake, "explain analyze select count(*) from r1.rollouts where step between 3 and 4")
    assert "Total Files Read: 1 " in plan
    [[[_, plan]]] = ask(lake_python, lake, "explain analyze select sum(length) from r1.rollouts where step >= 0")
    assert f"Total Files Read: {files} " in plan


def test_neither_a_resume_nor_the_lake_takes_the_others_files(tmp_path: Path, lake_python: str, sealed) -> None:
    run_dir, lake, store = sealed("r1", 0, 9), tmp_path / "lake.ducklake", Store(tmp_path)
    adopt(store, "r1", str(lake), lake_python)
    adopted = list((run_dir / "lake").glob("*/*.parquet"))
    assert len(adopted) == 4 and all(path.stat().st_nlink > 1 for path in adopted), "second names, not copies"
    sealed("r1", 10, 19)
    assert ask(lake_python, lake, "select count(*) from r1.steps") == [[[10]]]
    assert not adopt(store, "r1", str(lake), lake_python)[1]
    assert ask(lake_python, lake, "select count(*), max(step) from r1.steps", "select count(*) from steps") == [[[20, 19]], [[20]]]
    for path in (run_dir / "lake").glob("*/*.parquet"):
        path.unlink()  # as the lake does when it compacts
    assert not store.damaged("r1") and store.last_step("r1") == 19


def test_a_lake_whose_catalogue_is_in_postgresql(tmp_path: Path, lake_python: str, sealed, postgres: Postgres) -> None:
    sealed("r1", 0, 9)
    url = postgres.url()
    assert not adopt(Store(tmp_path), "r1", url, lake_python)[1]
    assert adopt(Store(tmp_path), "r1", url, lake_python)[1]
    assert ask(lake_python, f"postgres:{url}", "select count(*), sum(length) from rollouts where run_id = 'r1'")[0][0][0] == 80
    with pytest.raises(StoreError, match="the lake did not take the run") as refused:
        adopt(Store(tmp_path), "r1", postgres.url(password="wrong"), lake_python)
    assert "wrong" not in str(refused.value)


def test_what_cannot_be_adopted_is_one_sentence(tmp_path: Path, sealed) -> None:
    run_dir = sealed("r1", 0, 1)
    with pytest.raises(StoreError, match="no interpreter /no/such/python; .*pip install duckdb-extensions==1.5.5"):
        adopt(Store(tmp_path), "r1", str(tmp_path / "lake"), "/no/such/python")
    with pytest.raises(StoreError, match="lacks what DuckLake needs .*pip install duckdb-extensions==1.5.5"):
        adopt(Store(tmp_path), "r1", str(tmp_path / "lake"), sys.executable)
    with RunWriter.open(run_dir) as writer:
        writer.append_step(make_step_tables(2))
    with pytest.raises(StoreError, match="run r1 is not sealed.*python -m grpo_core seal r1"):
        adopt(Store(tmp_path), "r1", str(tmp_path / "lake"), sys.executable)


def test_the_command_line(tmp_path: Path, lake_python: str, sealed, capsys: pytest.CaptureFixture) -> None:
    sealed("r1", 0, 2)
    arguments = ["export", "r1", "--to-ducklake", str(tmp_path / "lake.ducklake"), "--ducklake-python", lake_python, "--store", str(tmp_path)]
    assert main([*arguments, "--json"]) == 0
    assert {row["table"]: row["rows"] for row in json.loads(capsys.readouterr().out)} == {"steps": 3, "groups": 6, "rollouts": 24, "vocabulary": 3}
    assert main(arguments) == 0
    assert "note: the lake has run r1 already" in capsys.readouterr().err
    assert main(["export", "r1", "--store", str(tmp_path)]) == 2 and "--to-ducklake CATALOGUE" in capsys.readouterr().err

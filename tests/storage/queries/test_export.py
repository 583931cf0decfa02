from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest

from grpo_core.trace.tables import to_tables
from storage.about import RUN_FILE, About, parse_json
from storage.errors import RunNotFound, SegmentDamaged, StoreError
from storage.queries.export import EXPORTED, export_database, export_run
from storage.reader import Store
from storage.schema import SCHEMA_VERSION, TABLES
from storage.segments import RunWriter, seal
from tests.trace.worked import WORKED, step_trace

ABOUT = About(run_id="r", name="a run", config={"steps": 8}, status={"state": "running"})


@pytest.fixture
def store(store_root: Path) -> Store:
    """A run `r` of three steps: 0, 1, and the worked step 7."""
    run_dir = store_root / "runs" / "r"
    run_dir.mkdir(parents=True)
    (run_dir / "config.json").write_text("{}")
    with RunWriter.open(run_dir, precision="exact") as writer:
        writer.write_vocabulary(["a", "b"])
        for trace in (step_trace(0), step_trace(1), WORKED):
            writer.append_step(to_tables(trace))
    return Store(store_root)


@pytest.mark.parametrize("sealed", [False, True])
def test_everything_comes_out_in_both_formats(store: Store, sealed: bool, tmp_path: Path) -> None:
    if sealed:
        seal(store.run_dir("r"))
    target = tmp_path / "new" / "out"
    written = {(e.table, Path(e.file).suffix): e.rows for e in export_run(store, "r", target, ABOUT)}
    assert sorted(path.name for path in target.iterdir()) == sorted([RUN_FILE, *(f"{table}.{form}" for table in EXPORTED for form in ("csv", "parquet"))])
    # steps 0 and 1 have 2 groups of 4, the worked step 2 groups of 2; each step has the worked step's 2 updates
    for table, rows in {"steps": 3, "groups": 6, "rollouts": 20, "vocabulary": 2, "updates": 6}.items():
        assert written[table, ".parquet"] == written[table, ".csv"] == rows
    for name, table in TABLES.items():
        exported, recorded = pq.read_table(target / f"{name}.parquet"), store.frame("r", f"select * from {name}")
        assert exported.column_names == table.arrow.names
        pd.testing.assert_series_equal(exported["step"].to_pandas(), recorded["step"], check_dtype=False)


def test_csv_keeps_model_text_and_writes_lists_as_json(store: Store, tmp_path: Path) -> None:
    export_run(store, "r", tmp_path, ABOUT)
    rows = pd.read_csv(tmp_path / "rollouts.csv").query("step == 7").reset_index(drop=True)
    assert rows.loc[1, "text"] == "1 3 <b>"
    assert json.loads(rows.loc[1, "token_ids"]) == [5, 6, 7]
    assert json.loads(rows.loc[0, "logp_delta"]) == [0.5, -1.0]
    assert json.loads(rows.loc[0, "reward_parts"]) == {"answer": 1.0, "format": 0.5}
    assert pd.isna(rows.loc[3, "reward"]) and rows.loc[3, "failure"] == "ValueError: no number"


def test_parquet_is_readable_by_plain_duckdb(store: Store, tmp_path: Path) -> None:
    export_run(store, "r", tmp_path, ABOUT)
    export_run(store, "r", tmp_path, ABOUT)  # a second time replaces the files
    deltas = duckdb.sql(f"select logp_delta from '{tmp_path}/rollouts.parquet' where step = 7 order by group_index, rollout_index").fetchall()
    assert deltas[0] == ([0.5, -1.0],) and deltas[2] == (None,)


def test_a_run_without_steps_gives_empty_tables(store_root: Path, tmp_path: Path) -> None:
    run_dir = store_root / "runs" / "fresh"
    run_dir.mkdir(parents=True)
    (run_dir / "config.json").write_text("{}")
    assert {e.rows for e in export_run(Store(store_root), "fresh", tmp_path, ABOUT)} == {0}


def test_what_cannot_be_exported_is_said(store: Store, tmp_path: Path) -> None:
    with pytest.raises(RunNotFound):
        export_run(store, "nobody", tmp_path, ABOUT)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write to .*; choose another folder"):
        export_run(store, "r", tmp_path / "file" / "below", ABOUT)
    segment = next((store.run_dir("r") / "groups").glob("s00000001-*"))
    segment.write_bytes(segment.read_bytes()[:-1])
    with pytest.raises(SegmentDamaged, match=segment.name):
        export_run(store, "r", tmp_path, ABOUT)


EVERYTHING = ("steps", "groups", "rollouts", "updates", "positions", "tokens", "vocabulary")


def rows(file: Path, name: str) -> str:
    """All rows of a table, as plain DuckDB gives them; as text, in which NaN equals NaN."""
    with duckdb.connect(str(file), read_only=True) as database:
        return repr(database.execute(f"select * from {name} order by all").fetchall())


@pytest.mark.parametrize("state", ["live", "sealed"])
def test_one_file_holds_the_run_and_needs_nothing_beside_it(store: Store, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.transfer.PIECE_STEPS", 2)
    if state == "sealed":
        seal(store.run_dir("r"))
    recorded = {name: rows(store.run_dir("r") / "run.duckdb", name) for name in EVERYTHING}
    seen: list[tuple[int, int]] = []
    written = export_database(store, "r", tmp_path / "deep" / "er" / "it's.duckdb", ABOUT, progress=lambda *at: seen.append(at))
    assert [(e.table, e.rows) for e in written] == [("steps", 3), ("groups", 6), ("rollouts", 20), ("vocabulary", 2)]
    assert seen == [(done, 13) for done in range(14)], "three tables in pieces of two of the steps 0 to 7, and the vocabulary"
    shutil.rmtree(store.root)
    moved = (tmp_path / "deep").rename(tmp_path / "moved") / "er" / "it's.duckdb"
    assert [path.name for path in moved.parent.iterdir()] == [moved.name]
    assert {name: rows(moved, name) for name in EVERYTHING} == recorded
    with duckdb.connect(str(moved), read_only=True) as plain:
        said = plain.execute("select run_id, name, config->>'$.steps', status->>'$.state', fork from run_info").fetchall()
        assert said == [("r", "a run", "8", "running", "null")]
        assert plain.execute("from store_info").fetchall() == [(SCHEMA_VERSION, "exact", True)]
        assert str(tmp_path) not in repr(plain.execute("select sql from duckdb_views() where not internal").fetchall())
        assert plain.execute("select tags['storage_version'] from duckdb_databases() where path like '%.duckdb'").fetchone()[0].startswith("v1.5")


def test_a_run_is_exported_while_it_is_written_and_merged(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In many pieces, between which the writer appends steps and merges away the files that the export had listed."""
    monkeypatch.setattr("storage.transfer.PIECE_STEPS", 1)
    monkeypatch.setattr("storage.compaction.BLOCK", 4)
    monkeypatch.setattr("storage.compaction.SINCE_DELAY_S", -1.0)
    monkeypatch.setattr("storage.compaction.GRACE_S", 0.0)
    begun = []
    with RunWriter.open(store.run_dir("r"), precision="exact") as writer:
        steps = iter(range(8, 20))

        def go_on(done: int, _: int) -> None:
            begun.extend([done] * (done == 0))
            if (step := next(steps, None)) is not None:
                writer.append_step(to_tables(step_trace(step)))
                writer.compact()

        written = {e.table: e.rows for e in export_database(store, "r", tmp_path / "r.duckdb", ABOUT, progress=go_on)}
        assert next(steps, None) is None and len(begun) > 1, "it had to begin again"
        assert 3 <= written["steps"] <= 15
        made = store.frame("r", f"select * from rollouts where step <= {WORKED.step + written['steps'] - 3} order by all")
    with duckdb.connect(str(tmp_path / "r.duckdb"), read_only=True) as plain:
        assert plain.execute("select step from steps order by step").fetchall() == [(s,) for s in (0, 1, *range(7, 5 + written["steps"]))]
        assert plain.execute("select count(*) from rollouts").fetchone() == (len(made),)


def test_a_second_export_replaces_the_first_even_while_someone_reads_it(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "r.duckdb"
    export_database(store, "r", file, ABOUT)
    with duckdb.connect(str(file), read_only=True) as reader, RunWriter.open(store.run_dir("r"), precision="exact") as writer:
        writer.append_step(to_tables(step_trace(8)))
        export_database(store, "r", file, ABOUT)
        assert reader.execute("select count(*) from steps").fetchone() == (3,)
    assert duckdb.connect(str(file), read_only=True).execute("select count(*) from steps").fetchone() == (4,)
    assert [path.name for path in tmp_path.iterdir() if path != store.root] == ["r.duckdb"]


def test_where_a_file_cannot_go_is_said_and_nothing_is_left(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    refused = {
        tmp_path / "folder": "is a folder, and a run is exported into one file; name it, e.g. .*/folder/run.duckdb",
        tmp_path / "file": "is there already and is no DuckDB file; choose another name",
        tmp_path / "file" / "below.duckdb": "cannot export to .*; choose another place",
        store.run_dir("r") / "run.duckdb": "lies among the runs of the store, .*; choose a place outside",
        tmp_path / "why?.duckdb": r"path with '\?' in it; choose another name",
    }
    for target, sentence in refused.items():
        with pytest.raises(StoreError, match=sentence) as caught:
            export_database(store, "r", target, ABOUT)
        assert "\n" not in str(caught.value)
    with pytest.raises(RunNotFound):
        export_database(store, "nobody", tmp_path / "r.duckdb", ABOUT)
    segment = next((store.run_dir("r") / "groups").glob("s00000001-*"))
    segment.write_bytes(segment.read_bytes()[:-1])
    with pytest.raises(SegmentDamaged, match=segment.name):
        export_database(store, "r", tmp_path / "r.duckdb", ABOUT)
    assert sorted(path.name for path in tmp_path.iterdir() if path != store.root) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("sealed", [False, True])
def test_no_room_is_said_and_leaves_the_old_file(store: Store, tmp_path: Path, sealed: bool) -> None:
    """The limit is the kernel's own (EFBIG); of a sealed run it is the export that failed, not the run that is damaged."""
    if sealed:
        seal(store.run_dir("r"))
    file = tmp_path / "r.duckdb"
    export_database(store, "r", file, ABOUT)
    before = file.read_bytes()
    code = f"""
import resource
from pathlib import Path
from storage.about import About
from storage.errors import StoreError
from storage.queries.export import export_database
from storage.reader import Store
for limit in range(20_000, {len(before)}, {len(before) // 5}):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        export_database(Store({str(store.root)!r}), "r", Path({str(file)!r}), About(run_id="r"))
    except StoreError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True)
    sentences = done.stdout.splitlines()
    assert done.returncode == 0 and len(sentences) >= 5, done.stderr
    assert all(line.startswith("cannot export to ") and line.endswith("choose another place or free some space") for line in sentences), sentences
    assert file.read_bytes() == before and [path.name for path in tmp_path.iterdir() if path != store.root] == ["r.duckdb"]


def test_the_parquet_folder_says_whose_it_is_only_when_it_is_whole(store: Store, tmp_path: Path) -> None:
    export_run(store, "r", tmp_path / "out", ABOUT)
    said = parse_json(tmp_path, (tmp_path / "out" / RUN_FILE).read_bytes())
    assert (said["run_id"], said["config"], said["precision"], said["schema_version"]) == ("r", {"steps": 8}, "exact", SCHEMA_VERSION)
    assert sorted(said["files"]) == ["groups.parquet", "rollouts.parquet", "steps.parquet", "vocabulary.parquet"]
    segment = next((store.run_dir("r") / "groups").glob("s00000001-*"))
    segment.write_bytes(segment.read_bytes()[:-1])
    with pytest.raises(SegmentDamaged):
        export_run(store, "r", tmp_path / "out", ABOUT)
    assert not (tmp_path / "out" / RUN_FILE).exists()


def test_one_format_alone(store: Store, tmp_path: Path) -> None:
    export_run(store, "r", tmp_path / "csv", ABOUT, formats=["csv"])
    assert {path.suffix for path in (tmp_path / "csv").iterdir()} == {".csv"}
    export_run(store, "r", tmp_path / "parquet", ABOUT, formats=["parquet"])
    assert {path.suffix for path in (tmp_path / "parquet").iterdir()} == {".parquet", ".json"}

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest

from grpo_core.trace.tables import to_tables
from storage.errors import RunNotFound, SegmentDamaged, StoreError
from storage.queries.export import EXPORTED, export_run
from storage.reader import Store
from storage.schema import TABLES
from storage.segments import RunWriter, seal
from tests.trace.worked import WORKED, step_trace


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
    written = {(e.table, Path(e.file).suffix): e.rows for e in export_run(store, "r", target)}
    assert sorted(path.name for path in target.iterdir()) == sorted(f"{table}.{form}" for table in EXPORTED for form in ("csv", "parquet"))
    # steps 0 and 1 have 2 groups of 4, the worked step 2 groups of 2; each step has the worked step's 2 updates
    for table, rows in {"steps": 3, "groups": 6, "rollouts": 20, "vocabulary": 2, "updates": 6}.items():
        assert written[table, ".parquet"] == written[table, ".csv"] == rows
    for name, table in TABLES.items():
        exported, recorded = pq.read_table(target / f"{name}.parquet"), store.frame("r", f"select * from {name}")
        assert exported.column_names == table.arrow.names
        pd.testing.assert_series_equal(exported["step"].to_pandas(), recorded["step"], check_dtype=False)


def test_csv_keeps_model_text_and_writes_lists_as_json(store: Store, tmp_path: Path) -> None:
    export_run(store, "r", tmp_path)
    rows = pd.read_csv(tmp_path / "rollouts.csv").query("step == 7").reset_index(drop=True)
    assert rows.loc[1, "text"] == "1 3 <b>"
    assert json.loads(rows.loc[1, "token_ids"]) == [5, 6, 7]
    assert json.loads(rows.loc[0, "logp_delta"]) == [0.5, -1.0]
    assert json.loads(rows.loc[0, "reward_parts"]) == {"answer": 1.0, "format": 0.5}
    assert pd.isna(rows.loc[3, "reward"]) and rows.loc[3, "failure"] == "ValueError: no number"


def test_parquet_is_readable_by_plain_duckdb(store: Store, tmp_path: Path) -> None:
    export_run(store, "r", tmp_path)
    export_run(store, "r", tmp_path)  # a second time replaces the files
    deltas = duckdb.sql(f"select logp_delta from '{tmp_path}/rollouts.parquet' where step = 7 order by group_index, rollout_index").fetchall()
    assert deltas[0] == ([0.5, -1.0],) and deltas[2] == (None,)


def test_a_run_without_steps_gives_empty_tables(store_root: Path, tmp_path: Path) -> None:
    run_dir = store_root / "runs" / "fresh"
    run_dir.mkdir(parents=True)
    (run_dir / "config.json").write_text("{}")
    assert {e.rows for e in export_run(Store(store_root), "fresh", tmp_path)} == {0}


def test_what_cannot_be_exported_is_said(store: Store, tmp_path: Path) -> None:
    with pytest.raises(RunNotFound):
        export_run(store, "nobody", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write to .*; choose another folder"):
        export_run(store, "r", tmp_path / "file" / "below")
    segment = next((store.run_dir("r") / "groups").glob("s00000001-*"))
    segment.write_bytes(segment.read_bytes()[:-1])
    with pytest.raises(SegmentDamaged, match=segment.name):
        export_run(store, "r", tmp_path)

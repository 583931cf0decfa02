"""run.duckdb as a stranger with plain DuckDB sees it while the run is live."""

import re
import shutil
import time
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import compaction
from storage.encode import write_parquet
from storage.errors import StoreError
from storage.layout import list_segments
from storage.reader import Store
from storage.schema import TABLES, VIEWS
from storage.segments import RunWriter, seal
from tests.factories import make_step_tables

EVERYTHING = (*TABLES, *(view.name for view in VIEWS), "vocabulary")


def counts(path: Path) -> dict[str, int]:
    with duckdb.connect(str(path), read_only=True) as database:
        return {name: database.execute(f"select count(*) from {name}").fetchone()[0] for name in EVERYTHING}


def test_readable_before_the_first_step(writer, run_dir):
    assert counts(run_dir / "run.duckdb") == dict.fromkeys(EVERYTHING, 0)


def test_an_open_connection_sees_steps_as_they_land_and_does_not_stop_the_writer(writer, run_dir, record):
    with duckdb.connect(str(run_dir / "run.duckdb"), read_only=True) as database:
        assert database.sql("select count(*) from rollouts").to_df().iloc[0, 0] == 0
        record(0, 2)
        assert database.execute("select count(*), max(step) from rollouts").fetchone() == (24, 2)


def test_views_and_tables_have_the_columns_of_the_schema_in_order(writer, run_dir, record, plain):
    record(0, 0)
    live = {name: plain(f"describe {name}") for name in EVERYTHING}
    assert [row[0] for row in live["rollouts"]] == TABLES["rollouts"].arrow.names
    assert [row[0] for row in live["tokens"]][:7] == ["step", "group_index", "rollout_index", "correct", "reward", "position", "token_id"]
    writer.close()
    seal(run_dir)
    for name in EVERYTHING:
        assert [row[:2] for row in plain(f"describe {name}")] == [row[:2] for row in live[name]], name


def test_tokens_by_hand(writer, plain):
    tables = make_step_tables(0, groups=1, group_size=4, tokens=3)  # lengths 3, 2, 1, 3; odd rollouts not rescored; no reference anywhere
    writer.append_step(tables)
    rollouts = tables["rollouts"].to_pylist()
    rows = plain("select rollout_index, position, token_id, logp_delta, logp_ref, logp_before, clipped from tokens order by all")
    assert [row[:3] for row in rows] == [(r["rollout_index"], i, token) for r in rollouts for i, token in enumerate(r["token_ids"])]
    assert [row[3] is None for row in rows] == [r["rescored"] is False for r in rollouts for _ in r["token_ids"]]
    assert {row[4] for row in rows} == {None}
    before = [sampling + gap for r in rollouts for sampling, gap in zip(r["logp_sampling"], r["logp_gap"])]
    assert [row[5] for row in rows] == pytest.approx(before, rel=2.0**-11)
    assert [row[6] for row in rows] == [side for r in rollouts for side in r["clipped"]]


def test_updates_and_positions_by_hand(writer, record, plain):
    record(3, 3)
    assert plain("select step, update, loss, terms from updates order by update") == [(3, 0, 0.0, {"policy": 0.0}), (3, 1, 0.1, {"policy": 0.1})]
    assert plain("select step, bin, first, tokens, delta_correct from positions order by bin") == [(3, b, b, 8, None) for b in range(3)]


def test_a_merged_file_counts_from_its_time_and_hides_what_it_covers_from_then_on(monkeypatch, writer, record, run_dir, plain):
    monkeypatch.setattr(compaction, "BLOCK", 4)
    monkeypatch.setattr(compaction, "SINCE_DELAY_S", 3.0)
    record(0, 4)
    published = time.time()
    writer.compact()
    merged = list_segments(run_dir / "rollouts")[0].path
    table = pq.read_table(merged)
    table = table.set_column(table.schema.get_field_index("text"), "text", pa.array(["from the merged file"] * 32))
    write_parquet(merged, [table], TABLES["rollouts"], "exact")
    source = "select step, count(*), count(*) filter (text = 'from the merged file') from rollouts group by step order by step"
    early = plain(source)
    if time.time() < published + 3:
        assert early == [(step, 8, 0) for step in range(5)]
    time.sleep(3.2)
    assert plain(source) == [(step, 8, 8) for step in range(4)] + [(4, 8, 0)]


def test_a_merged_file_dated_by_a_wrong_clock_counts_at_once(monkeypatch, writer, record, run_dir, plain):
    monkeypatch.setattr(compaction, "BLOCK", 4)
    monkeypatch.setattr(compaction, "SINCE_DELAY_S", 10_000_000.0)
    record(0, 3)
    writer.compact()
    writer.compact()  # removes what it covers
    assert len(list_segments(run_dir / "rollouts")) == 1
    assert plain("select count(*) from rollouts") == [(32,)]


def test_a_step_that_is_not_whole_is_not_seen(writer, record, run_dir, plain):
    record(0, 1)
    list_segments(run_dir / "steps")[1].path.unlink()
    assert plain("select (select count(*) from rollouts), (select count(*) from groups), (select count(*) from tokens where step = 1)") == [(8, 2, 0)]


@pytest.mark.parametrize("folder", ["it's [odd]* =x", "a=b", "日本 語"])
def test_folders_with_odd_names(tmp_path, folder):
    root = tmp_path / folder
    with RunWriter.open(root / "runs" / "r1") as writer:
        writer.append_step(make_step_tables(0))
        writer.write_vocabulary(["x"])
    expected = {"steps": 1, "groups": 2, "rollouts": 8, "updates": 2, "positions": 3, "tokens": 122, "vocabulary": 1}
    assert counts(root / "runs" / "r1" / "run.duckdb") == expected
    store = Store(root)
    assert {name: len(store.frame("r1", f"select * from {name}")) for name in EVERYTHING} == expected
    assert "b" not in store.frame("r1", "select * from steps").columns and "a" not in store.frame("r1", "select * from steps").columns
    seal(root / "runs" / "r1")
    assert counts(root / "runs" / "r1" / "run.duckdb") == expected == {name: len(store.frame("r1", f"select * from {name}")) for name in EVERYTHING}


@pytest.mark.parametrize("folder", ["what?", "back\\slash"])
def test_a_folder_that_duckdb_cannot_use_is_refused(tmp_path, folder):
    with pytest.raises(StoreError, match=r"path with '(\?|\\\\)' in it; rename"):
        RunWriter.open(tmp_path / folder / "r1")
    assert not (tmp_path / folder).exists()


def test_a_moved_store_is_read_at_once_and_its_views_heal_with_the_next_writer(writer, record, run_dir, tmp_path):
    record(0, 1)
    writer.close()
    moved = tmp_path / "elsewhere"
    shutil.move(run_dir.parent.parent / "runs", moved / "runs")
    assert len(Store(moved).frame("r1", "select * from steps")) == 2
    with pytest.raises(duckdb.IOException, match=re.escape(str(run_dir))):
        counts(moved / "runs" / "r1" / "run.duckdb")
    RunWriter.open(moved / "runs" / "r1").close()
    assert counts(moved / "runs" / "r1" / "run.duckdb")["steps"] == 2


def test_what_a_person_left_in_the_write_ahead_log_does_not_break_the_next_run_duckdb(writer, record, run_dir):
    record(0, 0)
    writer.close()
    (run_dir / "run.duckdb.wal").write_bytes(b"someone opened it for writing and was killed")
    RunWriter.open(run_dir).close()
    assert counts(run_dir / "run.duckdb")["steps"] == 1

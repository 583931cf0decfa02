import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from storage import compaction
from storage.errors import RunNotFound, SegmentDamaged
from storage.layout import list_segments, step_name
from storage.publish import publish
from storage.queries.groups import groups_of_step, prompt_history, rollouts_of_group, vocabulary
from storage.queries.runs import last_step, reward_curve, run_size
from storage.queries.steps import step_series
from storage.reader import Store
from storage.segments import RunWriter, seal
from tests.factories import make_step_tables


def truncate(path):
    path.write_bytes(path.read_bytes()[:-50])


def garbage(path):
    path.write_bytes(b"\x00garbage" * 40)


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0x10
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


# which runs there are


def test_runs_are_the_folders_with_a_config(run_dir, store):
    for name in ("b-run", "no-config", ".hidden", "a run", "a_run.2"):
        (run_dir.parent / name).mkdir()
        if name != "no-config":
            (run_dir.parent / name / "config.json").write_text("{}")
    assert store.run_ids() == ["a_run.2", "b-run", "r1"]
    assert Store(run_dir / "nowhere").run_ids() == []


BAD_IDS = ("..", ".", "", "../r1", "r1/../r1", "/etc", "r1/", "r1\x00", "..\\r1", "r1\n", "~", "C:", "a" * 300, "none", "r1;--", "%2e%2e", "‥")


@pytest.mark.parametrize("run_id", BAD_IDS)
def test_no_id_leads_out_of_the_store(run_dir, store, run_id):
    (run_dir.parent.parent / "config.json").write_text("{}")
    with pytest.raises(RunNotFound, match="^no run .*lists the runs of a store$"):
        store.run_dir(run_id)
    with pytest.raises(RunNotFound):
        store.frame(run_id, "select * from steps")


def test_a_run_without_any_record_is_empty(store, run_dir):
    assert step_series(store, "r1").empty and groups_of_step(store, "r1", 0).empty
    assert last_step(store, "r1") is None and reward_curve(store, "r1") == [] and run_size(store, "r1") == 0
    assert store.damaged("r1") == []
    assert store.frame("r1", "select count(*) as n from tokens")["n"].tolist() == [0]


# what a frame is


def test_missing_values_are_none_or_nan_never_a_pandas_mark(store, record):
    record(0, 0)
    rollouts = store.frame("r1", "select * from rollouts where group_index = 0 order by rollout_index")
    assert [value for value in rollouts["correct"]][-1] is None and all(type(value) is bool for value in rollouts["correct"][:-1])
    assert np.isnan(rollouts["reward"].iloc[-1]) and rollouts["reward"].dtype == float
    assert rollouts["logp_ref"].tolist() == [None] * 4
    assert rollouts["logp_delta"][1] is None and isinstance(rollouts["logp_delta"][0], np.ndarray)
    assert rollouts["reward_parts"][3] == {"exact": None, "format": 0.25}
    steps = store.frame("r1", "select * from steps")
    assert steps["eval_prompts"].dtype == float and np.isnan(steps["eval_prompts"][0])
    assert np.isnan(steps["ratio_max"][0]) and steps["step"].tolist() == [0]
    rewards = store.frame("r1", "select rewards from groups")["rewards"][0]
    assert not isinstance(rewards, np.ma.MaskedArray) and np.isnan(rewards[-1]) and len(rewards) == 4


def test_parameters_are_bound_not_pasted(store, record):
    record(0, 0)
    assert store.frame("r1", "select * from rollouts where text = ?", ["' or 1=1 --"]).empty
    assert len(store.frame("r1", "select * from groups where prompt_id = ? and step = ?", ["p1", 0])) == 1


def test_a_query_that_cannot_be_read_says_so(store, record):
    record(0, 0)
    with pytest.raises(ValueError, match="cannot read the query"):
        store.frame("r1", "selct * from steps")
    with pytest.raises(ValueError, match="cannot read the query"):
        store.frame("r1", "drop table steps")


def test_steps_restricts_every_table(store, record):
    record(0, 9)
    for table in ("steps", "groups", "rollouts", "updates", "positions", "tokens"):
        found = store.frame("r1", f"select distinct step from {table} order by step", steps=(3, 5))
        assert found["step"].tolist() == [3, 4, 5], table
    assert store.frame("r1", "select step from steps order by step", steps=(8, None))["step"].tolist() == [8, 9]
    assert store.frame("r1", "select step from steps order by step", steps=(None, 1))["step"].tolist() == [0, 1]
    assert store.frame("r1", "select step from steps", steps=(12, 20)).empty


# only the needed files


def test_only_files_of_the_asked_steps_and_tables_are_opened(store, record, run_dir):
    record(0, 9)
    for table in ("steps", "groups", "rollouts"):
        for segment in list_segments(run_dir / table):
            if segment.first != 4 and (table != "steps" or segment.first < 8):
                garbage(segment.path)
    garbage(list_segments(run_dir / "steps")[4].path)
    assert len(groups_of_step(store, "r1", 4)) == 2
    assert len(rollouts_of_group(store, "r1", 4, 1)) == 4
    assert step_series(store, "r1", after=7)["step"].tolist() == [8, 9]
    assert store.frame("r1", "select * from steps", steps=(8, 9)).shape[0] == 2
    assert store.last_step("r1") == 9


def test_a_column_named_like_a_table_does_not_open_the_table(store, record, run_dir):
    record(0, 0)
    for table in ("groups", "rollouts"):
        garbage(list_segments(run_dir / table)[0].path)
    assert store.frame("r1", "select groups, rollouts, tokens, updates from steps").shape == (1, 4)


# damage


@pytest.mark.parametrize("harm", [truncate, garbage, flip_a_bit, empty])
def test_a_damaged_segment_is_named_and_the_others_are_read(store, record, run_dir, harm):
    record(0, 5)
    assert len(store.frame("r1", "select * from rollouts")) == 48  # checked once, must be checked again after it changes
    harm(list_segments(run_dir / "rollouts")[2].path)
    with pytest.raises(SegmentDamaged, match=r"rollouts/s00000002-\w+\.parquet cannot be read .* all other steps are untouched"):
        store.frame("r1", "select * from rollouts")
    with pytest.raises(SegmentDamaged, match="s00000002"):
        rollouts_of_group(store, "r1", 2, 0)
    assert len(rollouts_of_group(store, "r1", 1, 0)) == 4
    assert len(store.frame("r1", "select * from rollouts", steps=(3, None))) == 24
    assert len(store.frame("r1", "select * from rollouts", skip_damaged=True)) == 40
    (found,) = store.damaged("r1")
    assert (found.table, found.first_step, found.last_step, found.path) == ("rollouts", 2, 2, list_segments(run_dir / "rollouts")[2].path)
    assert len(step_series(store, "r1")) == 6


def test_a_damaged_steps_segment_is_a_gap_in_the_series(store, record, run_dir):
    record(0, 5)
    harmed = list_segments(run_dir / "steps")[3].path
    good = harmed.read_bytes()
    flip_a_bit(harmed)
    assert step_series(store, "r1")["step"].tolist() == [0, 1, 2, 4, 5]
    assert len(reward_curve(store, "r1", points=100)) == 5
    assert [found.path for found in store.unreadable("r1", {0, 1, 2, 4, 5})] == [harmed] and store.unreadable("r1", range(6)) == []
    assert len(groups_of_step(store, "r1", 3)) == 2
    assert [found.path for found in store.damaged("r1")] == [harmed]
    harmed.write_bytes(good)
    assert len(step_series(store, "r1")) == 6 and store.damaged("r1") == []


def test_a_missing_segment_is_named_by_its_step(store, record, run_dir):
    record(0, 3)
    list_segments(run_dir / "rollouts")[1].path.unlink()
    with pytest.raises(SegmentDamaged, match=r"rollouts has no segment with step 1, although steps/s00000001-\w+\.parquet says it was recorded"):
        rollouts_of_group(store, "r1", 1, 0)
    assert len(rollouts_of_group(store, "r1", 2, 0)) == 4
    assert len(groups_of_step(store, "r1", 1)) == 2
    assert prompt_history(store, "r1", "0" * 16)["step"].tolist() == [0, 1, 2, 3]
    assert [(d.table, d.first_step, d.last_step) for d in store.damaged("r1")] == [("rollouts", 1, 1)]


@pytest.mark.parametrize("harm", [truncate, garbage, flip_a_bit, empty])
def test_a_damaged_vocabulary_is_named_and_costs_no_step(store, record, writer, run_dir, harm):
    record(0, 1)
    writer.write_vocabulary(["a"] * 500)
    path = run_dir / "vocabulary.parquet"
    harm(path)
    with pytest.raises(SegmentDamaged, match=r"vocabulary\.parquet cannot be read"):
        vocabulary(store, "r1")
    assert [d.path for d in store.damaged("r1")] == [path]
    assert len(step_series(store, "r1")) == 2
    writer.close()
    with pytest.raises(SegmentDamaged, match=r"vocabulary\.parquet cannot be read"):
        seal(run_dir)
    path.unlink()
    assert vocabulary(store, "r1") == [] and store.damaged("r1") == []
    seal(run_dir)


def test_a_damaged_file_of_a_sealed_run_is_named_and_run_duckdb_is_not_needed(store, record, writer, run_dir):
    record(0, 3)
    writer.close()
    seal(run_dir)
    (run_dir / "run.duckdb").unlink()
    (segment,) = list_segments(run_dir / "sealed" / "groups")
    segment.path.write_bytes(segment.path.read_bytes()[:-1])
    with pytest.raises(SegmentDamaged, match=r"sealed/groups/c.* cannot be read .* put a good copy back"):
        store.frame("r1", "select * from groups")
    assert [d.path for d in store.damaged("r1")] == [segment.path] and len(step_series(store, "r1")) == 4


def test_a_damaged_run_that_an_earlier_version_sealed_is_named(tmp_path):
    shutil.unpack_archive(Path(__file__).parent / "fixtures" / "v1.zip", tmp_path)
    store, run_dir = Store(tmp_path), tmp_path / "runs" / "sealed"
    path = run_dir / "run.duckdb"
    good = path.read_bytes()
    for bad in (good[: len(good) // 2], good[: len(good) // 4], b"", bytes(len(good)), good[:8192] + bytes(len(good) - 8192)):
        path.write_bytes(bad)
        with pytest.raises(SegmentDamaged, match=r"run\.duckdb cannot be read .* put a good copy back"):
            store.frame("sealed", "select sum(hash(r)) from rollouts r")
        assert [d.path for d in store.damaged("sealed")] == [path]
        with pytest.raises(SegmentDamaged, match="run.duckdb cannot be read"):
            RunWriter.open(run_dir)
        assert path.read_bytes() == bad
    path.unlink()
    with pytest.raises(SegmentDamaged, match="run.duckdb cannot be read"):
        step_series(store, "sealed")
    path.write_bytes(good)
    assert len(step_series(store, "sealed")) == 3 and store.damaged("sealed") == []


# one process, many threads; a run that changes under it


def test_six_threads_read_a_run_that_is_written_merged_sealed_and_resumed(monkeypatch, store, run_dir):
    """Every read sees each step it sees once and whole, never goes back, and never fails."""
    monkeypatch.setattr(compaction, "BLOCK", 3)
    monkeypatch.setattr(compaction, "FAN_IN", 3)
    monkeypatch.setattr(compaction, "SINCE_DELAY_S", 0.0)
    monkeypatch.setattr(compaction, "GRACE_S", 0.0)
    stop, problems, reads = threading.Event(), [], []
    sql = "select s.step, count(*) as n, max(s.rollouts) as want from steps s join rollouts r using (step) group by s.step order by s.step"

    def read() -> None:
        newest = 0
        while not stop.is_set():
            try:
                rows = store.frame("r1", sql)
                seen = rows["step"].tolist()
                if seen != list(range(len(seen))) or (rows["n"] != rows["want"]).any() or len(seen) < newest:
                    problems.append((newest, seen, rows["n"].tolist()))
                newest = len(seen)
                if newest:
                    step = newest // 2
                    if len(rollouts_of_group(store, "r1", step, 1)) != 4:
                        problems.append(("group", step))
                reads.append(newest)
            except Exception as error:  # noqa: BLE001
                problems.append(repr(error))

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for start in (0, 10, 20):
        with RunWriter.open(run_dir) as writer:
            for step in range(start, start + 10):
                writer.append_step(make_step_tables(step))
                writer.compact()
        seal(run_dir)
        until = len(reads) + 6  # a read by each thread, more or less
        while len(reads) < until and not problems:
            time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    assert problems == [] and max(reads) == 30


def test_a_reader_follows_a_run_that_is_removed_and_made_again(store, run_dir):
    for seed in (0, 1):
        with RunWriter.open(run_dir) as writer:
            writer.append_step(make_step_tables(0, seed=seed))
        seal(run_dir)
        want = make_step_tables(0, seed=seed)["rollouts"]["advantage"].to_pylist()
        assert store.frame("r1", "select advantage from rollouts order by group_index, rollout_index")["advantage"].tolist() == want
        shutil.rmtree(run_dir)
        run_dir.mkdir()


def test_two_stores_read_one_sealed_run_in_one_process(store, record, writer, run_dir):
    record(0, 1)
    writer.close()
    seal(run_dir)
    other = Store(store.root)
    assert len(step_series(store, "r1")) == len(step_series(other, "r1")) == 2


@pytest.mark.parametrize("fewer", [0, 1])
def test_a_column_that_only_some_files_have_is_empty_in_the_others(run_dir, record, store, fewer):
    """As in a run that another Groupscope went on with, whose schema is younger or older than that of the one that began it."""
    record(0, 1)
    (segment,) = [s for s in list_segments(run_dir / "groups") if s.first == fewer]
    rows = pq.read_table(segment.path).drop_columns(["prompt"])
    segment.path.unlink()
    publish(run_dir / "groups", step_name(fewer), lambda path: pq.write_table(rows, path))
    found = store.frame("r1", "select step, prompt from groups")
    assert len(found) == 4 and found["prompt"].isna().tolist() == (found["step"] == fewer).tolist()

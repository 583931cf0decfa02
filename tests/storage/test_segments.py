import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import duckdb
import filelock
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage import compaction, publish
from storage.errors import DiskFull, NewerStore, RunLocked, SegmentDamaged, StoreError
from storage.layout import MERGING, list_segments
from storage.queries.groups import rollouts_of_group, vocabulary
from storage.queries.steps import step_series
from storage.reader import Store
from storage.schema import ROLLOUTS, SCHEMA_VERSION, TABLES
from storage.segments import RunWriter, seal
from tests.factories import make_step_tables

ROOT = Path(__file__).parents[2]


def segments(run_dir: Path, table: str) -> list[tuple[int, int]]:
    return [(s.first, s.last) for s in list_segments(run_dir / table)]


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def unlike(table: pa.Table, name: str, values: list) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, pa.array(values, table.schema.field(name).type))


def test_a_step_comes_back_as_it_was_written(run_dir, store):
    tables = make_step_tables(5, groups=3, tokens=2)  # rollouts with 2, 1, 0 tokens
    with RunWriter.open(run_dir, precision="exact") as writer:
        writer.append_step(tables)
    for name, table in tables.items():
        back = store.frame("r1", f"select * from {name} order by all")
        for column in table.schema.names:
            for written, read in zip(table[column].to_pylist(), back[column]):
                if isinstance(read, np.ndarray) and (not written or not isinstance(written[0], dict)):
                    assert np.array_equal(np.array(written, "f8"), read.astype("f8"), equal_nan=True), (name, column)
                elif isinstance(read, dict):
                    assert dict(written) == read
                elif written is None:
                    assert read is None or np.isnan(read), (name, column)
                elif not isinstance(written, list):
                    assert written == read or (np.isnan(written) and np.isnan(read)), (name, column)


def test_precision_rounds_traces_and_nothing_else(tmp_path):
    table = make_step_tables(0)
    want = np.array(table["rollouts"]["entropy"][0].as_py())
    got = {}
    for precision in ("exact", "rounded", "half"):
        with RunWriter.open(tmp_path / "runs" / precision, precision=precision) as writer:
            writer.append_step(table)
        frame = rollouts_of_group(Store(tmp_path), precision, 0, 0)
        assert frame["reward"].tolist()[:3] == table["rollouts"]["reward"].to_pylist()[:3]
        got[precision] = np.max(np.abs(frame["entropy"][0] / want - 1))
    assert got["exact"] == 0 and 0 < got["rounded"] <= 2**-11 < got["half"] <= 2**-8


def test_unknown_precision_is_refused(run_dir):
    with pytest.raises(StoreError, match="unknown precision 'low'; known: rounded, half, exact"):
        RunWriter.open(run_dir, precision="low")


def test_text_of_any_kind_survives(writer, store):
    texts = ["\x00nul", "<script>alert('x')</script>", "🙂 日本語 \u202e", "", "a\r\nb\t", "x" * 100_000, "$ ? {} %s --", "\\"]
    tables = make_step_tables(0, groups=2)
    writer.append_step({**tables, "rollouts": unlike(tables["rollouts"], "text", texts)})
    assert store.frame("r1", "select text from rollouts order by group_index, rollout_index")["text"].tolist() == texts


def test_extreme_numbers_survive(writer, store):
    tables = make_step_tables(0, groups=1, group_size=3, tokens=3)
    traces = [[float("nan"), float("inf"), -float("inf")], [0.0, 3.4e38], None]
    writer.append_step({**tables, "rollouts": unlike(tables["rollouts"], "logp_delta", traces)})
    first, second, third = store.frame("r1", "select logp_delta from rollouts order by rollout_index")["logp_delta"]
    assert np.array_equal(first, np.array(traces[0], "f4"), equal_nan=True)
    assert second[0] == 0 and np.isclose(second[1], 3.4e38, rtol=1e-3)
    assert third is None


def test_a_step_without_rollouts_is_a_step(writer, store, plain):
    tables = make_step_tables(0)
    writer.append_step({**tables, "groups": tables["groups"].slice(0, 0), "rollouts": tables["rollouts"].slice(0, 0)})
    assert writer.last_step == 0
    assert store.frame("r1", "select count(*) as n from rollouts")["n"].tolist() == [0]
    assert plain("select (select count(*) from steps), (select count(*) from tokens)") == [(1, 0)]


def test_steps_written_together_are_one_segment_and_read_as_if_written_one_by_one(run_dir, store, plain):
    with RunWriter.open(run_dir) as together, RunWriter.open(run_dir.parent / "r2") as apart:
        steps = [make_step_tables(step) for step in (0, 1, 2, 5, 6)]  # 3 and 4 were dropped
        for part in (steps[:1], steps[1:3], steps[3:]):
            together.append_steps(part)
        for tables in steps:
            apart.append_step(tables)
        assert together.last_step == 6
    assert {table: segments(run_dir, table) for table in TABLES} == {table: [(0, 0), (1, 2), (5, 6)] for table in TABLES}
    for sql in ("select * from steps order by all", "select * from tokens order by all"):
        assert store.frame("r1", sql).equals(store.frame("r2", sql))
    assert store.frame("r1", "select distinct step from rollouts order by step", steps=(2, 5)).step.tolist() == [2, 5]
    assert plain("select count(*), count(distinct step) from rollouts") == [(40, 5)]
    assert [s.path.name[0] for s in list_segments(run_dir / "steps")] == ["s", "c", "c"]
    seal(run_dir)
    assert plain("select count(*), count(distinct step) from rollouts") == [(40, 5)]


@pytest.mark.parametrize("numbers", [(1, 2), (2, 2), (3, 2)])
def test_of_steps_that_are_not_in_order_none_is_written(writer, run_dir, numbers):
    writer.append_step(make_step_tables(1))
    with pytest.raises(StoreError, match="is not after step"):
        writer.append_steps([make_step_tables(step) for step in numbers])
    assert segments(run_dir, "rollouts") == segments(run_dir, "steps") == [(1, 1)] and writer.last_step == 1


def test_last_step_starts_at_minus_one_and_survives_reopening(run_dir):
    with RunWriter.open(run_dir) as writer:
        assert writer.last_step == -1
        writer.append_step(make_step_tables(4))
    with RunWriter.open(run_dir) as writer:
        assert writer.last_step == 4


def test_the_vocabulary_may_be_written_again(writer, store, plain):
    assert vocabulary(store, "r1") == []
    writer.write_vocabulary(["a", "b"])
    writer.write_vocabulary(["<pad>", "é", "\n"])
    assert vocabulary(store, "r1") == ["<pad>", "é", "\n"]
    assert plain("select count(*) from vocabulary") == [(3,)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: {"steps": t["steps"]}, "needs the tables steps, groups, rollouts; got steps"),
        (lambda t: {**t, "groups": t["groups"].drop_columns(["kept"])}, "table groups does not have the columns.*kept"),
        (lambda t: {**t, "groups": t["groups"].append_column("extra", t["groups"]["step"])}, "missing or unknown: extra"),
        (lambda t: {**t, "rollouts": t["rollouts"].set_column(0, "step", t["rollouts"]["step"].cast("int64"))}, "rollouts.step must be int32, got int64"),
        (lambda t: {**t, "rollouts": make_step_tables(3)["rollouts"]}, "exactly one step"),
        (lambda t: {**t, "steps": pa.concat_tables([t["steps"]] * 2)}, "exactly one step"),
        (lambda t: {**t, "steps": t["steps"].slice(0, 0)}, "exactly one step"),
        (lambda t: make_step_tables(1), r"step 1 is not after step 1.*supersede\(0\) first"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(writer, run_dir, store, change, message):
    writer.append_step(make_step_tables(1))
    before = sorted(run_dir.rglob("*.parquet"))
    with pytest.raises(StoreError, match=message):
        writer.append_step(change(make_step_tables(2)))
    assert sorted(run_dir.rglob("*.parquet")) == before
    writer.append_step(make_step_tables(2))
    assert len(step_series(store, "r1")) == 2


def test_one_writer_at_a_time(run_dir, writer):
    with pytest.raises(RunLocked, match="run r1 is being written by another process"):
        RunWriter.open(run_dir)
    code = "import sys; from pathlib import Path; from storage.segments import RunWriter; RunWriter.open(Path(sys.argv[1]))"
    other = subprocess.run([sys.executable, "-c", code, str(run_dir)], cwd=ROOT, capture_output=True, text=True)
    assert "RunLocked" in other.stderr
    writer.append_step(make_step_tables(0))
    writer.close()
    with RunWriter.open(run_dir) as again:
        assert again.last_step == 0


def test_a_newer_store_is_refused_and_left_alone_while_other_runs_are_read(run_dir, store):
    for name in ("r1", "r2"):
        with RunWriter.open(run_dir.parent / name) as writer:
            writer.append_step(make_step_tables(0))
    marker = (run_dir / "store.json").read_text().replace(f'"schema_version": {SCHEMA_VERSION}', f'"schema_version": {SCHEMA_VERSION + 1}')
    (run_dir / "store.json").write_text(marker)
    files = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    for refused in (lambda: RunWriter.open(run_dir), lambda: step_series(store, "r1"), lambda: store.last_step("r1"), lambda: store.damaged("r1")):
        with pytest.raises(
            NewerStore,
            match=f"run r1 was recorded with store version {SCHEMA_VERSION + 1}, but this Groupscope reads up to {SCHEMA_VERSION}; update Groupscope",
        ):
            refused()
    assert {path: path.read_bytes() for path in files} == files
    assert len(step_series(store, "r2")) == 1


@pytest.mark.parametrize("published", [("rollouts",), ("rollouts", "groups")])
@pytest.mark.parametrize("steps_together", [1, 3])
def test_leftovers_of_a_killed_writer_are_put_aside(run_dir, store, plain, published, steps_together):
    """Not deleted: where `steps` lost a file, whole steps look just the same."""
    with RunWriter.open(run_dir) as writer:
        writer.append_step(make_step_tables(0))
    partial = [make_step_tables(1 + n) for n in range(steps_together)]
    with RunWriter.open(run_dir.parent / "other") as other:
        other.append_steps(partial)
    for table in published:
        (segment,) = list_segments(run_dir.parent / "other" / table)
        os.link(segment.path, run_dir / table / segment.path.name)
    (run_dir / "rollouts" / ".tmp-99-segment").write_bytes(b"PAR1")
    (run_dir / ".tmp-99-run.duckdb").write_bytes(b"")
    assert len(store.frame("r1", "select distinct step from rollouts")) == 1, "a step that is not whole is not seen"
    assert plain("select count(distinct step) from rollouts") == [(1,)]
    with RunWriter.open(run_dir) as writer:
        assert writer.last_step == 0
        assert list(run_dir.rglob(".tmp-*")) == []
        assert {table: segments(run_dir, table) for table in TABLES} == {table: [(0, 0)] for table in TABLES}
        aside = run_dir / "superseded" / "0"
        assert {table: segments(aside, table) for table in TABLES} == {t: [(1, steps_together)] if t in published else [] for t in TABLES}
        writer.append_steps(partial)
    assert len(store.frame("r1", "select * from rollouts")) == 8 + 8 * steps_together
    assert plain("select count(*), count(distinct step) from rollouts") == [(8 + 8 * steps_together, 1 + steps_together)]
    with RunWriter.open(run_dir):
        assert [path.name for path in (run_dir / "superseded").iterdir()] == ["0"]


@pytest.mark.parametrize("tables", [("rollouts",), ("rollouts", "groups")])
def test_a_first_step_that_never_became_whole_is_not_seen_nor_sealed(run_dir, store, plain, tables):
    with RunWriter.open(run_dir) as writer:
        writer.append_step(make_step_tables(0))
    for table in set(TABLES) - set(tables):
        list_segments(run_dir / table)[0].path.unlink()
    assert store.frame("r1", "select * from rollouts").empty and store.frame("r1", "select * from groups", steps=(0, 0)).empty
    assert plain("select (select count(*) from rollouts), (select count(*) from groups)") == [(0, 0)]
    assert store.last_step("r1") is None
    seal(run_dir)
    assert store.frame("r1", "select * from rollouts").empty


def test_lost_step_files_do_not_cost_the_rollouts(run_dir, store):
    with RunWriter.open(run_dir) as writer:
        for step in range(4):
            writer.append_step(make_step_tables(step))
        writer.append_steps([make_step_tables(step) for step in (4, 5, 6)])
    for segment in list_segments(run_dir / "steps")[2:]:
        segment.path.unlink()
    with RunWriter.open(run_dir) as writer:
        assert writer.last_step == 1
    assert segments(run_dir / "superseded" / "0", "rollouts") == [(2, 2), (3, 3), (4, 6)]


def test_a_full_disk_leaves_nothing_of_the_step_and_all_earlier_ones(tmp_path):
    """A real limit of the kernel: files over 60 kB fail with EFBIG, as ENOSPC does for a full disk."""
    run_dir = tmp_path / "runs" / "r1"
    code = f"""
import os, resource
from pathlib import Path
import pyarrow as pa
from storage.errors import DiskFull
from storage.segments import RunWriter
from tests.factories import make_step_tables
writer = RunWriter.open(Path({str(run_dir)!r}))
writer.append_step(make_step_tables(0))
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
too_many_tokens, too_long_a_prompt = make_step_tables(1, groups=8, group_size=8, tokens=512), make_step_tables(1)
groups = too_long_a_prompt["groups"]
at = groups.schema.get_field_index("prompt")
too_long_a_prompt["groups"] = groups.set_column(at, "prompt", pa.array([os.urandom(80_000).hex()] * len(groups)))
for tables in (too_many_tokens, too_long_a_prompt):  # fails before and after rollouts are there
    try:
        writer.append_step(tables)
    except DiskFull as error:
        print(error)
    print(sorted(path.name for path in writer.run_dir.rglob("s00000001-*.parquet")))
    try:
        writer.append_steps([tables, make_step_tables(2)])
    except DiskFull as error:
        print(error)
    print(sorted(path.name for path in writer.run_dir.rglob("c*.parquet")))
writer.append_step(make_step_tables(2))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("everything recorded before is safe; free some space") == done.stdout.count("\n[]\n") == 4, done.stdout
    assert {table: segments(run_dir, table) for table in TABLES} == {table: [(0, 0), (2, 2)] for table in TABLES}
    assert list(run_dir.rglob(".tmp-*")) == []


@pytest.mark.parametrize("small_disk", ["2m"], indirect=True)
def test_a_disk_that_fills_up_keeps_every_step_it_took(small_disk):
    run_dir = small_disk / "runs" / "r1"
    steps = 0
    with RunWriter.open(run_dir) as writer:
        with pytest.raises(DiskFull, match="MiB free"):
            for steps in range(1000):  # noqa: B007
                writer.append_step(make_step_tables(steps, groups=4, group_size=8, tokens=64))
        with pytest.raises(DiskFull):
            writer.append_step(make_step_tables(steps, groups=4, group_size=8, tokens=64))
        assert writer.last_step == steps - 1
    store = Store(small_disk)
    assert 5 < len(step_series(store, "r1")) == steps == store.frame("r1", "select count(distinct step) as n from rollouts")["n"][0]
    assert store.damaged("r1") == []
    with pytest.raises(DiskFull):  # not even room for the views
        RunWriter.open(run_dir)
    assert len(step_series(store, "r1")) == steps


# compaction


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(compaction, "BLOCK", 4)
    monkeypatch.setattr(compaction, "FAN_IN", 3)
    monkeypatch.setattr(compaction, "SINCE_DELAY_S", -1.0)  # counts at once
    monkeypatch.setattr(compaction, "GRACE_S", 0.5)


def test_compaction_keeps_every_row_and_removes_what_it_covered(small_blocks, record, writer, run_dir, store, plain):
    record(0, 2)
    assert writer.compact() == 0
    record(3, 9)
    before = store.frame("r1", "select * from tokens order by all")
    assert writer.compact() == 8
    assert store.frame("r1", "select * from tokens order by all").equals(before)
    for table in TABLES:
        assert segments(run_dir, table) == [(0, 3), (0, 0), (1, 1), (2, 2), (3, 3), (4, 7), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8), (9, 9)]
    assert plain("select count(*), count(distinct step) from rollouts") == [(80, 10)]
    writer.compact()
    for table in TABLES:
        assert segments(run_dir, table) == [(0, 3), (4, 7), (8, 8), (9, 9)]
    assert store.frame("r1", "select * from tokens order by all").equals(before)


def test_steps_written_together_are_merged_once_they_add_up(small_blocks, writer, run_dir, store, plain):
    def write(first: int, last: int) -> None:
        writer.append_steps([make_step_tables(step) for step in range(first, last + 1)])

    write(0, 1)
    write(2, 2)
    assert writer.compact() == 0  # 3 of 4 steps
    write(3, 4)
    assert writer.compact() == 3
    write(5, 8)  # a block by itself
    write(9, 9)
    write(10, 10)
    assert writer.compact() == 0
    writer.compact()
    for table in TABLES:
        assert segments(run_dir, table) == [(0, 4), (5, 8), (9, 9), (10, 10)]
    write(11, 11)  # 12 steps in small and larger pieces
    assert writer.compact() == 5
    assert plain("select count(*), count(distinct step) from rollouts") == [(96, 12)]
    writer.compact()
    for table in TABLES:
        assert segments(run_dir, table) == [(0, 11)]
    assert step_series(store, "r1")["step"].tolist() == list(range(12))


def test_supersede_cuts_steps_written_together(small_blocks, record, writer, run_dir, store, plain):
    record(0, 0)
    writer.append_steps([make_step_tables(step) for step in (1, 2, 3, 4)])
    assert writer.supersede(2) == 2
    assert {table: segments(run_dir, table) for table in TABLES} == {table: [(0, 0), (1, 2)] for table in TABLES}
    assert segments(run_dir / "superseded" / "0", "rollouts") == [(3, 4)]
    writer.append_steps([make_step_tables(step, seed=1) for step in (3, 4)])
    assert step_series(store, "r1")["step"].tolist() == [0, 1, 2, 3, 4]
    assert plain("select count(*), count(distinct step) from rollouts") == [(40, 5)]


def test_another_process_merges_for_the_writer_and_no_longer_once_that_is_killed(small_blocks, record, writer, run_dir):
    record(0, 3)
    assert replace(writer.merge, writer_pid=os.getpid())() == 0  # as in a process whose parent is gone
    assert replace(writer.merge, writer_pid=os.getppid())() == 4
    assert (0, 3) in segments(run_dir, "steps")


def test_a_run_is_taken_only_when_the_merging_of_a_killed_writer_is_over(run_dir, monkeypatch):
    orphan = filelock.FileLock(run_dir / MERGING, thread_local=False)
    orphan.acquire()
    monkeypatch.setattr(publish, "MERGE_PATIENCE_S", 0.2)
    with pytest.raises(RunLocked, match="wait until it has ended"):
        RunWriter.open(run_dir)
    monkeypatch.setattr(publish, "MERGE_PATIENCE_S", 60.0)
    threading.Timer(0.3, orphan.release).start()
    with RunWriter.open(run_dir):
        assert not orphan.is_locked


def test_merged_segments_are_merged_again_until_they_are_large(small_blocks, monkeypatch, record, writer, run_dir, store):
    record(0, 11)
    assert writer.compact() == 12 + 3
    writer.compact()
    assert segments(run_dir, "rollouts") == [(0, 11)]
    monkeypatch.setattr(compaction, "LARGEST_BYTES", 1)
    record(12, 23)
    assert writer.compact() == 12
    writer.compact()
    assert segments(run_dir, "steps") == segments(run_dir, "rollouts") == [(0, 11), (12, 15), (16, 19), (20, 23)]
    assert step_series(store, "r1")["step"].tolist() == list(range(24))


def test_a_merge_cut_short_between_tables_is_finished(small_blocks, monkeypatch, record, writer, run_dir, store):
    record(0, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "TABLES", {"steps": TABLES["steps"], "groups": None, "rollouts": TABLES["rollouts"]})
        with pytest.raises(AttributeError):  # dies after rollouts
            writer.compact()
    assert segments(run_dir, "rollouts")[0] == (0, 3) and segments(run_dir, "groups")[0] == (0, 0)
    assert len(store.frame("r1", "select * from rollouts join groups using (step, group_index) join steps using (step)")) == 32
    assert writer.compact() == 4
    assert [len(segments(run_dir, table)) for table in TABLES] == [5, 5, 1]  # what rollouts had merged before counts by now
    assert len(store.frame("r1", "select * from rollouts")) == 32


def test_tables_divided_at_different_steps_are_merged_where_all_divide(small_blocks, monkeypatch, record, writer, run_dir, store):
    """A kill before `steps` of a large merge and a cut inside it: the next small merge must not bridge what the other tables divide."""
    monkeypatch.setattr(compaction, "BLOCK", 3)
    monkeypatch.setattr(compaction, "FAN_IN", 2)
    merge = compaction._merge

    def die_before_steps(run_dir, first, last, precision):
        if (first, last) != (0, 11):
            return merge(run_dir, first, last, precision)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compaction, "TABLES", {name: TABLES[name] for name in ("groups", "rollouts")})
            merge(run_dir, first, last, precision)
        raise KeyboardInterrupt

    record(0, 8)
    writer.compact()
    record(9, 11)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(compaction, "_merge", die_before_steps)
        writer.compact()
    assert writer.supersede(8) == 3
    assert [s for s in segments(run_dir, "steps") if s[1] > 5][:1] == [(6, 8)] and segments(run_dir, "groups") == [(0, 8)]
    record(9, 11)
    writer.compact()
    assert store.damaged("r1") == []
    assert len(store.frame("r1", "select * from rollouts join groups using (step, group_index) join steps using (step)")) == 96
    writer.compact()
    assert {segments(run_dir, table)[0] for table in TABLES} == {(0, 11)}


def test_damaged_and_missing_segments_are_left_out_of_merges(small_blocks, record, writer, run_dir, store):
    record(0, 12)
    damage(list_segments(run_dir / "rollouts")[4].path)
    list_segments(run_dir / "groups")[9].path.unlink()
    assert writer.compact() == 8
    writer.compact()
    assert segments(run_dir, "steps") == [(0, 3), (4, 4), (5, 8), (9, 9), (10, 10), (11, 11), (12, 12)]
    assert [(d.table, d.first_step) for d in store.damaged("r1")] == [("groups", 9), ("rollouts", 4)]
    assert len(store.frame("r1", "select * from rollouts", steps=(5, 12))) == 64


def test_a_recorded_gap_survives_compaction(small_blocks, writer, run_dir, store):
    for step in (0, 1, 5, 9):
        writer.append_step(make_step_tables(step))
    assert writer.compact() == 4
    assert segments(run_dir, "steps")[0] == (0, 9)
    assert step_series(store, "r1")["step"].tolist() == [0, 1, 5, 9]
    assert store.damaged("r1") == []


# superseding


def test_supersede_puts_later_steps_aside_also_out_of_merged_segments(small_blocks, record, writer, run_dir, store, plain):
    record(0, 9)
    writer.compact()
    gone = store.frame("r1", "select * from rollouts where step > 5 order by all")
    assert writer.supersede(5) == 4
    assert writer.last_step == 5
    assert {table: segments(run_dir, table) for table in TABLES} == {table: [(0, 3), (0, 0), (1, 1), (2, 2), (3, 3), (4, 5)] for table in TABLES}
    assert step_series(store, "r1")["step"].tolist() == list(range(6))
    kept = duckdb.execute(f"select * from read_parquet('{run_dir}/superseded/0/rollouts/*.parquet') order by all").df()
    assert kept["text"].tolist() == gone["text"].tolist() and all(map(np.array_equal, kept["entropy"], gone["entropy"]))
    record(6, 7, seed=1)
    assert store.frame("r1", "select * from rollouts where step = 6").equals(store.frame("r1", "select * from rollouts", steps=(6, 6)))
    assert plain("select count(*), count(distinct step) from rollouts") == [(64, 8)]
    assert writer.supersede(-1) == 8 and writer.last_step == -1
    assert sorted(path.name for path in (run_dir / "superseded").iterdir()) == ["0", "1"]
    assert plain("select count(*) from rollouts") == [(0,)]


def test_supersede_of_nothing_is_nothing(record, writer, run_dir):
    record(0, 1)
    assert writer.supersede(1) == 0 == writer.supersede(7)
    assert not (run_dir / "superseded").exists()


def test_supersede_names_the_gap_it_leaves_truthfully(small_blocks, writer, run_dir, store):
    for step in (0, 1, 5, 9):
        writer.append_step(make_step_tables(step))
    writer.compact()
    assert writer.supersede(7) == 1
    assert writer.last_step == 5 == store.last_step("r1")
    assert store.damaged("r1") == []
    writer.append_step(make_step_tables(8))
    assert step_series(store, "r1")["step"].tolist() == [0, 1, 5, 8]


@pytest.mark.parametrize("files_gone", range(21))
def test_a_supersede_that_dies_half_way_leaves_no_gap(files_gone, small_blocks, record, writer, run_dir, monkeypatch, store, plain):
    """A kill after any number of removed files: the steps that are left are the first ones, each of them whole."""
    record(0, 7)
    writer.compact()
    record(8, 9)
    unlink, left = Path.unlink, [files_gone]

    def dies_in_the_end(path: Path, **options) -> None:
        if path.suffix == ".parquet":
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", dies_in_the_end)
    with pytest.raises(KeyboardInterrupt):
        writer.supersede(4)
    monkeypatch.undo()
    steps = step_series(store, "r1")["step"].tolist()
    assert steps == list(range(len(steps))) and 5 <= len(steps) <= 10
    assert plain("select count(*), count(distinct step) from rollouts join steps using (step)") == [(8 * len(steps), len(steps))]
    writer.close()
    with RunWriter.open(run_dir) as again:
        assert again.last_step == len(steps) - 1
        assert store.frame("r1", "select count(*) as n from rollouts")["n"].tolist() == [8 * len(steps)]
        again.supersede(4)  # the same division a second time makes the same file, which must not go with those it replaces
    assert store.damaged("r1") == [] and store.frame("r1", "select count(*) as n from rollouts join groups using (step, group_index)")["n"].tolist() == [40]


def test_supersede_that_cannot_divide_a_damaged_file_changes_nothing(small_blocks, record, writer, run_dir):
    record(0, 3)
    writer.compact()
    file = list_segments(run_dir / "rollouts")[0].path
    good = file.read_bytes()
    damage(file)
    before = sorted(run_dir.rglob("*.parquet"))
    with pytest.raises(SegmentDamaged, match="rollouts/c00000000-00000003"):
        writer.supersede(1)
    assert [path for path in sorted(run_dir.rglob("*.parquet")) if "superseded" not in path.parts] == before
    assert writer.last_step == 3
    file.write_bytes(good)
    assert writer.supersede(1) == 2  # what the first try had put together is not in the way


def test_the_schema_of_a_merged_file_is_the_schema_of_a_step(small_blocks, record, writer, run_dir):
    record(0, 3)
    writer.compact()
    files = list_segments(run_dir / "rollouts")
    assert pq.read_schema(files[0].path).equals(pq.read_schema(files[1].path))
    assert pq.read_schema(files[0].path).names == ROLLOUTS.arrow.names

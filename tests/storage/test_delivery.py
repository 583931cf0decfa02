"""What clocks and copy tools do to a run: clocks that jump, files that come twice, in any order or in part. Every step is seen once or is named."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from storage import compaction
from storage.errors import SegmentDamaged
from storage.layout import Segment, list_segments, merged_name
from storage.reader import Store
from storage.schema import TABLES
from storage.segments import RunWriter, seal
from tests.factories import make_step_tables

HOUR = 3600.0
COUNTS = "select step, count(*), count(distinct rollout_index) from rollouts group by step order by step"


def small(step: int, seed: int = 0) -> dict:
    return make_step_tables(step, groups=1, group_size=2, tokens=3, seed=seed)


def once(*steps: int) -> list[list[int]]:
    return [[step, 2, 2] for step in steps]


@pytest.fixture
def clock(monkeypatch) -> Callable[[float], None]:
    """clock(s): from here on the writer's clock is so many seconds ahead of the reader's."""
    ahead = [0.0]
    real = time.time
    monkeypatch.setattr(compaction, "BLOCK", 4)
    monkeypatch.setattr(compaction, "FAN_IN", 3)
    monkeypatch.setattr(compaction.time, "time", lambda: real() + ahead[0])
    return lambda seconds: ahead.__setitem__(0, seconds)


@pytest.fixture
def seen(store, plain) -> Callable[[], list[list[int]]]:
    """Steps with their rows, the same for the store and for plain DuckDB."""

    def seen() -> list[list[int]]:
        by_store = Store(store.root).frame("r1", COUNTS).values.tolist()
        assert by_store == [list(row) for row in plain(COUNTS)]
        return by_store

    return seen


# clocks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [-HOUR, -30.0, 30.0, 59.0, HOUR])
def test_a_merge_dated_by_another_clock_hides_nothing(writer, run_dir, clock, seen, ahead):
    """A clock that is set back by 30 s after the merge is one that was 30 s ahead when it was made."""
    for step in range(6):
        writer.append_step(small(step))
    clock(ahead)
    assert writer.compact() == 4 and seen() == once(*range(6))
    clock(ahead + compaction.SINCE_DELAY_S + compaction.GRACE_S + 1)
    writer.compact()
    assert [(s.first, s.last) for s in list_segments(run_dir / "rollouts")] == [(0, 3), (4, 4), (5, 5)], "what was covered is gone"
    assert seen() == once(*range(6))


def test_a_merge_from_an_hour_ahead_stays_when_that_hour_comes(writer, run_dir, clock, seen):
    """What counted because its date was impossible must not vanish when the date becomes possible."""
    for step in range(4):
        writer.append_step(small(step))
    clock(HOUR)
    writer.compact()
    clock(0)
    writer.compact()
    for table in TABLES:
        (merged, *covered) = list_segments(run_dir / table)
        assert not covered
        merged.path.rename(run_dir / table / merged_name(0, 3, int((time.time() + 30) * 1000))(merged.crc))
    assert seen() == once(*range(4))


def test_a_removal_cut_short_by_a_kill_and_a_clock_set_back_shows_the_merge(writer, run_dir, clock, seen):
    for step in range(4):
        writer.append_step(small(step))
    clock(20.0)
    writer.compact()
    for table in TABLES:
        list_segments(run_dir / table)[1].path.unlink()  # the first of those it covers
    assert seen() == once(*range(4))


@pytest.mark.parametrize("seed", range(3))
def test_a_clock_that_jumps_all_the_time_costs_no_step_and_doubles_none(writer, run_dir, clock, seen, seed):
    chance, step = random.Random(seed), 0
    for _ in range(30):
        clock(chance.choice([-HOUR, -100.0, -20.0, 0.0, 1.0, 15.0, 45.0, 100.0, HOUR]))
        for _ in range(chance.randint(0, 3)):
            writer.append_step(small(step))
            step += 1
        writer.compact()
        assert seen() == once(*range(step))
    writer.close()
    seal(run_dir)
    assert seen() == once(*range(step)) and step > 20


# the same thing twice --------------------------------------------------------------------------------------------------


def twin(segment: Segment, name: str) -> Path:
    return Path(shutil.copy(segment.path, segment.path.parent / name.format(step=segment.first, crc=segment.crc, stem=segment.path.stem)))


NAMES = ["{stem} (1).parquet", "{stem}-copy.parquet", "copy of {stem}.parquet", "s{step}-{crc}.parquet", "c{step}-{step}-0-{crc}.parquet"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_delivered_twice_counts_once(writer, run_dir, store, seen, name):
    for step in range(4):
        writer.append_step(small(step))
    for table in TABLES:
        twin(list_segments(run_dir / table)[2], name)
    assert seen() == once(*range(4)) and store.damaged("r1") == []
    writer.close()
    with RunWriter.open(run_dir) as again:
        again.append_step(small(4))
    assert seen() == once(*range(5))
    seal(run_dir)
    assert seen() == once(*range(5))


def test_a_merged_file_delivered_twice_counts_once(writer, run_dir, clock, seen):
    for step in range(4):
        writer.append_step(small(step))
    writer.compact()
    for table in TABLES:
        merged = list_segments(run_dir / table)[0]
        shutil.copy(merged.path, run_dir / table / merged_name(0, 3)(merged.crc))
    assert seen() == once(*range(4))


def test_of_two_files_that_differ_on_a_step_one_is_read_and_the_other_is_named(writer, run_dir, store, seen, plain):
    """A folder copied over an older copy of itself, in which a resume had trained the step otherwise."""
    for step in range(3):
        writer.append_step(small(step))
    with RunWriter.open(run_dir.parent / "other") as other:
        other.append_step(small(1, seed=1))
    for table in TABLES:
        segment = list_segments(run_dir.parent / "other" / table)[0]
        shutil.copy(segment.path, run_dir / table)
    assert seen() == once(0, 1, 2)
    read = "select advantage, token_ids::varchar from rollouts order by all"
    assert [list(row) for row in plain(read)] == store.frame("r1", read).values.tolist()
    found = store.damaged("r1")
    assert [(d.table, d.first_step, d.last_step) for d in found] == [("rollouts", 1, 1)], "the groups and the step are the same"
    assert "holds the same steps as" in found[0].why and "is read: move the one that is not wanted" in found[0].why
    writer.close()
    with pytest.raises(SegmentDamaged, match="holds the same steps as"):
        seal(run_dir)  # which would delete one of them


# in any order, and in part -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_files_may_come_in_any_order(writer, run_dir, clock, tmp_path, seed):
    """What a copy tool has brought so far is read, or named as not there yet; no row is doubled, and in the end all is there."""
    for step in range(11):
        writer.append_step(small(step))
    writer.compact()  # the merged files beside what they cover
    copied = tmp_path / "copy" / "runs" / "r1"
    shutil.copytree(run_dir, copied, ignore=lambda folder, names: [n for n in names if n.startswith(("s0", "c0"))])
    files = sorted(s.path for table in TABLES for s in list_segments(run_dir / table))
    random.Random(seed).shuffle(files)
    want = {step: once(step)[0] for step in range(11)}
    for path in files:
        shutil.copy(path, copied / path.parent.name)
        store = Store(tmp_path / "copy")
        assert all(want[row[0]] == row for row in store.frame("r1", COUNTS, skip_damaged=True).values.tolist())
        try:
            store.frame("r1", COUNTS)
        except SegmentDamaged as error:
            assert "says it was recorded; put the file back" in str(error)
    assert Store(tmp_path / "copy").frame("r1", COUNTS).values.tolist() == once(*range(11))


def test_the_newest_first_as_some_tools_copy(writer, run_dir, tmp_path):
    for step in range(5):
        writer.append_step(small(step))
    copied = tmp_path / "copy" / "runs" / "r1"
    shutil.copytree(run_dir, copied, ignore=lambda folder, names: [n for n in names if n.startswith("s0")])
    for step in reversed(range(5)):
        for table in TABLES:  # `steps` before its rollouts
            shutil.copy(list_segments(run_dir / table)[step].path, copied / table)
            if table != "rollouts":
                with pytest.raises(SegmentDamaged, match=f"rollouts has no segment with step {step}, although steps/s0000000{step}"):
                    Store(tmp_path / "copy").frame("r1", COUNTS)
        assert Store(tmp_path / "copy").frame("r1", COUNTS).values.tolist() == once(*range(step, 5))


def flipped(data: bytes) -> bytes:
    return data[:500] + bytes([data[500] ^ 1]) + data[501:]


@pytest.mark.parametrize("harm", [lambda data: data[:-200], lambda data: data[:-1], lambda data: b"", flipped])
def test_a_merged_file_that_came_in_part_does_not_cost_what_it_covers(writer, run_dir, clock, store, seen, harm):
    """The next writer must not take it for a replacement."""
    for step in range(6):
        writer.append_step(small(step))
    writer.compact()
    writer.close()
    merged = list_segments(run_dir / "rollouts")[0].path
    merged.write_bytes(harm(merged.read_bytes()))
    clock(HOUR)
    with RunWriter.open(run_dir) as again:
        again.compact()
        assert len([s for s in list_segments(run_dir / "rollouts") if not s.merged]) == 6 and len(list_segments(run_dir / "groups")) == 3
        if merged.exists():  # DuckDB can open it: only the checksum tells
            assert [d.path for d in store.damaged("r1")] == [merged]
            assert store.frame("r1", COUNTS, skip_damaged=True).values.tolist() == once(4, 5)
            os.unlink(merged)  # as the sentence says
        assert store.damaged("r1") == [] and seen() == once(*range(6))
    seal(run_dir)
    assert seen() == once(*range(6))


# damage that DuckDB stumbles over ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", [lambda data: data[:-4], lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"\0" * len(data)])
@pytest.mark.parametrize("table", TABLES)
def test_a_run_with_a_file_that_duckdb_cannot_open_goes_on_without_it(run_dir, store, plain, table, harm):
    """The next writer puts it aside: named, kept, and out of the way of everything else."""
    with RunWriter.open(run_dir) as writer:
        for step in range(5):
            writer.append_step(small(step))
    path = list_segments(run_dir / table)[2].path
    good, bad = path.read_bytes(), harm(path.read_bytes())
    path.write_bytes(bad)
    with RunWriter.open(run_dir) as writer:
        assert writer.last_step == 4
        writer.append_step(small(5))
    aside = path.with_name(f"{path.name}.damaged")
    assert aside.read_bytes() == bad and not path.exists()
    steps = [0, 1, 3, 4, 5]
    assert [s for (s,) in plain(f"select distinct step from {table} order by step")] == steps
    assert store.frame("r1", f"select distinct step from {table} order by step", skip_damaged=True).step.tolist() == steps
    found = {d.path: d.why for d in store.damaged("r1")}
    assert f"put a good copy back as {path.name}" in found[aside]
    with pytest.raises(SegmentDamaged, match=table):
        seal(run_dir)
    assert aside.read_bytes() == bad
    path.write_bytes(good)
    assert store.damaged("r1") == [] and store.frame("r1", COUNTS).values.tolist() == [list(row) for row in plain(COUNTS)] == once(*range(6))
    seal(run_dir)
    assert store.frame("r1", COUNTS).values.tolist() == once(*range(6))


def test_a_vocabulary_that_duckdb_cannot_open_costs_no_step(run_dir, store, plain):
    with RunWriter.open(run_dir) as writer:
        writer.append_step(small(0))
        writer.write_vocabulary(["a", "b"])
    (run_dir / "vocabulary.parquet").write_bytes(b"PAR1")
    (run_dir / "steps" / "empty.parquet").write_bytes(b"")
    with RunWriter.open(run_dir) as writer:
        writer.append_step(small(1))
    assert (run_dir / "vocabulary.parquet.damaged").exists() and plain("select count(*) from vocabulary") == [(0,)]
    assert store.damaged("r1") == [] and store.frame("r1", COUNTS).values.tolist() == once(0, 1)

"""One flipped bit anywhere in a file, and a file cut off anywhere: it is named and left out, and all else is read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import compaction
from storage.errors import SegmentDamaged
from storage.layout import Segment, list_segments
from storage.reader import Store
from storage.schema import TABLES
from storage.segments import RunWriter, seal
from tests.factories import make_step_tables

STATES = ("live", "merged", "sealed")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, request) -> Path:
    """Six steps; four of them merged; or all in one sealed file of each table."""
    root = tmp_path_factory.mktemp("flips")
    for state in STATES:
        run_dir = root / "runs" / state
        with pytest.MonkeyPatch.context() as patch, RunWriter.open(run_dir) as writer:
            patch.setattr(compaction, "BLOCK", 4)
            patch.setattr(compaction, "SINCE_DELAY_S", -100.0)
            for step in range(6):
                writer.append_step(make_step_tables(step))
            if state == "merged":
                writer.compact()
                compaction.remove_covered(run_dir)
        if state == "sealed":
            seal(run_dir)
    return root


def places(size: int) -> Iterator[int]:
    """Bytes in the magic at the start, in pages and their headers, in the footer, in its length and in the magic at the end."""
    yield from (0, 3, 4, 5, 20)
    yield from range(40, size - 12, max(1, size // 12))
    yield from (size - 200, size - 9, size - 8, size - 5, size - 4, size - 1)


def harmed(data: bytes) -> Iterator[tuple[str, bytes]]:
    for place in places(len(data)):
        yield f"bit flipped at {place}", data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :]
    for length in (0, 1, 4, len(data) // 2, len(data) - 8, len(data) - 1):
        yield f"cut off after {length}", data[:length]
    yield "longer", data + b"\0"


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("table", TABLES)
def test_whatever_byte_is_wrong_the_file_is_named_and_the_rest_is_read(recorded, tmp_path, state, table):
    run_dir = tmp_path / "runs" / "r1"
    shutil.copytree(recorded / "runs" / state, run_dir)
    store = Store(tmp_path)
    segment: Segment = list_segments((run_dir / "sealed" if state == "sealed" else run_dir) / table)[0]
    good = segment.path.read_bytes()
    steps = f"select distinct step from {table} order by step"
    rest = [step for step in range(6) if step > segment.last]
    for what, bad in harmed(good):
        segment.path.write_bytes(bad)
        with pytest.raises(SegmentDamaged, match=segment.path.name):
            store.frame("r1", steps)
        assert store.frame("r1", steps, skip_damaged=True).step.tolist() == rest, what
        assert [d.path for d in store.damaged("r1")] == [segment.path], what
        for other in set(TABLES) - {table}:
            assert len(store.frame("r1", f"select distinct step from {other}")) == 6, what
    segment.path.write_bytes(good)
    assert store.damaged("r1") == [] and len(store.frame("r1", steps)) == 6

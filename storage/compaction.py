"""Many small segments become few large ones, while readers read and without a moment in which a step is missing or double.

A merged file is published `SINCE_DELAY_S` before it starts to count for the views of run.duckdb, and what it covers is
removed only `GRACE_S` after that. `Store` lists each folder once and lets the widest file win, so it needs no such care.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from storage.encode import publish_tables
from storage.errors import SegmentDamaged
from storage.layout import Segment, check_segment, list_segments, merged_name, read_layout, visible
from storage.schema import TABLES
from storage.views import CLOCK_SLACK_MS

BLOCK = 64
"""Steps in a first merge."""
FAN_IN = 16
"""How many times as many steps each later merge holds."""
LARGEST_BYTES = 256 << 20
"""No later merge makes files that add up to more: rewriting them would cost more than opening them."""
SINCE_DELAY_S = 2.0
GRACE_S = 10.0


def compact(run_dir: Path, precision: str) -> int:
    """Merges whatever is due; returns how many segments of `steps` went into merged ones.

    Damaged segments and those next to a missing one stay as they are. Only for the holder of the run's lock. Raises DiskFull.
    """
    merged, left_alone = 0, set[Path]()
    while due := _next_block(run_dir, left_alone):
        block = _whole(run_dir, due)
        if broken := _broken(run_dir, block):
            paths = {segment.path for segment in due}
            left_alone |= (broken & paths) or paths
        else:
            _merge(run_dir, block[0].first, block[-1].last, precision)
            merged += len(block)
    return merged


def remove_covered(run_dir: Path) -> None:
    """Deletes segments whose replacement, merged or thinned, is whole and has counted for long enough that no query still needs them.

    From the first step on, which the views of run.duckdb rely on.
    """
    for table in TABLES:
        remove_covered_in(run_dir / table)


def remove_covered_in(folder: Path) -> None:
    """The same of one table's folder."""
    now_ms = int(time.time() * 1000)
    segments = list_segments(folder)
    for cover in visible(segments):
        covered = [s for s in segments if s is not cover and cover.merged and cover.contains(s)]
        if covered and not now_ms - GRACE_S * 1000 < cover.since_ms < now_ms + CLOCK_SLACK_MS and _is_whole(cover):
            for segment in covered:
                segment.path.unlink()


def _is_whole(cover: Segment) -> bool:
    """A file that came here damaged, or in part, is no replacement for what it covers."""
    try:
        check_segment(cover)
    except (SegmentDamaged, FileNotFoundError):
        return False
    return True


def read_tables(segments: Iterable[Segment]) -> Iterator[pa.Table]:
    """The rows of some segments, a row group at a time."""
    for segment in segments:
        with pq.ParquetFile(segment.path) as file:
            for index in range(file.num_row_groups):
                yield file.read_row_group(index, use_threads=False)  # row groups are small: waking threads costs more


def _next_block(run_dir: Path, left_alone: set[Path]) -> list[Segment] | None:
    """The oldest small neighbours that are enough for a merge, the smallest merge first."""
    segments = read_layout(run_dir).segments
    reach = BLOCK
    while reach <= sum(map(_steps, segments["steps"])):
        for block in _blocks(segments["steps"], reach, left_alone):
            if reach == BLOCK or sum(_sizes(segments.values(), block)) <= LARGEST_BYTES:
                return block
        reach *= FAN_IN
    return None


def _whole(run_dir: Path, block: Sequence[Segment]) -> list[Segment]:
    """The segments of `steps` from the block's to as many more as no table divides elsewhere.

    A kill before the last table was merged, and a cut after it, leave tables divided at different steps. A segment of `steps` that
    bridged such a place would have its groups in two files, which no reader takes for whole.
    """
    segments = read_layout(run_dir).segments
    first, last, wider = block[0].first, block[-1].last, True
    while wider:
        touched = [s for table in segments.values() for s in table if s.overlaps(first, last)]
        reach = min(s.first for s in touched), max(s.last for s in touched)
        wider = reach != (first, last)
        first, last = reach
    return [s for s in segments["steps"] if first <= s.first and s.last <= last]


def _blocks(segments: Iterable[Segment], reach: int, left_alone: set[Path]) -> Iterator[list[Segment]]:
    """Neighbours with fewer than `reach` steps each, and just so many of them that they hold `reach` together."""
    block: list[Segment] = []
    for segment in segments:
        if segment.path in left_alone or _steps(segment) >= reach:
            block = []
            continue
        block.append(segment)
        if sum(map(_steps, block)) >= reach:
            yield block
            block = []


def _steps(segment: Segment) -> int:
    return segment.last - segment.first + 1


def _sizes(tables: Iterable[Sequence[Segment]], block: Sequence[Segment]) -> Iterator[int]:
    for segments in tables:
        for segment in segments:
            if block[0].first <= segment.first and segment.last <= block[-1].last:
                yield segment.path.stat().st_size


def _broken(run_dir: Path, block: Sequence[Segment]) -> set[Path]:
    """Those segments of `steps` in the block whose own bytes or whose rows in another table are damaged or missing."""
    layout = read_layout(run_dir)
    broken = {gap.path for table in TABLES for gap in layout.gaps(table)}
    for segments in layout.segments.values():
        for segment in segments:
            if segment.overlaps(block[0].first, block[-1].last):
                try:
                    check_segment(segment)
                except SegmentDamaged:
                    broken |= {s.path for s in block if s.overlaps(segment.first, segment.last)}
    return broken & {s.path for s in block}


def _merge(run_dir: Path, first: int, last: int, precision: str) -> None:
    for name in reversed(TABLES):  # `steps` last, as for a single step
        segments = visible(list_segments(run_dir / name))
        parts = [s for s in segments if first <= s.first and s.last <= last]
        if len(parts) > 1 or not parts[0].merged:  # a kill may have come after some tables were merged
            publish_tables(run_dir / name, lambda crc: merged_name(first, last, since_ms())(crc), read_tables(parts), TABLES[name], precision)


def since_ms() -> int:
    """When a file that is published now starts to count, in ms since 1970."""
    return int((time.time() + SINCE_DELAY_S) * 1000)

"""Taking steps out of a run without losing them: a resume from an older checkpoint trains them again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from storage.compaction import read_tables
from storage.encode import publish_tables
from storage.layout import SUPERSEDED, TEMPORARY, Segment, check_segment, list_segments, merged_name, read_layout, visible
from storage.publish import link, sync
from storage.schema import TABLES


def supersede(run_dir: Path, after_step: int, precision: str) -> int:
    """Moves all steps later than `after_step` to superseded/<n>/ and returns how many; only for the holder of the lock.

    The copy is complete before the run loses a row, so a kill in between costs a second copy at worst.
    Raises DiskFull; SegmentDamaged if a merged segment that must be divided or counted cannot be read.
    """
    moving = {name: [s for s in visible(list_segments(run_dir / name)) if s.last > after_step] for name in TABLES}
    if not any(moving.values()):
        return 0
    count = _put_aside(run_dir, moving, after_step, precision)
    for name in TABLES:  # `steps` first: a step is gone for readers before its rollouts go
        _cut(run_dir, name, after_step, precision)
    return count


def mend(run_dir: Path, precision: str) -> None:
    """Puts aside what lies beyond the last whole step: what a killed writer was publishing, or a supersede that was cut short.

    It looks the same where `steps` lost files that had been whole, so nothing is deleted.
    """
    supersede(run_dir, read_layout(run_dir).last_step, precision)


def _put_aside(run_dir: Path, moving: dict[str, list[Segment]], after_step: int, precision: str) -> int:
    shelf = run_dir / SUPERSEDED
    staging = shelf / f"{TEMPORARY}{os.getpid()}"
    if staging.exists():  # an earlier call found no room
        shutil.rmtree(staging)
    for name, segments in moving.items():
        (staging / name).mkdir(parents=True)
        for segment in segments:
            if segment.first > after_step:
                link(segment.path, staging / name / segment.path.name)
            else:
                later = _rows(segment, pc.field("step") > after_step)
                publish_tables(staging / name, merged_name(after_step + 1, segment.last), [later], TABLES[name], precision)
        sync(staging / name)
    count = sum(_steps_in(segment) for segment in list_segments(staging / "steps"))
    numbers = [int(path.name) for path in shelf.iterdir() if path.name.isdecimal()]
    os.rename(staging, shelf / str(max(numbers, default=-1) + 1))
    sync(shelf)
    return count


def _cut(run_dir: Path, name: str, after_step: int, precision: str) -> None:
    everything = list_segments(run_dir / name)
    for segment in reversed(visible(everything)):  # the newest first: a kill in between leaves no gap
        if segment.last <= after_step:
            continue
        kept = None
        if segment.first <= after_step:
            earlier = _rows(segment, pc.field("step") <= after_step)
            last = pc.max(earlier["step"]).as_py() if name == "steps" else after_step
            kept = publish_tables(run_dir / name, merged_name(segment.first, last), [earlier], TABLES[name], precision)
        for covered in everything:  # before its cover, which would bring it back to light
            # a division that was cut short is done again and makes a file of the very same name, checksum and all
            if covered is not segment and segment.contains(covered) and covered.path != kept:
                covered.path.unlink()
        segment.path.unlink()
    sync(run_dir / name)


def _rows(segment: Segment, condition: pc.Expression) -> pa.Table:
    check_segment(segment)
    return pa.concat_tables(table.filter(condition) for table in read_tables([segment]))


def _steps_in(segment: Segment) -> int:
    if segment.merged:
        check_segment(segment)
        return pq.read_metadata(segment.path).num_rows
    return 1

"""Takes token lists out of old steps, file by file, while readers read: what goes, and by which policy, is written down first.

A file of rollouts is written anew beside the old one, compared with it, and published under the same steps with a later `since`; it hides the old
one, which is removed as one that was merged is. A kill at any moment leaves the old file or both, and every step is seen once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter, ValidationError

from storage import compaction
from storage.encode import fitted, write_parquet
from storage.errors import StoreError
from storage.layout import PRECISION_KEY, TEMPORARY, Segment, check_segment, merged_name
from storage.publish import lock_run, merging, publish, sync
from storage.queries.retention import alert_steps, named_groups
from storage.retention import TOKEN_LISTS, Plan, Retention, plan, size_text, survey
from storage.schema import ROLLOUTS
from storage.transfer import Progress, no_progress
from storage.views import files_source, in_full

RECORD = "retention.jsonl"
"""In the run's folder: a line per file that was written anew, written just before that counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinning:
    """One file's loss: when (s since 1970), who asked, by which policy, the steps of the file, which of them lost tokens, and the bytes freed."""

    at: Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
    by: Annotated[str, Field(max_length=200)]
    policy: Annotated[str, Field(max_length=200)]
    first: int
    last: int
    steps: Annotated[tuple[tuple[int, int], ...], Field(min_length=1)]
    """Ranges of steps that lost the tokens of some or all groups, both ends included."""
    groups: int
    rollouts: int
    bytes_freed: int

    def holds(self, step: int) -> bool:
        return any(first <= step <= last for first, last in self.steps)


THINNINGS = TypeAdapter(tuple[Thinning, ...])
_THINNING = TypeAdapter(Thinning)


@dataclass(frozen=True, slots=True)
class Retain:
    """A live run's thinning, for a process that its writer started and waits for. `catalog` is where its alerts are: a store's folder, or a URL."""

    run_dir: Path
    precision: str
    writer_pid: int
    retention: Retention
    catalog: Path | str | None

    def __call__(self) -> tuple[str, ...]:
        """Thins the oldest file that is due, at most one, and says so in lines for the run's log; never raises for what is wrong with the store."""
        try:
            with merging(self.run_dir):
                if os.getppid() != self.writer_pid:  # the writer has been killed, and the run may have another one by now
                    return ()
                alerts = alert_steps(self.catalog, self.run_dir.name) if self.catalog else ()
                done = _thin_next(self.run_dir, self.retention, alerts)
        except (StoreError, OSError, duckdb.Error, pa.ArrowException) as error:
            return (f"old tokens are not thinned ({' '.join(str(error).split())[:300]}); nothing is lost, and it is tried again later",)
        return (done_sentence(done),) if done else ()


def retain(
    run_dir: Path, retention: Retention, *, by: str, alerts: Iterable[int] = (), progress: Progress = no_progress, settle: bool = True
) -> tuple[Thinning, ...]:
    """Applies a policy to a run that nobody writes; says what was taken, file by file. `progress` is told of files, and of removing the old ones.

    `settle` waits until the old files are removed, about 12 s; otherwise whoever next writes, seals or thins the run does it.
    Raises RunLocked, NewerStore, DiskFull (files that were done before stay done, nothing else is lost), and SegmentDamaged before anything is changed.
    """
    lock = lock_run(run_dir)
    try:
        chosen = make_plan(run_dir, retention, alerts=alerts)
        _tidy(chosen.files)
        due = [(segment, lost) for segment, lost in _by_file(chosen)]
        for segment, _ in due:
            check_segment(segment)
        done = []
        for segment, lost in due:
            progress(len(done), len(due) + 1)
            done.append(_rewrite(run_dir, segment, lost, retention, by))
        progress(len(due), len(due) + 1)
        if due and settle:
            time.sleep(compaction.SINCE_DELAY_S + compaction.GRACE_S + 0.1)
        _tidy(segment for segment, _ in due)
        progress(len(due) + 1, len(due) + 1)
        return tuple(done)
    finally:
        lock.release()


def make_plan(run_dir: Path, retention: Retention, *, alerts: Iterable[int] = (), live: bool = False) -> Plan:
    """What a policy would take of a run as it is now; reads no token. Raises as `survey` and `named_groups` do."""
    found = survey(run_dir)
    return plan(retention, found, named_groups(found.layout), alerts=alerts, live=live)


def read_record(run_dir: Path) -> tuple[Thinning, ...]:
    """What was taken of a run, the oldest first; empty if nothing was. A line that was cut off or cannot be read is left out."""
    try:
        lines = (run_dir / RECORD).read_bytes().splitlines()
    except FileNotFoundError:
        return ()
    found = {}
    for line in lines:
        try:
            one = _THINNING.validate_json(line)
        except ValidationError:
            continue
        found[one.first, one.last, one.steps] = one  # a kill before the file counted, and then the same again
    return tuple(found.values())


def record_text(thinnings: Iterable[Thinning]) -> str:
    """The text of a record."""
    return "".join(_THINNING.dump_json(one).decode() + "\n" for one in thinnings)


def done_sentence(one: Thinning) -> str:
    """`thinned steps 0 to 63 by the policy 'every 10th step': …`."""
    count = sum(last - first + 1 for first, last in one.steps)
    return (
        f"thinned steps {one.first} to {one.last} by the policy '{one.policy}': the tokens of {one.groups} groups in {count} steps are gone, "
        f"{size_text(one.bytes_freed)} freed; all figures are kept"
    )


def _thin_next(run_dir: Path, retention: Retention, alerts: Iterable[int]) -> Thinning | None:
    """Of a live run, one file: writing a large one anew takes seconds, for which the recorder waits. The old file goes with the next merge."""
    chosen = make_plan(run_dir, retention, alerts=alerts, live=True)
    for segment, lost in _by_file(chosen):
        check_segment(segment)
        return _rewrite(run_dir, segment, lost, retention, "the run itself")
    return None


def _by_file(chosen: Plan) -> Iterator[tuple[Segment, pd.DataFrame]]:
    """The files that lose something, the oldest first, each with the groups that do. One that does not count yet has to wait."""
    now_ms = time.time() * 1000
    for index, lost in chosen.lost.groupby("file"):
        segment = chosen.files[index]
        if segment.since_ms <= now_ms:
            yield segment, lost


def _rewrite(run_dir: Path, segment: Segment, lost: pd.DataFrame, retention: Retention, by: str) -> Thinning:
    gone = _keys(lost["step"].to_numpy("i8"), lost["group_index"].to_numpy("i8"))
    done: list[Thinning] = []

    def write(path: Path) -> None:
        rollouts = _write_without(path, segment, gone)
        _compare(path, segment, lost)
        freed = segment.path.stat().st_size - path.stat().st_size
        steps = _ranges(sorted(set(lost["step"].tolist())))
        done.append(
            Thinning(
                at=time.time(),
                by=by,
                policy=retention.sentence,
                first=segment.first,
                last=segment.last,
                steps=steps,
                groups=len(lost),
                rollouts=rollouts,
                bytes_freed=freed,
            )
        )
        _write_down(run_dir / RECORD, done[0])

    publish(segment.path.parent, lambda crc: merged_name(segment.first, segment.last, _since_ms(segment))(crc), write)
    return done[0]


def _since_ms(replaced: Segment) -> int:
    """Later than that of the file that is replaced, also where the clock was set back."""
    return max(compaction.since_ms(), replaced.since_ms + 1)


def _write_without(path: Path, segment: Segment, gone: np.ndarray) -> int:
    """The file's rows without the token lists of these groups; returns how many rows lost theirs."""
    rollouts = 0
    precision = _precision(segment.path)

    def rows() -> Iterator[pa.Table]:
        nonlocal rollouts
        for table in compaction.read_tables([segment]):
            table = fitted(table, ROLLOUTS.arrow)
            lost = np.isin(_keys(table["step"].to_numpy(), table["group_index"].to_numpy()), gone)
            rollouts += int(lost.sum())
            yield _emptied(table, pa.array(lost)) if lost.any() else table

    write_parquet(path, rows(), ROLLOUTS, precision)
    return rollouts


def _emptied(table: pa.Table, lost: pa.Array) -> pa.Table:
    for name in TOKEN_LISTS:
        column = table[name]
        table = table.set_column(table.schema.get_field_index(name), name, pc.if_else(lost, pa.scalar(None, column.type), column))
    thinned = pc.if_else(lost, pa.scalar(True), table["thinned"])
    return table.set_column(table.schema.get_field_index("thinned"), "thinned", thinned)


def _compare(path: Path, segment: Segment, lost: pd.DataFrame) -> None:
    """Raises StoreError unless the new file has every row of the old one, and every list but those that were to go."""
    with duckdb.connect(config={"threads": 1}) as database:
        database.register("empty_rollouts", ROLLOUTS.arrow.empty_table())
        database.register("lost", lost[["step", "group_index"]])
        before, after = (database.execute(_SUMS.format(in_full("empty_rollouts", files_source([place])))).fetchone() for place in (segment.path, path))
        left = database.execute(_LEFT.format(files_source([path]))).fetchone()[0]
    if before != after or left:
        raise StoreError(f"{segment.path} written anew differs from it in what was to stay; it is left as it is, and no token is gone")


_PLAIN = ", ".join(column.name for column in ROLLOUTS.columns if column.name not in (*TOKEN_LISTS, "thinned"))
_SUMS = f"""select count(*), sum(hash(({_PLAIN}))), sum(hash(({", ".join(TOKEN_LISTS)}))) filter (where lost.step is null)
              from ({{}}) as r left join lost using (step, group_index)"""
_LEFT = "select count(*) from {} as r semi join lost using (step, group_index) where thinned is not true or token_ids is not null"


def _write_down(path: Path, one: Thinning) -> None:
    """Adds a line and flushes it to the disk; one that an earlier process was cut off in gets its end first."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            torn = file.read(1) != b"\n"
            file.write(b"\n" if torn else b"")
        file.write(record_text([one]).encode())
        file.flush()
        os.fsync(file.fileno())
    sync(path.parent)


def _tidy(files: Iterable[Segment]) -> None:
    """Removes what a killed process left half-written beside these files, and what has been replaced for long enough."""
    for folder in {segment.path.parent for segment in files}:
        for leftover in folder.glob(f"{TEMPORARY}*"):
            leftover.unlink()
        compaction.remove_covered_in(folder)


def _precision(path: Path) -> str:
    metadata = pq.read_metadata(path).metadata or {}
    return metadata.get(PRECISION_KEY.encode(), b"rounded").decode()


def _keys(step: np.ndarray, group: np.ndarray) -> np.ndarray:
    return (step.astype("i8") << 32) | group.astype("i8")


def _ranges(steps: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Consecutive steps as ranges, both ends included."""
    cuts = np.flatnonzero(np.diff(steps) != 1) + 1
    return tuple((int(part[0]), int(part[-1])) for part in np.split(np.asarray(steps), cuts))

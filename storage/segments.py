"""The writing side: one writer per run leaves immutable segments; DuckDB sees each step the moment it is whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeVar

import filelock
import pyarrow as pa
import pyarrow.compute as pc

from storage.compaction import compact, remove_covered
from storage.encode import MANTISSA_BITS, fitted, joined, parquet_bytes, publish_tables, rounded
from storage.errors import StoreError
from storage.layout import VOCABULARY_FILE, merged_name, read_info, read_layout, step_name
from storage.publish import lock_run, merging, publish, sweep_temporary
from storage.schema import STEPS, TABLES, VOCABULARY, Table
from storage.sealing import is_sealed, make_live, seal, unseal
from storage.supersede import mend, supersede

if TYPE_CHECKING:
    from storage.retention import Retention
    from storage.thinning import Retain

__all__ = ["EncodedSteps", "Merge", "RunWriter", "encode_steps", "is_sealed", "seal"]

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class EncodedSteps:
    """Whole steps from `first` to `last`, as the bytes of one Parquet file per table of schema.TABLES."""

    first: int
    last: int
    files: Mapping[str, bytes]

    def segment_name(self, crc: str) -> str:
        """Their files' name in every table's folder."""
        return (step_name(self.first) if self.first == self.last else merged_name(self.first, self.last))(crc)


@dataclass(frozen=True, slots=True)
class Merge:
    """A run's merging for a process that its writer started and waits for."""

    run_dir: Path
    precision: str
    writer_pid: int

    def __call__(self) -> int:
        """RunWriter.compact there, unless the writer has been killed: the run may have another one by now."""
        with merging(self.run_dir):
            return _merge_due(self.run_dir, self.precision) if os.getppid() == self.writer_pid else 0


def encode_steps(steps: Sequence[Mapping[str, pa.Table]], precision: str) -> EncodedSteps:
    """Steps, oldest first, rounded and as Parquet, in memory.

    Raises StoreError if one does not fit the schema or is not later than the one before.
    """
    numbers = [_checked_step(tables) for tables in steps]
    for before, step in pairwise(numbers):
        if step <= before:
            raise _out_of_order(before, step)
    files = _at_once(lambda name: _encoded([tables[name] for tables in steps], TABLES[name], precision), TABLES)  # Arrow does it without the GIL
    return EncodedSteps(numbers[0], numbers[-1], dict(zip(TABLES, files)))


def _encoded(tables: Sequence[pa.Table], schema: Table, precision: str) -> bytes:
    return parquet_bytes(rounded(joined([fitted(table, schema.arrow) for table in tables]), schema, precision), schema, precision)


class RunWriter:
    """The one writer of a run; use it from one thread at a time. `with RunWriter.open(folder) as writer: ...`"""

    def __init__(self, run_dir: Path, lock: filelock.FileLock, precision: str) -> None:
        self.run_dir = run_dir
        self.precision = precision
        self._lock = lock
        self.last_step = read_layout(run_dir).last_step  # the newest whole step, -1 if there is none

    @classmethod
    def open(cls, run_dir: Path, *, precision: Literal["rounded", "exact", "half"] = "rounded") -> Self:
        """Takes the run for writing, mends what a killed writer left, and makes run.duckdb readable before the first step.

        A sealed run becomes a live one again.

        Raises RunLocked if another process writes it, NewerStore if a newer Groupscope did, SegmentDamaged if a sealed
        run.duckdb cannot be read, DiskFull.
        """
        if precision not in MANTISSA_BITS:
            raise StoreError(f"unknown precision {precision!r}; known: {', '.join(MANTISSA_BITS)}")
        run_dir = Path(run_dir)
        if unusable := sorted(set("?\\") & set(str(run_dir.resolve()))):
            raise StoreError(f"DuckDB cannot keep a database under a path with {unusable[0]!r} in it; rename the folder: {run_dir.resolve()}")
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = lock_run(run_dir)
        try:
            info = read_info(run_dir)
            sweep_temporary(run_dir)
            if info and info.sealed:
                unseal(run_dir)
            make_live(run_dir, precision)
            mend(run_dir, precision)
            remove_covered(run_dir)
            return cls(run_dir, lock, precision)
        except BaseException:
            lock.release()
            raise

    def append_step(self, tables: Mapping[str, pa.Table]) -> None:
        """Publishes one step: a table of schema.TABLES each, `steps` with one row. It is seen whole or not at all.

        Raises DiskFull (nothing of the step is left), StoreError if the tables do not fit the schema or the step is not new.
        """
        self.append_steps([tables])

    def append_steps(self, steps: Sequence[Mapping[str, pa.Table]]) -> None:
        """Publishes steps, oldest first, in one segment per table, at about the cost of a single step. They are seen together or not at all.

        Raises DiskFull (nothing of any of them is left), StoreError if one does not fit the schema or is not later than the one before.
        """
        self.append(encode_steps(steps, self.precision))

    def append(self, steps: EncodedSteps) -> None:
        """The same of steps that are encoded already, perhaps by another process."""
        if steps.first <= self.last_step:
            raise _out_of_order(self.last_step, steps.first)
        published: list[Path] = []

        def publish_table(name: str) -> None:
            published.append(publish(self.run_dir / name, steps.segment_name, lambda path: path.write_bytes(steps.files[name])))

        try:
            _at_once(publish_table, TABLES.keys() - {STEPS.name})  # the disk flushes several files in little more time than one
            publish_table(STEPS.name)  # last: with its row in `steps` a step is whole
        except BaseException:
            for path in reversed(published):
                path.unlink(missing_ok=True)
            raise
        self.last_step = steps.last

    def write_vocabulary(self, pieces: Sequence[str]) -> None:
        """Stores the text of every token id, in order; a second call replaces the first."""
        table = pa.table([pa.array(range(len(pieces)), pa.int32()), pa.array(pieces, pa.string())], schema=VOCABULARY.arrow)
        publish_tables(self.run_dir, VOCABULARY_FILE, [table], VOCABULARY, self.precision)

    def compact(self) -> int:
        """Merges small segments into ones of 64 steps, later those into ones of 16 times as many; returns how many were merged, often 0.

        Damaged segments are left as they are. Raises DiskFull (nothing is lost; it may be called again).
        """
        return _merge_due(self.run_dir, self.precision)

    @property
    def merge(self) -> Merge:
        """`compact` for a process beside this one to do."""
        return Merge(self.run_dir, self.precision, os.getpid())

    def thinning(self, retention: Retention, catalog: Path | str | None) -> Retain:
        """What a process beside this one calls to thin a file of old steps by a policy; `catalog` says where the run's alerts are."""
        from storage.thinning import Retain  # most runs thin nothing

        return Retain(self.run_dir, self.precision, os.getpid(), retention, catalog)

    def supersede(self, after_step: int) -> int:
        """Moves all steps later than `after_step` to superseded/<n>/, so that they can be trained again; returns how many.

        Raises DiskFull, SegmentDamaged; the run is then as it was.
        """
        count = supersede(self.run_dir, after_step, self.precision)
        self.last_step = read_layout(self.run_dir).last_step
        return count

    def close(self) -> None:
        """Lets another writer have the run; everything appended stays readable."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _at_once(work: Callable[[str], Result], names: Collection[str]) -> list[Result]:
    """What `work` makes of each name, in threads of their own; one after another where the interpreter is ending and takes no more threads."""

    def begin(name: str) -> Callable[[], Result]:
        try:
            return threads.submit(work, name).result
        except RuntimeError:
            return partial(work, name)

    with ThreadPoolExecutor(len(names)) as threads:
        return [finish() for finish in [begin(name) for name in names]]


def _merge_due(run_dir: Path, precision: str) -> int:
    remove_covered(run_dir)
    return compact(run_dir, precision)


def _out_of_order(before: int, step: int) -> StoreError:
    return StoreError(f"step {step} is not after step {before}, the last recorded; supersede({step - 1}) first")


def _checked_step(tables: Mapping[str, pa.Table]) -> int:
    if set(tables) != set(TABLES):
        raise StoreError(f"a step needs the tables {', '.join(TABLES)}; got {', '.join(tables) or 'none'}")
    for name, table in TABLES.items():
        if tables[name].schema.equals(table.arrow):
            continue
        if set(tables[name].schema.names) != set(table.arrow.names):
            odd = sorted(set(tables[name].schema.names) ^ set(table.arrow.names))
            raise StoreError(f"table {name} does not have the columns of storage/schema.py; missing or unknown: {', '.join(odd)}")
        for column in table.columns:
            if tables[name].schema.field(column.name).type != column.type:
                raise StoreError(f"column {name}.{column.name} must be {column.type}, got {tables[name].schema.field(column.name).type}")
    steps = {name: set(pc.unique(table["step"]).to_pylist()) for name, table in tables.items()}
    if tables["steps"].num_rows != 1 or any(found - steps["steps"] for found in steps.values()) or None in steps["steps"]:
        raise StoreError(f"a step's tables hold the rows of exactly one step; got steps {steps}")
    return steps["steps"].pop()

"""The reading side: DuckDB over an exact list of segments; never blocks a writer."""

from __future__ import annotations

import itertools
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from storage.cached import shown_root, store_folder
from storage.errors import RunNotFound, SegmentDamaged
from storage.frames import frame_of
from storage.layout import (
    DATABASE,
    VOCABULARY_FILE,
    Layout,
    Segment,
    check_segment,
    check_vocabulary,
    damaged,
    data_dir,
    list_segments,
    missing,
    open_error,
    quoted,
    read_layout,
    rival,
    rivals,
    set_aside,
)
from storage.remote import remote_of
from storage.schema import STEPS, TABLES, VIEWS, VOCABULARY, Table
from storage.views import empty_tables, files_source, in_full

Bounds = tuple[int | None, int | None]
Result = TypeVar("Result")

_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_NAMES = {*TABLES, VOCABULARY.name, *(view.name for view in VIEWS)}
_DATA_ERRORS = (duckdb.IOException, duckdb.SerializationException, duckdb.InternalException, duckdb.FatalException)
_EVERY_STEP = (0, 2**31 - 1)
_RELISTS = 50
_RELIST_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class DamagedFile:
    """A file that cannot be read, or is missing, and the steps that go without it."""

    path: Path
    table: str
    first_step: int
    last_step: int
    why: str


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the tables of a run lie at one moment: a SELECT of each, over `empty_<table>` and `files`, or the `database` an earlier version sealed."""

    run_dir: Path
    layout: Layout
    selects: Mapping[str, str]
    files: tuple[Path, ...]

    @property
    def database(self) -> Path | None:
        return self.run_dir / DATABASE if self.layout.in_database else None

    def moved(self) -> bool:
        """Whether compaction, sealing or unsealing has changed where they lie."""
        return read_layout(self.run_dir) != self.layout


@dataclass(frozen=True, slots=True)
class _Scope:
    """What a query may see."""

    tables: frozenset[str]
    steps: Bounds
    skip_damaged: bool


class Store:
    """All runs under one folder, or at a place elsewhere by URL, for reading; one object serves many threads.

    Reads whatever is whole at the moment of the call, from live and from sealed runs alike.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = store_folder(str(root)).resolve()
        self._remote = remote_of(self.root)
        spill = f"{tempfile.gettempdir()}/groupscope-{os.getpid()}"
        self._duckdb = duckdb.connect(config={"temp_directory": spill})
        self._duckdb.execute("set parquet_metadata_cache = true")  # segments never change
        for name, table in empty_tables().items():
            self._duckdb.from_arrow(table).create(f"empty_{name}")
        self._cursors = threading.Lock()
        self._aliases = itertools.count()
        self._intact: dict[Path, tuple[int, ...]] = {}
        self._columns: dict[tuple[Path, tuple[int, ...]], bool] = {}
        self._named: dict[str, frozenset[str]] = {}

    @property
    def trouble(self) -> str:
        """Why what a store elsewhere has is shown as it was earlier, in one sentence; empty while it is not, and for a store here."""
        return self._remote.trouble if self._remote else ""

    def run_ids(self) -> list[str]:
        """Ids of all runs, sorted: the folders that hold a config.json."""
        self._refresh()
        return sorted(path.parent.name for path in (self.root / "runs").glob("*/config.json") if _RUN_ID.fullmatch(path.parent.name))

    def run_dir(self, run_id: str) -> Path:
        """The folder of a run. Raises RunNotFound, also for ids that are no plain folder name."""
        self._refresh()
        folder = self.root / "runs" / run_id if _RUN_ID.fullmatch(run_id) else None
        if folder is None or not folder.is_dir():
            raise RunNotFound(f"no run {run_id!r} in {shown_root(self.root)}; `python -m grpo_core runs` lists the runs of a store")
        return folder

    def frame(self, run_id: str, sql: str, params: Sequence[object] = (), *, steps: Bounds = (None, None), skip_damaged: bool = False) -> pd.DataFrame:
        """Rows of a SELECT over steps, groups, rollouts, updates, positions, tokens and vocabulary.

        `steps` (first, last, both included, None open) restricts every table; only files that hold such steps are opened.
        Lists come as numpy arrays with NaN for empty entries, missing text, lists and flags as None, missing numbers as NaN.
        Raises SegmentDamaged if a needed file is missing or damaged, unless `skip_damaged` leaves out what it holds;
        RunNotFound, NewerStore, RunLocked.
        """
        return frame_of(self.table(run_id, sql, params, steps=steps, skip_damaged=skip_damaged))

    def table(self, run_id: str, sql: str, params: Sequence[object] = (), *, steps: Bounds = (None, None), skip_damaged: bool = False) -> pa.Table:
        """The same rows as Arrow."""
        scope = _Scope(self._tables_in(sql), steps, skip_damaged)
        return self._read(run_id, scope, lambda cursor: cursor.sql(sql, params=list(params)).to_arrow_table())

    def read(self, run_id: str, action: Callable[[duckdb.DuckDBPyConnection], Result]) -> Result:
        """What `action` makes of a connection that has all tables and views of the run under their plain names.

        The action is run again if a file it was reading was merged away. Raises as `frame` does.
        """
        return self._read(run_id, _Scope(frozenset(_NAMES), (None, None), False), action)

    def sources(self, run_id: str, tables: Iterable[str], *, alias: str) -> Sources:
        """What another DuckDB needs to read these stored tables of a run, as it is now. Raises as `frame` does."""
        run_dir = self.run_dir(run_id)
        layout = read_layout(run_dir)
        if layout.in_database:
            self._fetch([run_dir / DATABASE])
        selects = self._selects(run_dir, layout, _Scope(frozenset(tables), (None, None), False), alias)
        segments = [segment.path for name in selects if name in TABLES for segment in layout.segments[name]]
        vocabulary = [run_dir / VOCABULARY_FILE] if VOCABULARY.name in selects else []
        return Sources(run_dir, layout, selects, () if layout.in_database else (*segments, *vocabulary))

    def last_step(self, run_id: str) -> int | None:
        """The newest whole step, from file names alone; None before the first."""
        run_dir = self.run_dir(run_id)
        layout = read_layout(run_dir)
        if not layout.in_database:
            return None if layout.last_step < 0 else layout.last_step
        last = self.frame(run_id, "select max(step) as last from steps")["last"].iloc[0]
        return None if pd.isna(last) else int(last)

    def damaged(self, run_id: str) -> list[DamagedFile]:
        """Every file of a run that is missing or not as it was written; reads the whole run once."""
        run_dir = self.run_dir(run_id)
        layout = read_layout(run_dir)
        if layout.in_database:
            return self._damaged_database(run_id, run_dir / DATABASE)
        found = [
            DamagedFile(gap.path.parents[1] / table, table, gap.first, gap.last, str(missing(table, gap)))
            for table in TABLES
            for gap in layout.gaps(table)
        ]
        for table, segments in layout.segments.items():
            folder = data_dir(run_dir, layout.info) / table
            found += self._damaged_segments(table, segments, set_aside(folder))
            pairs = rivals(list_segments(folder))
            found += [DamagedFile(left.path, table, left.first, left.last, str(rival(kept, left))) for kept, left in pairs]
        try:
            self._fetch([run_dir / VOCABULARY_FILE])
            check_vocabulary(run_dir)
        except SegmentDamaged as error:
            found.append(DamagedFile(run_dir / VOCABULARY_FILE, VOCABULARY.name, *_EVERY_STEP, str(error)))
        return found

    def unreadable(self, run_id: str, read: Collection[int]) -> list[DamagedFile]:
        """The files of `steps` that cannot be read, given the steps that could: a look at names, and at files none of whose steps are among them.

        Nothing for a run that an earlier version sealed, of which all or nothing can be read.
        """
        run_dir = self.run_dir(run_id)
        layout = read_layout(run_dir)
        aside = [] if layout.in_database else set_aside(data_dir(run_dir, layout.info) / STEPS.name)
        unread = ([segment for segment in segments if segment.first not in read] for segments in (layout.segments[STEPS.name], aside))
        return self._damaged_segments(STEPS.name, *unread)

    def _damaged_segments(self, table: str, segments: Iterable[Segment], aside: Iterable[Segment]) -> list[DamagedFile]:
        """Those of the segments that are not as they were written, and those that a writer set aside."""
        found = []
        for segment in segments:
            try:
                self._fetch([segment.path])
                check_segment(segment)
            except FileNotFoundError:
                continue  # merged away just now
            except SegmentDamaged as error:
                found.append(DamagedFile(segment.path, table, segment.first, segment.last, str(error)))
        return found + [DamagedFile(s.path, table, s.first, s.last, str(damaged(s.path, "it was set aside"))) for s in aside]

    def _read(self, run_id: str, scope: _Scope, action: Callable[[duckdb.DuckDBPyConnection], Result]) -> Result:
        run_dir = self.run_dir(run_id)
        for attempt in itertools.count():
            layout = read_layout(run_dir)
            try:
                with self._cursor() as cursor, self._tables(cursor, run_dir, layout, scope):
                    return action(cursor)
            except (FileNotFoundError, duckdb.Error) as error:
                # compaction, sealing or unsealing took a file away between listing and opening: list again
                if attempt < _RELISTS and read_layout(run_dir) != layout:
                    time.sleep(_RELIST_PAUSE_S)
                elif isinstance(error, FileNotFoundError):
                    raise damaged(Path(error.filename), "it vanished while being read") from error
                elif layout.in_database and (isinstance(error, _DATA_ERRORS) or type(error) is duckdb.Error):
                    raise open_error(run_dir / DATABASE, error) from error
                else:
                    raise

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._cursors:
            cursor = self._duckdb.cursor()
        try:
            yield cursor
        finally:
            cursor.close()

    def _tables_in(self, sql: str) -> frozenset[str]:
        """The tables and views a SELECT names, and the tables those views are made of."""
        if sql not in self._named:
            with self._cursor() as cursor:
                tree = cursor.execute("select json_serialize_sql(?::varchar)", [sql]).fetchone()[0]
                if message := json.loads(tree).get("error_message"):
                    raise ValueError(f"cannot read the query ({message}): {sql}")
                found = cursor.execute("select json_extract_string(?::json, '$..table_name')", [tree]).fetchone()[0]
            views = frozenset().union(*(self._tables_in(view.sql) for view in VIEWS if view.name in found))
            self._named[sql] = views | {name for name in found if name in _NAMES}
        return self._named[sql]

    @contextmanager
    def _tables(self, cursor: duckdb.DuckDBPyConnection, run_dir: Path, layout: Layout, scope: _Scope) -> Iterator[None]:
        """Gives the cursor the tables and views in scope; a file with tables is attached for as long as that lasts."""
        alias = f"sealed_{next(self._aliases)}"
        if layout.in_database:
            self._fetch([run_dir / DATABASE])
            cursor.execute(f"attach {quoted(run_dir / DATABASE)} as {alias} (read_only)")
        try:
            for name, select in self._selects(run_dir, layout, scope, alias).items():
                cursor.execute(f"create temp view {name} as {select}")
            for view in VIEWS:
                if view.name in scope.tables:
                    cursor.execute(f"create temp view {view.name} as {view.sql}")
            yield
        finally:
            if layout.in_database:
                cursor.execute(f"detach {alias}")

    def _selects(self, run_dir: Path, layout: Layout, scope: _Scope, alias: str) -> dict[str, str]:
        """A SELECT of each stored table in scope; `alias` is what a file with tables is attached as."""
        selects = {}
        for name in scope.tables & set(TABLES):
            source, steps = (f"{alias}.main.{name}", scope.steps) if layout.in_database else self._segments_source(layout, name, scope)
            selects[name] = f"{in_full(f'empty_{name}', source)}{_within(steps)}"
        if VOCABULARY.name in scope.tables:
            self._fetch([run_dir / VOCABULARY_FILE])
            check_vocabulary(run_dir)
            selects[VOCABULARY.name] = f"select * from {f'{alias}.main.{VOCABULARY.name}' if layout.in_database else _vocabulary_source(run_dir)}"
        return selects

    def _segments_source(self, layout: Layout, name: str, scope: _Scope) -> tuple[str, Bounds]:
        """SQL for the segments that hold the steps in scope, and those steps as far as they are whole."""
        first, last = scope.steps
        last = layout.last_step if last is None else min(last, layout.last_step)
        gaps = [] if scope.skip_damaged else [gap for gap in layout.gaps(name) if gap.overlaps(first, last)]
        if gaps:
            raise missing(name, gaps[0])
        intact = self._checked([s for s in layout.segments[name] if s.overlaps(first, last)], scope.skip_damaged)
        alike = all(self._up_to_date(segment.path, TABLES[name]) for segment in intact)
        return files_source((s.path for s in intact), alike=alike) if intact else f"empty_{name}", (first, last)

    def _checked(self, segments: Iterable[Segment], skip_damaged: bool) -> list[Segment]:
        """The segments whose bytes are as written; each file is checked once per process and again if it changed."""
        segments, intact = list(segments), []
        with suppress(SegmentDamaged):  # said below, where it is known whose
            self._fetch(segment.path for segment in segments)
        for segment in segments:
            try:
                self._fetch([segment.path])
                status = os.stat(segment.path)
                identity = (status.st_ino, status.st_size, status.st_mtime_ns)
                if self._intact.get(segment.path) != identity:
                    check_segment(segment)
                    self._intact[segment.path] = identity
                intact.append(segment)
            except SegmentDamaged:
                if not skip_damaged:
                    raise
        return intact

    def _up_to_date(self, path: Path, table: Table) -> bool:
        """Whether a file that was checked has exactly the columns of the schema; each is asked once per process."""
        known = path, self._intact[path]
        if known not in self._columns:
            self._columns[known] = pq.read_schema(path).equals(table.arrow)
        return self._columns[known]

    def _refresh(self) -> None:
        if self._remote:
            self._remote.refresh()

    def _fetch(self, paths: Iterable[Path]) -> None:
        """Have files of a store elsewhere here; nothing for a store here. Raises SegmentDamaged, FileNotFoundError, Unreachable."""
        if self._remote:
            self._remote.fetch(paths)

    def _damaged_database(self, run_id: str, path: Path) -> list[DamagedFile]:
        try:
            for name in (*TABLES, VOCABULARY.name):
                self.frame(run_id, f"select sum(hash(t)) from {name} as t")
        except SegmentDamaged as error:
            return [DamagedFile(path, DATABASE, *_EVERY_STEP, str(error))]
        return []


def _vocabulary_source(run_dir: Path) -> str:
    path = run_dir / VOCABULARY_FILE
    return files_source([path]) if path.exists() else f"empty_{VOCABULARY.name}"


def _within(steps: Bounds) -> str:
    first, last = steps
    bounds = [f"step >= {int(first)}"] if first is not None else []
    bounds += [f"step <= {int(last)}"] if last is not None else []
    return f" where {' and '.join(bounds)}" if bounds else ""

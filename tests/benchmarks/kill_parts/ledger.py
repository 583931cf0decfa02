"""The ledger of what was committed: a hash of every row of every table, written by the writing process before and after the store takes a step.

After a kill the parent reads it, asks the store and plain DuckDB for the same hashes, and takes nobody's word for anything.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from storage.layout import DATABASE, list_segments, visible
from storage.reader import Store
from storage.schema import TABLES
from storage.segments import EncodedSteps, RunWriter
from storage.views import files_source, in_full

Rows = dict[str, list[int]]
"""Hashes of a step's rows by table, sorted."""
Steps = dict[int, Rows]


@dataclass(frozen=True, slots=True)
class Difference:
    """Rows that were committed and are gone, that nobody committed, and that are there more often than they were committed."""

    lost: int = 0
    changed: int = 0
    doubled: int = 0

    def __add__(self, other: Difference) -> Difference:
        return Difference(self.lost + other.lost, self.changed + other.changed, self.doubled + other.doubled)

    def __bool__(self) -> bool:
        return self != Difference()


def row_hashes(database: duckdb.DuckDBPyConnection, sources: Mapping[str, str]) -> Steps:
    """Per step and table the hash of every row, from SQL for a source of each table."""
    steps: Steps = {}
    for name, source in sources.items():
        columns = ", ".join(TABLES[name].arrow.names)
        for step, hashes in database.execute(
            f"select r.step, list_sort(list(hash(r))) from (select {columns} from {source}) as r group by r.step order by r.step"
        ).fetchall():
            steps.setdefault(step, {})[name] = hashes
    return steps


def seen_by_store(root: Path, run_id: str) -> Steps:
    """Through a Store that has read nothing before. Raises AssertionError if it finds a damaged file."""
    store = Store(root)
    assert (found := store.damaged(run_id)) == [], found
    return store.read(run_id, lambda database: row_hashes(database, {name: name for name in TABLES}))


def seen_by_duckdb(path: Path) -> Steps:
    """Through run.duckdb, as anyone with DuckDB reads it."""
    with duckdb.connect(str(path), read_only=True) as database:
        return row_hashes(database, {name: name for name in TABLES})


def set_aside(run_dir: Path) -> list[Steps]:
    """What lies in each folder of superseded/."""
    with duckdb.connect() as database:
        for name, table in TABLES.items():
            database.from_arrow(table.arrow.empty_table()).create(f"empty_{name}")
        return [row_hashes(database, _shelf(folder)) for folder in sorted((run_dir / "superseded").glob("[0-9]*"))]


def _shelf(folder: Path) -> dict[str, str]:
    files = {name: [s.path for s in visible(list_segments(folder / name))] for name in TABLES}
    return {name: f"({in_full(f'empty_{name}', files_source(paths))})" for name, paths in files.items() if paths}


def difference(want: Steps, got: Steps) -> Difference:
    """How the rows that were committed differ from those that are there."""
    return sum((_difference(want.get(step, {}).get(t, []), got.get(step, {}).get(t, [])) for step in want.keys() | got.keys() for t in TABLES), Difference())


def _difference(want: Iterable[int], got: Iterable[int]) -> Difference:
    want, got = Counter(want), Counter(got)
    missing, extra = want - got, got - want
    doubled = sum(count for row, count in extra.items() if row in want)
    strange = extra.total() - doubled
    return Difference(lost=max(0, missing.total() - strange), changed=strange, doubled=doubled)


# In the process that writes -----------------------------------------------------------------------------------------


def keep(path: Path) -> None:
    """From here on, RunWriter of this process enters in the ledger what it is about to do and what it has done."""
    database = duckdb.connect(config={"threads": 1})
    append, supersede = RunWriter.append, RunWriter.supersede

    def appended(writer: RunWriter, steps: EncodedSteps) -> None:
        for name, data in steps.files.items():
            database.register(f"step_{name}", pq.read_table(pa.BufferReader(data)))
        _enter(path, "writing", row_hashes(database, {name: f"step_{name}" for name in steps.files}))
        append(writer, steps)
        _enter(path, "written")

    def superseded(writer: RunWriter, after_step: int) -> int:
        _enter(path, "cutting", after_step)
        count = supersede(writer, after_step)
        _enter(path, "cut", after_step)
        return count

    RunWriter.append, RunWriter.supersede = appended, superseded


def _enter(path: Path, *what: object) -> None:
    """One line in one write, so that it is there whole or not at all after a kill."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, (json.dumps(what) + "\n").encode())
    os.close(descriptor)


# In the process that kills ------------------------------------------------------------------------------------------


class Book:
    """What a run must hold by its ledger. For the one process that settles it, while nobody writes the run."""

    def __init__(self, root: Path, run_id: str, ledger: Path) -> None:
        self.root = root
        self.run_id = run_id
        self.ledger = ledger
        self.run_dir = root / "runs" / run_id
        self.committed = 0
        """Steps ever committed, those that were set aside later among them."""
        self._read = 0
        self._current: Steps = seen_by_store(root, run_id)
        self._aside: list[tuple[int, Rows]] = []
        self._pending: Steps = {}
        self._cut_after: int | None = None

    @property
    def steps(self) -> Steps:
        """What was committed and not set aside."""
        return self._current

    def ever(self, step: int) -> list[Rows]:
        """All that was ever committed as this step: what counts now, and what was set aside; nothing, if nothing was."""
        return [self._current.get(step, {}), *(rows for number, rows in self._aside if number == step)]

    def settle(self) -> Difference:
        """Compare, after a kill, what a fresh Store and plain DuckDB read with what was committed, and see what is set aside.

        Steps the victim was about to commit may be there, all or none; those it was taking out may be gone, each whole.
        """
        self._catch_up()
        by_store, by_duckdb = seen_by_store(self.root, self.run_id), seen_by_duckdb(self.run_dir / DATABASE)
        if any(step in by_store for step in self._pending):
            self._commit()
        if self._cut_after is not None:
            self._put_aside(step for step in list(self._current) if step > self._cut_after and step not in by_store)
        self._pending, self._cut_after = {}, None
        return difference(self._current, by_store) + difference(self._current, by_duckdb) + self._missing_aside()

    def _catch_up(self) -> None:
        if not self.ledger.exists():
            return
        with self.ledger.open("rb") as file:
            file.seek(self._read)
            news = file.read()
        self._read += len(news)
        for line in news.splitlines():
            what, *more = json.loads(line)
            if what == "writing":
                self._pending = {int(step): rows for step, rows in more[0].items()}
            elif what == "written":
                self._commit()
            elif what == "cutting":
                self._cut_after = more[0]
            else:
                self._put_aside([step for step in self._current if step > more[0]])
                self._cut_after = None

    def _commit(self) -> None:
        self.committed += len(self._pending)
        self._current |= self._pending
        self._pending = {}

    def _put_aside(self, steps: Iterable[int]) -> None:
        self._aside += [(step, self._current.pop(step)) for step in list(steps)]

    def _missing_aside(self) -> Difference:
        """Rows that were set aside and are in none of the folders for that."""
        shelves = set_aside(self.run_dir) if self._aside else []
        there = {(step, name, row) for shelf in shelves for step, tables in shelf.items() for name, rows in tables.items() for row in rows}
        return Difference(lost=sum((step, name, row) not in there for step, tables in self._aside for name, rows in tables.items() for row in rows))

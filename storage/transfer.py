"""A run's stored tables from one place into another, in pieces of steps, and what tells whether all came over."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import duckdb

from storage.schema import TABLES, VOCABULARY

STORED = {**TABLES, VOCABULARY.name: VOCABULARY}
PIECES = 20
"""Into so many pieces of steps a table is cut at most: each opens the files of a live run anew."""
PIECE_STEPS = 64
"""Steps of a piece at least."""

Progress = Callable[[int, int], None]
"""Called with what is done, and of how much."""
Figures = dict[str, tuple[int, int | None]]
"""Per table its number of rows and the sum of their hashes: equal for the same rows in any order."""


def no_progress(done: int, total: int) -> None:
    """For whoever does not watch."""


def copy_tables(database: duckdb.DuckDBPyConnection, place: str, sources: Mapping[str, str], progress: Progress = no_progress) -> None:
    """Makes every stored table in `place`, a database's schema, from SQL for a source that has all its columns and types."""
    first, last = database.execute(f"select coalesce(min(step), 0), coalesce(max(step), -1) from {sources['steps']}").fetchone()
    size = max(PIECE_STEPS, math.ceil((last - first + 1) / PIECES))
    starts = range(first, last + 1, size)
    done, total = 0, len(TABLES) * len(starts) + 1
    progress(done, total)
    for name, table in STORED.items():
        columns = ", ".join(table.arrow.names)
        database.execute(f"create table {place}.{name} as select {columns} from {sources[name]} limit 0")
        pieces = [f"where step between {start} and {start + size - 1}" for start in starts] if name in TABLES else [""]
        for piece in pieces:
            database.execute(f"insert into {place}.{name} select {columns} from {sources[name]} {piece}")
            progress(done := done + 1, total)


def figures(database: duckdb.DuckDBPyConnection, sources: Mapping[str, str]) -> Figures:
    """What these tables hold, each read in full from SQL for it."""
    sums = "select count(*), sum(hash(r)) from (select {} from {}) as r"
    return {name: database.execute(sums.format(", ".join(STORED[name].arrow.names), source)).fetchone() for name, source in sources.items()}

"""One query of a person over the tables of one or several runs: it can read these and do nothing else.

Three walls. Of the text, only one SELECT made of known parts is let through: DuckDB 2 also lets a WITH write tables and files. The DuckDB
it runs in may open exactly the files of these runs, loads no extension, sees no Python variable, and its settings are locked. And it
runs in a process of its own (sql_process.py), which can be ended at any moment and whose memory is bounded: DuckDB looks for an
interrupt only between vectors, and one `list_sum(range(200_000_000))` kept it busy for two minutes after it.
"""

from __future__ import annotations

import glob
import io
import itertools
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv

from storage.errors import QueryRefused, QueryStopped
from storage.layout import quoted
from storage.reader import Sources, Store
from storage.schema import TABLES, VIEWS, VOCABULARY
from storage.views import empty_tables

NAMES = (*TABLES, VOCABULARY.name, *(view.name for view in VIEWS))
"""What a query may name after FROM; each has the column `run_id` first, then those of storage/schema.py."""
EXAMPLE = "select step, reward_mean from steps order by step"
LONGEST = 20_000
"""Characters of a query."""
MEMORY = "1GB"
LARGEST_BYTES = 32 << 20
"""An answer is cut before it grows larger, however few its rows."""
THREADS = 2

_BASES = {view.name: view.sql.rpartition("from ")[2].strip() for view in VIEWS}
_READING_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_TABLE_FUNCTIONS = {"unnest", "range", "generate_series", "repeat", "json_each", "json_tree"}
_EXPLAIN = re.compile(r"\s*explain(?P<analyze>\s+analyze)?\s+(?P<query>.*)", re.IGNORECASE | re.DOTALL)
_LOCKED = (
    "autoinstall_known_extensions = false",
    "autoload_known_extensions = false",
    "allow_community_extensions = false",
    "allow_persistent_secrets = false",
    "temp_directory = ''",  # a query writes nothing, not even what does not fit in memory
    f"memory_limit = '{MEMORY}'",
    f"threads = {THREADS}",
    "enable_external_access = false",  # after temp_directory, which cannot be set without
    "lock_configuration = true",
)
_RELISTS = 50
_RELIST_PAUSE_S = 0.02


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of a query; `cut` says what ended them early: the limit on rows, or LARGEST_BYTES."""

    table: pa.Table
    seconds: float
    cut: Literal["", "rows", "size"]


@dataclass(frozen=True, slots=True)
class Query:
    """A text that may run, and the tables and views it names."""

    text: str
    names: frozenset[str]


def check(text: str) -> Query:
    """The query of a text, if it only reads. Raises QueryRefused with what is wrong."""
    if len(text) > LONGEST:
        raise QueryRefused(f"the query has {len(text):,} characters and may have {LONGEST:,}; shorten it")
    kind = _kind(text)
    if kind != "EXPLAIN":
        return Query(text, _names(text, kind))
    match = _EXPLAIN.fullmatch(text)
    if match is None:
        raise QueryRefused(f"EXPLAIN is understood without options and comments before it; write EXPLAIN or EXPLAIN ANALYZE and then the query: {EXAMPLE}")
    return Query(f"explain {'analyze ' if match['analyze'] else ''}{match['query']}", _names(match["query"], _kind(match["query"])))


def answer(store: Store, run_ids: Sequence[str], text: str, *, limit: int, started: Callable[[duckdb.DuckDBPyConnection], object] = id) -> Answer:
    """At most `limit` rows of a query over these runs; `started` is given the connection before it runs, to interrupt it.

    Raises QueryRefused, QueryStopped, RunNotFound, SegmentDamaged, NewerStore, RunLocked.
    """
    query = check(text)
    stored = {_BASES.get(name, name) for name in query.names}
    for attempt in itertools.count():
        sources = [store.sources(run_id, stored, alias=f"sealed_{n}") for n, run_id in enumerate(run_ids)]
        try:
            with duckdb.connect(config={"python_enable_replacements": "false"}) as database:
                _open(database, run_ids, sources, query.names)
                lock(database, [path for source in sources for path in source.files])
                started(database)
                return _rows(database, query.text, limit)
        except duckdb.Error as error:
            if attempt >= _RELISTS or not any(source.moved() for source in sources):
                raise _in_words(error) from error
            time.sleep(_RELIST_PAUSE_S)


def lock(database: duckdb.DuckDBPyConnection, files: Iterable[object]) -> None:
    """From here on the connection reads these files and what is attached, and nothing changes that."""
    # paths are compared as they stand in read_parquet, which the views escape
    paths = {form for path in files for form in (str(path), glob.escape(str(path)))}
    database.execute(f"set allowed_paths = [{', '.join(quoted(path) for path in sorted(paths))}]")
    for setting in _LOCKED:
        database.execute(f"set {setting}")


def flat(table: pa.Table) -> pa.Table:
    """The same rows with lists, maps and structs as JSON text, for what has no such columns."""
    nested = [name for name, kind in zip(table.column_names, table.schema.types) if pa.types.is_nested(kind)]
    if not nested:
        return table
    replaced = ", ".join(f"to_json({_identifier(name)})::varchar as {_identifier(name)}" for name in nested)
    with duckdb.connect() as database:
        return database.from_arrow(table).project(f"* replace ({replaced})").to_arrow_table()


def plan(table: pa.Table) -> str | None:
    """The text of an answer to EXPLAIN; None for any other answer."""
    return "\n".join(table.column("explain_value").to_pylist()) if table.column_names == ["explain_key", "explain_value"] else None


def csv_bytes(table: pa.Table) -> bytes:
    """The rows as CSV with a header, nested values as JSON text."""
    written = io.BytesIO()
    csv.write_csv(flat(table), written)
    return written.getvalue()


def parquet_bytes(table: pa.Table) -> bytes:
    """The rows as a Parquet file, every type kept."""
    written = io.BytesIO()
    pq.write_table(table, written, compression="zstd")
    return written.getvalue()


def _kind(text: str) -> str:
    """The statement type of a text that is one statement and may run."""
    try:
        statements = duckdb.extract_statements(text)
    except duckdb.Error as error:
        raise _in_words(error) from None
    if not statements:
        raise QueryRefused(f"the query is empty; write one SELECT, such as: {EXAMPLE}")
    if len(statements) > 1:
        raise QueryRefused(f"these are {len(statements)} statements, and one is answered at a time; run them one by one")
    kind = statements[0].type.name
    if kind == "MULTI":
        raise QueryRefused("PIVOT looks for its columns with a second statement, and one is answered at a time; name them: pivot … on column in ('a', 'b')")
    if kind not in ("SELECT", "EXPLAIN"):
        raise QueryRefused(f"{_spelled(kind)} is not allowed, because a query only reads what runs recorded; write one SELECT, such as: {EXAMPLE}")
    return kind


def _names(text: str, statement: str) -> frozenset[str]:
    """The tables and views that a SELECT names; `statement` is its type. Raises QueryRefused if it does anything but read them."""
    if statement != "SELECT":
        raise QueryRefused(f"EXPLAIN takes one SELECT; write it after EXPLAIN: {EXAMPLE}")
    with duckdb.connect() as database:
        try:
            tree = json.loads(database.execute("select json_serialize_sql(?::varchar)", [text]).fetchone()[0])
        except RecursionError:
            raise QueryRefused("the query is nested too deeply; split it with WITH") from None
    if tree["error"]:
        raise QueryRefused(f"the query cannot be read ({tree['error_message']}); write one SELECT, such as: {EXAMPLE}")
    found = set()
    for node in _nodes(tree):
        kind = node["type"] if isinstance(node.get("type"), str) else ""
        if kind.endswith("_NODE") and kind not in _READING_NODES:
            what = _spelled(kind.removesuffix("_QUERY_NODE").removesuffix("_NODE"))
            raise QueryRefused(f"{what} inside a query is not allowed, because a query only reads what runs recorded; write one SELECT, such as: {EXAMPLE}")
        if kind == "TABLE_FUNCTION" and (name := str(node["function"].get("function_name")).lower()) not in _TABLE_FUNCTIONS:
            allowed = ", ".join(sorted(_TABLE_FUNCTIONS))
            raise QueryRefused(f"{name}() is not allowed, because a query reads tables of runs and no files or settings; after FROM there may be {allowed}")
        if kind == "BASE_TABLE":
            found.add(str(node["table_name"]).lower())
        if kind == "SHOW_REF" and node["table_name"]:  # SHOW TABLES and the like
            found |= set(NAMES)
    return frozenset(found & set(NAMES))


def _nodes(tree: object) -> Iterator[dict]:
    """Every object of a JSON document."""
    rest = [tree]
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            yield one
            rest.extend(one.values())
        elif isinstance(one, list):
            rest.extend(one)


def _open(database: duckdb.DuckDBPyConnection, run_ids: Sequence[str], sources: Sequence[Sources], names: Iterable[str]) -> None:
    """Views of these names over all runs, and one schema per run behind them."""
    empty = empty_tables()
    for n, source in enumerate(sources):
        if source.database is not None:
            database.execute(f"attach {quoted(source.database)} as sealed_{n} (read_only)")
        database.execute(f"create schema run_{n}")
        for name, select in source.selects.items():
            database.from_arrow(empty[name]).create(f"run_{n}.empty_{name}")
            database.execute(f"create view run_{n}.{name} as {select}")
        for view in VIEWS:
            if view.name in names:
                base = f"{_BASES[view.name]} as not materialized (from run_{n}.{_BASES[view.name]})"
                database.execute(f"create view run_{n}.{view.name} as with {base} {view.sql}")
    for name in names:
        each = [f"select {quoted(run_id)} as run_id, * from run_{n}.{name}" for n, run_id in enumerate(run_ids)]
        database.execute(f"create view {name} as {' union all '.join(each)}")


def _rows(database: duckdb.DuckDBPyConnection, text: str, limit: int) -> Answer:
    begun = time.perf_counter()
    try:
        found = database.sql(text).limit(limit + 1).to_arrow_table()
    except duckdb.BinderException:
        database.execute(text)  # says where in the text the mistake is
        raise
    seconds = time.perf_counter() - begun
    kept, cut = found.slice(0, limit), "rows" if len(found) > limit else ""
    if kept.nbytes > LARGEST_BYTES:
        kept, cut = kept.slice(0, max(1, int(len(kept) * LARGEST_BYTES / kept.nbytes))), "size"
    return Answer(_plain(kept), seconds, cut)


def _plain(table: pa.Table) -> pa.Table:
    """The table with numbers and text in place of types that few programs know. Its names differ: a LIMIT has DuckDB number those that do not."""
    return pa.table([_plain_column(column) for column in table.columns], names=table.column_names)


def _plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    kind = column.type
    if pa.types.is_decimal(kind):  # sums of whole numbers are such
        try:
            return column.cast(pa.int64() if kind.scale == 0 else pa.float64())
        except pa.ArrowInvalid:
            return column.cast(pa.float64())
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type)
    if pa.types.is_binary(kind):
        return pa.array([None if value is None else value.hex() for value in column.to_pylist()], pa.string())
    if pa.types.is_interval(kind):
        return pa.array([value and f"{value.months} months {value.days} days {value.nanoseconds / 1e9:g} s" for value in column.to_pylist()], pa.string())
    return column


def _in_words(error: duckdb.Error) -> QueryRefused | QueryStopped:
    """DuckDB's error as a sentence, and the place in the query apart."""
    said, _, line = str(error).partition("\n\nLINE ")
    sentence, place = " ".join(said.split()), f"LINE {line}" if line else ""
    if isinstance(error, duckdb.OutOfMemoryException):
        return QueryStopped(f"the query needs more than {MEMORY} of memory; narrow it, for instance with `where step between 40 and 50`")
    if isinstance(error, duckdb.InterruptException):
        return QueryStopped("the query was stopped before it was done")
    if isinstance(error, duckdb.PermissionException):
        what = re.search(r'"[^"]+"', sentence)
        return QueryRefused(f"a query reads tables of runs and no files{f', so not {what[0]}' if what else ''}; its tables are {', '.join(NAMES)}", place)
    if unknown := re.match(r"Catalog Error: Table with name (.+?) does not exist", sentence):
        return QueryRefused(f"there is no table {unknown[1]} in a run; its tables are {', '.join(NAMES)}", place)
    return QueryRefused(sentence, place)


def _spelled(kind: str) -> str:
    return kind.replace("_", " ")


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'

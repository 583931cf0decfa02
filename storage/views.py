"""The SQL that makes run.duckdb: views on a run's segments, and the views derived from those."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import duckdb
import pyarrow as pa

from storage.layout import DATABASE, VOCABULARY_FILE, StoreInfo, data_dir, quoted
from storage.publish import disk_full, is_no_room, publish
from storage.schema import SCHEMA_VERSION, TABLES, VIEWS, VOCABULARY

Work = Callable[[duckdb.DuckDBPyConnection], None]

STORAGE_VERSION = "v1.5.0"
"""DuckDB's file format: older than the newest, so that a DuckDB from before 2.0 opens run.duckdb too."""

CLOCK_SLACK_MS = 60_000
"""A merged file that starts to count later than this is the work of a clock that was wrong, and what it covers is removed at once."""

_FILES = r"""select file, n.first::bigint as first, coalesce(nullif(n.last, ''), n.first)::bigint as last,
           n.last <> '' as merged, coalesce(try_cast(n.since as bigint), 0) as since
      from (select file, regexp_extract(file, '/[sc](\d+)(?:-(\d+)-(\d+))?-[0-9a-f]{8}\.parquet$', ['first', 'last', 'since']) as n from glob(%s))
     where n.first <> ''"""

# What a file covers is removed from its first step on: where that one is there all of it is, and where it is gone the cover must count
# whatever the clock says. Only files of this list are read, so that a merged file that comes between it and the reader's own is not.
_VIEW = r"""create view {table} as
with files as (
    {files}
), covers as (
    select c.file as cover, c.since, f.file, f.first = c.first as from_its_start
      from files f join files c on c.first <= f.first and f.last <= c.last and c.file <> f.file
     where c.last - c.first > f.last - f.first or (c.merged and not f.merged)
           or (c.merged = f.merged and (c.since > f.since or (c.since = f.since and c.file < f.file)))
), due as (
    select * from files where file not in (select cover from covers where since > epoch_ms(now()) and from_its_start)
), hidden as (
    select file from covers where cover in (select file from due)
)
select {columns}
  from read_parquet({glob}, filename = 'segment', hive_partitioning = false, union_by_name = true)
 where segment in (select file from due) and segment not in (select file from hidden)
   and step <= (select max(last) from ({step_files}))"""


def segment_views(run_dir: Path, info: StoreInfo) -> list[str]:
    """Views that read a run's segments by absolute path, each step exactly once and only once whole."""
    root = glob.escape(str(data_dir(run_dir.resolve(), info)))
    patterns = {name: quoted(f"{root}/{name}/*.parquet") for name in TABLES}
    views = [
        _VIEW.format(
            table=name,
            files=_FILES % patterns[name],
            columns=", ".join(table.arrow.names),
            glob=patterns[name],
            step_files=_FILES % patterns["steps"],
        )
        for name, table in TABLES.items()
    ]
    return [*views, f"create view vocabulary as select token_id, piece from {files_source([run_dir.resolve() / VOCABULARY_FILE])}"]


def files_source(paths: Iterable[Path], *, alike: bool = False) -> str:
    """A table function over exactly these Parquet files, whatever characters their names have, also where an older one lacks a column.

    Files that are known to be `alike` in their columns are not all opened before the first row is read: half the time of a query over many.
    """
    union = "" if alike else ", union_by_name = true"
    return f"read_parquet([{', '.join(quoted(glob.escape(str(path))) for path in paths)}], hive_partitioning = false{union})"


def in_full(empty: str, source: str) -> str:
    """A SELECT of all columns of `empty`, a table without rows, from a source of an older schema that may lack some: they are NULL."""
    return f"select * from (select * from {empty} union all by name select * from {source})"


def publish_views(run_dir: Path, precision: str, *, sealed: bool) -> None:
    """Builds run.duckdb beside the old one and renames it into place; the folders must hold at least their empty segments. Raises DiskFull."""
    info = StoreInfo(SCHEMA_VERSION, precision, sealed)

    def fill(database: duckdb.DuckDBPyConnection) -> None:
        for view in segment_views(run_dir, info):
            database.execute(view)

    (run_dir / f"{DATABASE}.wal").unlink(missing_ok=True)  # only a person who opened run.duckdb to write can have left one
    publish(run_dir, DATABASE, lambda path: write_database(path, info, fill))


def write_database(path: Path, info: StoreInfo, fill: Work, check: Work = lambda database: None) -> None:
    """Makes a DuckDB file with what describes it and all derived views.

    `fill` puts tables or views in it; `check` reads it back from disk and raises if something is wrong. Raises DiskFull.
    """
    try:
        with duckdb.connect(config={"temp_directory": f"{path}.spill"}) as database:
            database.execute(f"attach {quoted(path)} as run (storage_version {quoted(STORAGE_VERSION)})")
            database.execute("use run")
            _describe(database, info)
            fill(database)
            for view in VIEWS:
                database.execute(f"create view {view.name} as {view.sql}")
            database.execute("checkpoint run")  # closing would do it too, but keeps silent when the disk is full
        _remove_beside(path)  # what is only in a write-ahead log must not pass the check
        with duckdb.connect(config={"temp_directory": f"{path}.spill"}) as database:
            database.execute(f"attach {quoted(path)} as run (read_only)")
            database.execute("use run")
            check(database)
    except duckdb.Error as error:
        if is_no_room(error):
            raise disk_full(path.parent, "no space left on device") from error
        raise
    finally:
        _remove_beside(path)


def _remove_beside(path: Path) -> None:
    """Write-ahead log and spill folder of a database that nobody has open."""
    for leftover in path.parent.glob(f"{path.name}.*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _describe(database: duckdb.DuckDBPyConnection, info: StoreInfo) -> None:
    database.execute("create table store_info (schema_version integer, precision varchar, sealed boolean)")
    database.execute("insert into store_info values (?, ?, ?)", [info.schema_version, info.precision, info.sealed])


def empty_tables() -> dict[str, pa.Table]:
    return {name: table.arrow.empty_table() for name, table in {**TABLES, VOCABULARY.name: VOCABULARY}.items()}

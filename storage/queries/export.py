"""A run's tables as files for other programs: Parquet with every type kept, and CSV with lists and maps as JSON text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from storage.errors import StoreError
from storage.layout import DATABASE, VOCABULARY_FILE, Layout, check_segment, missing, open_error, quoted, read_layout
from storage.reader import Store
from storage.schema import TABLES, VIEWS, VOCABULARY
from storage.views import empty_tables, files_source

EXPORTED = (*TABLES, VOCABULARY.name, "updates", "positions")
"""Everything but the view `tokens`, whose rows are the lists of `rollouts` one by one."""
FORMATS = {"parquet": "format parquet, compression zstd", "csv": "format csv, header"}
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Exported:
    """One written file and its number of rows."""

    table: str
    rows: int
    file: str


def export_run(store: Store, run_id: str, target: Path) -> list[Exported]:
    """Write every table of a run to `target` as <table>.parquet and <table>.csv; files of the same names are replaced.

    A live run is exported up to its newest whole step. Raises RunNotFound, SegmentDamaged, NewerStore, and StoreError
    when `target` cannot be written.
    """
    run_dir = store.run_dir(run_id)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write to {target}: {error.strerror}; choose another folder") from None
    for attempt in range(_TRIES):
        layout = read_layout(run_dir)
        try:
            with duckdb.connect(config={"temp_directory": str(target / ".spill")}) as database:
                _open(database, run_dir, layout)
                return [_write(database, table, target, form) for table in EXPORTED for form in FORMATS]
        except (FileNotFoundError, duckdb.IOException) as error:
            # compaction or sealing took a file away between listing and reading; unless nothing changed
            if attempt == _TRIES - 1 or read_layout(run_dir) == layout:
                raise StoreError(f"cannot export {run_id} to {target}: {' '.join(str(error).split())}") from error
    raise AssertionError("unreachable")


def _open(database: duckdb.DuckDBPyConnection, run_dir: Path, layout: Layout) -> None:
    """Make the run's tables and views visible in `database` under their plain names."""
    if layout.sealed:
        try:
            database.execute(f"attach {quoted(run_dir / DATABASE)} as run (read_only)")
        except duckdb.Error as error:
            raise open_error(run_dir / DATABASE, error) from error
        for name in (*TABLES, VOCABULARY.name):
            database.execute(f"create view {name} as from run.main.{name}")
    else:
        _open_segments(database, run_dir, layout)
    for view in VIEWS:
        database.execute(f"create view {view.name} as {view.sql}")


def _open_segments(database: duckdb.DuckDBPyConnection, run_dir: Path, layout: Layout) -> None:
    for name, empty in empty_tables().items():
        database.register(f"empty_{name}", empty)
    for name in TABLES:
        for gap in layout.gaps(name):
            raise missing(run_dir, name, gap)
        for segment in layout.segments[name]:
            check_segment(segment)
        source = files_source(layout.segments[name]) if layout.segments[name] else f"empty_{name}"
        newest = -1 if layout.last_step is None else layout.last_step  # a step is whole once `steps` has it
        database.execute(f"create view {name} as select * from {source} where step <= {newest}")
    vocabulary = run_dir / VOCABULARY_FILE
    database.execute(f"create view {VOCABULARY.name} as from {f'read_parquet({quoted(vocabulary)})' if vocabulary.exists() else f'empty_{VOCABULARY.name}'}")


def _write(database: duckdb.DuckDBPyConnection, table: str, target: Path, form: str) -> Exported:
    path, draft = target / f"{table}.{form}", target / f".{table}.{form}.part"
    columns = _columns_as_text(database, table) if form == "csv" else "*"
    try:
        rows = database.execute(f"copy (select {columns} from {table}) to {quoted(draft)} ({FORMATS[form]})").fetchone()[0]
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return Exported(table, rows, str(path))


def _columns_as_text(database: duckdb.DuckDBPyConnection, table: str) -> str:
    described = database.execute(f"describe {table}").fetchall()
    nested = [name for name, kind, *_ in described if kind.endswith("]") or kind.startswith(("MAP", "STRUCT"))]
    return f"* replace ({', '.join(f'to_json({name})::varchar as {name}' for name in nested)})" if nested else "*"

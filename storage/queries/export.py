"""A run's tables as files for other programs: Parquet with every type kept, and CSV with lists and maps as JSON text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

from storage.errors import StoreError
from storage.layout import quoted
from storage.reader import Store
from storage.schema import TABLES, VOCABULARY

EXPORTED = (*TABLES, VOCABULARY.name, "updates", "positions")
"""Everything but the view `tokens`, whose rows are the lists of `rollouts` one by one."""
FORMATS = {"parquet": "format parquet, compression zstd", "csv": "format csv, header"}


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
    store.run_dir(run_id)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write to {target}: {error.strerror}; choose another folder") from None
    return store.read(run_id, lambda database: [_write(database, table, target, form) for table in EXPORTED for form in FORMATS])


def _write(database: duckdb.DuckDBPyConnection, table: str, target: Path, form: str) -> Exported:
    path, draft = target / f"{table}.{form}", target / f".{table}.{form}.part"
    columns = _columns_as_text(database, table) if form == "csv" else "*"
    try:
        rows = database.execute(f"copy (select {columns} from {table}) to {quoted(draft)} ({FORMATS[form]})").fetchone()[0]
        draft.replace(path)
    except duckdb.Error as error:
        if str(draft) not in str(error):
            raise
        raise StoreError(f"cannot export to {target}: {' '.join(str(error).split())}; choose another folder or free some space") from error
    finally:
        draft.unlink(missing_ok=True)
    return Exported(table, rows, str(path))


def _columns_as_text(database: duckdb.DuckDBPyConnection, table: str) -> str:
    described = database.execute(f"describe {table}").fetchall()
    nested = [name for name, kind, *_ in described if kind.endswith("]") or kind.startswith(("MAP", "STRUCT"))]
    return f"* replace ({', '.join(f'to_json({name})::varchar as {name}' for name in nested)})" if nested else "*"

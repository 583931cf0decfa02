"""A run's tables as files for other programs: Parquet with every type kept, CSV with lists and maps as JSON text, or one DuckDB file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex

import duckdb

from storage.about import RUN_FILE, About
from storage.errors import DiskFull, StoreError
from storage.layout import StoreInfo, checksum, is_database, quoted, read_info
from storage.publish import is_no_room, sync
from storage.reader import Store
from storage.schema import SCHEMA_VERSION, TABLES, VOCABULARY
from storage.transfer import STORED, Figures, Progress, copy_tables, figures, no_progress
from storage.views import STORAGE_VERSION, write_database

EXPORTED = (*TABLES, VOCABULARY.name, "updates", "positions")
"""Everything but the view `tokens`, whose rows are the lists of `rollouts` one by one."""
FORMATS = {"parquet": "format parquet, compression zstd", "csv": "format csv, header"}
RUN_INFO = "run_info"
"""The table of an exported DuckDB file that says which run it holds: its one row has an About's texts, and mappings as JSON."""

_BY_NAME = {name: name for name in STORED}


@dataclass(frozen=True, slots=True)
class Exported:
    """One table as written, its number of rows, and the file it is in."""

    table: str
    rows: int
    file: str


def export_run(
    store: Store, run_id: str, target: Path, about: About, *, formats: Sequence[str] = tuple(FORMATS), progress: Progress = no_progress
) -> list[Exported]:
    """Write every table of a run to `target` as <table>.parquet and <table>.csv; files of the same names are replaced.

    Beside Parquet goes run.json, which makes the folder a run that can be imported. A live run is exported up to its newest whole step.
    Raises RunNotFound, SegmentDamaged, NewerStore, and StoreError when `target` cannot be written.
    """
    about = _as_stored(store, run_id, about)
    try:
        target.mkdir(parents=True, exist_ok=True)
        (target / RUN_FILE).unlink(missing_ok=True)  # that of an earlier export must not vouch for the files of this one
    except OSError as error:
        raise StoreError(f"cannot write to {target}: {error.strerror}; choose another folder") from None

    def write(database: duckdb.DuckDBPyConnection) -> list[Exported]:
        wanted, written = [(table, form) for table in EXPORTED for form in formats], []
        for done, (table, form) in enumerate(wanted):
            progress(done, len(wanted))
            written.append(_write(database, table, target, form))
        progress(len(wanted), len(wanted))
        return written

    written = store.read(run_id, write)
    if "parquet" in formats:
        _write_about(target, about)
    return written


def export_database(store: Store, run_id: str, target: Path, about: About, *, progress: Progress = no_progress) -> list[Exported]:
    """Write a run into one DuckDB file: tables, views, and run_info, which says whose they are. It needs nothing beside it.

    A DuckDB file of that name is replaced, once the new one is whole and has been compared with the run. A live run is exported up
    to its newest whole step. Raises as `export_run` does.
    """
    about = _as_stored(store, run_id, about)
    _check_target(store, target)
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        recorded = store.read(run_id, lambda database: _copy(database, draft, progress))

        def check(database: duckdb.DuckDBPyConnection) -> None:
            if figures(database, _BY_NAME) != recorded:
                raise StoreError(f"the tables written for {target} differ from those of run {run_id}; nothing was exported, try again")

        write_database(draft, StoreInfo(about.schema_version, about.precision, True), lambda database: _describe(database, about), check)
        sync(draft)
        draft.replace(target)
        sync(target.parent)
    except (DiskFull, duckdb.Error) as error:
        raise _cannot_write(target, error.__cause__ or error) from error
    except OSError as error:
        raise _cannot_write(target, error.strerror) from error
    finally:
        for leftover in (draft, draft.with_name(f"{draft.name}.wal")):
            with suppress(OSError):
                leftover.unlink(missing_ok=True)
    return [Exported(table, recorded[table][0], str(target)) for table in STORED]


def _as_stored(store: Store, run_id: str, about: About) -> About:
    info = read_info(store.run_dir(run_id))
    return replace(about, schema_version=SCHEMA_VERSION, precision=info.precision if info else about.precision)


def _check_target(store: Store, target: Path) -> None:
    """Raises StoreError where a file must not be put."""
    if target.is_dir():
        raise StoreError(f"{target} is a folder, and a run is exported into one file; name it, e.g. {target / 'run.duckdb'}")
    if store.root / "runs" in target.resolve().parents:
        raise StoreError(f"{target} lies among the runs of the store, whose files are theirs; choose a place outside of {store.root / 'runs'}")
    if "?" in str(target.resolve()):
        raise StoreError(f"DuckDB cannot keep a database under a path with '?' in it; choose another name than {target}")
    if target.exists() and not is_database(target):
        raise StoreError(f"{target} is there already and is no DuckDB file; choose another name, or move it away")


def _copy(database: duckdb.DuckDBPyConnection, draft: Path, progress: Progress) -> Figures:
    """The stored tables into a new file; what they hold."""
    draft.unlink(missing_ok=True)  # an earlier try, when segments were merged meanwhile
    alias = f"export_{token_hex(4)}"
    try:
        database.execute(f"attach {quoted(draft)} as {alias} (storage_version {quoted(STORAGE_VERSION)})")
        copy_tables(database, f"{alias}.main", _BY_NAME, progress)
        database.execute(f"checkpoint {alias}")
        return figures(database, _BY_NAME)
    except duckdb.Error as error:
        if str(draft) in str(error) or is_no_room(error):  # else it is the run that cannot be read
            raise _cannot_write(draft.parent, error) from error
        raise
    finally:
        with suppress(duckdb.Error):
            database.execute(f"detach {alias}")


def _describe(database: duckdb.DuckDBPyConnection, about: About) -> None:
    row = {"run_id": about.run_id, "name": about.name, **{name: json.dumps(getattr(about, name)) for name in ("config", "status", "fork", "retention")}}
    database.execute(f"create table {RUN_INFO} ({', '.join(f'{name} varchar' for name in row)})")
    database.execute(f"insert into {RUN_INFO} values ({', '.join('?' * len(row))})", list(row.values()))


def _write_about(target: Path, about: About) -> None:
    """Last of all: its checksums say that the files beside it are those of one export."""
    draft = target / f".{RUN_FILE}.part"
    try:
        draft.write_text(replace(about, files={f"{name}.parquet": checksum(target / f"{name}.parquet") for name in STORED}).to_json(), encoding="utf-8")
        draft.replace(target / RUN_FILE)
    except OSError as error:
        raise _cannot_write(target, error.strerror) from error
    finally:
        draft.unlink(missing_ok=True)


def _cannot_write(target: Path, why: object) -> StoreError:
    return StoreError(f"cannot export to {target}: {' '.join(str(why).split())[:300]}; choose another place or free some space")


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

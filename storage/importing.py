"""An export, which is anyone's file, as a sealed run: everything in it is checked, and only rows of the known columns are taken over."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
from duckdb.sqltypes import DuckDBPyType
from filelock import FileLock, Timeout

from storage.about import RUN_FILE, About, about_from, parse_json
from storage.encode import MANTISSA_BITS
from storage.errors import DiskFull, ExportRefused, StoreError
from storage.layout import SEALED, VOCABULARY_FILE, StoreInfo, checksum, is_database, quoted
from storage.publish import sync
from storage.queries.export import RUN_INFO
from storage.reader import Store
from storage.schema import ROLLOUTS, SCHEMA_VERSION, TABLES, VOCABULARY
from storage.sealing import publish_info, write_tables
from storage.transfer import STORED, Figures, Progress, figures, no_progress
from storage.views import empty_tables, files_source, in_full, publish_views

DRAFT = ".import-"
LOCK = ".import.lock"
KEYS = {
    "steps": ("step",),
    "groups": ("step", "group_index"),
    "rollouts": ("step", "group_index", "rollout_index"),
    "vocabulary": ("token_id",),
}
"""What tells the rows of a table apart; no export lacks them."""
TRACES = [column.name for column in ROLLOUTS.columns if pa.types.is_list(column.type) and column.name != "token_ids"]
WAY_OUT = "export the run again with --format duckdb or parquet"


@dataclass(frozen=True, slots=True)
class Export:
    """An export that has been checked: where it is, whose it is, how many rows its tables have, and what they add up to."""

    path: Path
    about: About
    figures: Figures

    def rows(self, table: str) -> int:
        return self.figures[table][0]


def read_export(path: Path) -> Export:
    """Checks a .duckdb file or a Parquet folder in full. Raises ExportRefused, NewerStore, and StoreError where it cannot be read."""
    path = path.absolute()
    about = _about_folder(path) if path.is_dir() else _about_file(path)
    if about.precision not in MANTISSA_BITS:
        raise ExportRefused(f"{path} was recorded with precision {about.precision[:40]!r}; known are {', '.join(MANTISSA_BITS)}; {WAY_OUT}")
    with _reading(path) as database:
        sources = _attach(database, path)
        _check_rows(database, path, sources)
        return Export(path, about, figures(database, sources))


def differing_tables(store: Store, run_id: str, export: Export) -> list[str]:
    """Tables of a run of the store whose rows are not those of the export. Raises as Store.read does."""
    here = store.read(run_id, lambda database: figures(database, {name: name for name in STORED}))
    return [name for name in STORED if here[name] != export.figures[name]]


def add_run(store_root: Path, run_id: str, export: Export, documents: Mapping[str, str], *, progress: Progress = no_progress) -> None:
    """Makes a sealed run of a checked export, with `documents` (file name → text) in its folder; it appears whole or not at all.

    Raises FileExistsError if the store has anything of that name, DiskFull, ExportRefused, and StoreError if the store cannot be written.
    """
    runs = store_root / "runs"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        with FileLock(runs / LOCK, timeout=0):
            for leftover in runs.glob(f"{DRAFT}*/"):  # of an import that was killed
                shutil.rmtree(leftover)
            draft = runs / f"{DRAFT}{os.getpid()}"
            try:
                draft.mkdir()
                _build(draft, export, documents, progress)
                if os.path.lexists(runs / run_id):  # a rename would take the place of an empty folder
                    raise FileExistsError(runs / run_id)
                draft.rename(runs / run_id)
                sync(runs)
                try:
                    publish_views(runs / run_id, export.about.precision, sealed=True)  # they name the run's folder, so they come last
                except BaseException:
                    (runs / run_id).rename(draft)
                    raise
            finally:
                shutil.rmtree(draft, ignore_errors=True)
    except Timeout:
        raise StoreError(f"another import into {store_root} is under way; wait until it has ended, then import again") from None
    except FileExistsError:
        raise
    except DiskFull as error:
        why = " ".join(str(error.__cause__ or error).split())[:200]
        raise DiskFull(f"no room to import {export.path} into {store_root} ({why}); nothing was imported: free some space and import again") from error
    except OSError as error:
        raise StoreError(f"cannot write to {store_root}: {error.strerror}; nothing was imported: mend that, or choose another folder with --store") from error


def _build(draft: Path, export: Export, documents: Mapping[str, str], progress: Progress) -> None:
    precision = export.about.precision
    with _reading(export.path) as database:
        write_tables(draft / SEALED, draft, database, _attach(database, export.path), precision, progress)
    with duckdb.connect() as database:
        if figures(database, {name: files_source(_files(draft, name)) for name in STORED}) != export.figures:
            raise ExportRefused(f"{export.path} changed while it was imported; nothing was imported, try again")
    publish_info(draft, StoreInfo(SCHEMA_VERSION, precision, True))
    for name, text in documents.items():
        (draft / name).write_text(text, encoding="utf-8")
        sync(draft / name)
    sync(draft)


def _files(draft: Path, name: str) -> list[Path]:
    return [draft / VOCABULARY_FILE] if name == VOCABULARY.name else list((draft / SEALED / name).glob("*.parquet"))


# What an export says and holds ---------------------------------------------------------------------------------------


def _about_folder(folder: Path) -> About:
    place = folder / RUN_FILE
    try:
        about = about_from(place, parse_json(place, place.read_bytes()))
    except FileNotFoundError:
        raise _no_export(folder) from None
    except OSError as error:
        raise StoreError(f"cannot read {place}: {error.strerror}") from None
    for name in STORED:
        file = folder / f"{name}.parquet"
        try:
            intact = checksum(file) == about.files.get(file.name)
        except FileNotFoundError:
            raise ExportRefused(f"{folder} lacks {file.name}, so it is half an export; {WAY_OUT}") from None
        except OSError as error:
            raise StoreError(f"cannot read {file}: {error.strerror}") from None
        if not intact:
            raise ExportRefused(f"{file} is not as it was exported, as its checksum in {RUN_FILE} says; copy the folder again, or {WAY_OUT}")
    return about


def _about_file(path: Path) -> About:
    try:
        if not is_database(path):
            raise _no_export(path)
    except FileNotFoundError:
        raise ExportRefused(f"there is no {path}; name a .duckdb file or a folder of Parquet files that `export` wrote") from None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from None
    with _reading(path) as database:
        if not {RUN_INFO, "store_info"} <= _open_file(database, path):
            raise ExportRefused(f"{path} has no table {RUN_INFO}, so nothing says which run it holds; {WAY_OUT}")
        return _about_rows(path, *(database.sql(f"from export.main.{table} limit 2").to_arrow_table().to_pylist() for table in (RUN_INFO, "store_info")))


def _about_rows(path: Path, runs: list[dict], stores: list[dict]) -> About:
    if len(runs) != 1 or len(stores) != 1:
        raise ExportRefused(f"{path} does not say of exactly one run that it holds it; {WAY_OUT}")
    texts = {name: text for name in ("config", "status", "fork") if isinstance(text := runs[0].get(name), str)}
    parsed = {name: parse_json(path, text) for name, text in texts.items()}
    said = {name: runs[0].get(name) for name in ("run_id", "name")} | {name: stores[0].get(name) for name in ("schema_version", "precision")}
    return about_from(path, said | parsed)


def _no_export(path: Path) -> ExportRefused:
    if path.suffix == ".csv" or (path.is_dir() and any(path.glob("*.csv")) and not any(path.glob("*.parquet"))):
        return ExportRefused(f"{path} is CSV, in which numbers and lists are only text, so no run can be made of it; {WAY_OUT}")
    if path.suffix == ".parquet":
        return ExportRefused(f"{path} is one table of a run; name the folder that `export` wrote, with its {RUN_FILE}")
    if path.is_dir():
        return ExportRefused(f"{path} has no {RUN_FILE}, so nothing says which run it holds; {WAY_OUT}")
    return ExportRefused(f"{path} is no export of a run; name a .duckdb file or a folder of Parquet files that `export` wrote")


@contextmanager
def _reading(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB of its own; what it cannot read is the export's fault. Raises ExportRefused."""
    try:
        with duckdb.connect(config={"temp_directory": f"{tempfile.gettempdir()}/groupscope-import-{os.getpid()}"}) as database:
            yield database
    except duckdb.Error as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: duckdb.Error) -> StoreError:
    why = " ".join(str(error).split())[:200]
    if "Could not set lock" in why:
        return StoreError(f"{path} is open for writing in another program; close it there, then import again")
    return ExportRefused(f"{path} cannot be read ({why}); copy it again, or {WAY_OUT}")


def _open_file(database: duckdb.DuckDBPyConnection, path: Path) -> set[str]:
    """Attaches a .duckdb file as `export`; from then on the connection opens nothing else. Gives its tables.

    Views are left out: one could be made of anything, another file of this machine among it.
    """
    database.execute(f"attach {quoted(path)} as export (read_only)")
    database.execute("set enable_external_access = false")
    database.execute("set lock_configuration = true")
    found = database.execute("select table_name from duckdb_tables() where database_name = 'export' and schema_name = 'main'").fetchall()
    return {name for (name,) in found}


def _attach(database: duckdb.DuckDBPyConnection, path: Path) -> dict[str, str]:
    """SQL for each table of an export, with all columns and types of the schema. Raises ExportRefused where a table does not fit it."""
    for name, table in empty_tables().items():
        database.register(f"empty_{name}", table)
    if path.is_dir():
        places = {name: files_source([path / f"{name}.parquet"]) for name in STORED}
    else:
        tables = _open_file(database, path)
        places = {name: f"export.main.{name}" for name in STORED if name in tables}
    for name in STORED:
        if name not in places:
            raise ExportRefused(f"{path} has no table {name}; {WAY_OUT}")
        _check_columns(database, path, name, places[name])
    return {name: f"({in_full(f'empty_{name}', place)})" for name, place in places.items()}


def _check_columns(database: duckdb.DuckDBPyConnection, path: Path, name: str, place: str) -> None:
    """Columns that an older Groupscope did not have may be lacking, as in a run of the store; no other may be there."""
    found, known = (database.sql(f"from {source} limit 0") for source in (place, f"empty_{name}"))
    wanted = dict(zip(known.columns, known.types))
    for column in KEYS[name]:
        if column not in found.columns:
            raise ExportRefused(f"{path} has no column {name}.{column}; {WAY_OUT}")
    for column, kind in zip(found.columns, found.types):
        if column not in wanted:
            raise ExportRefused(f"{path} has a column {name}.{column[:60]!r}, which no run has (docs/schema.md has those that are); {WAY_OUT}")
        if not _fits(kind, wanted[column]):
            raise ExportRefused(f"{path} has column {name}.{column} as {str(kind)[:60]}, and it is {str(wanted[column])[:60]}; {WAY_OUT}")


def _fits(found: DuckDBPyType, wanted: DuckDBPyType) -> bool:
    """The same type; a struct may lack fields, as those of older runs do."""
    if found.id != wanted.id or found.id not in ("list", "map", "struct"):
        return str(found) == str(wanted)
    fields = dict(wanted.children)
    return all(name in fields and _fits(kind, fields[name]) for name, kind in found.children)


def _check_rows(database: duckdb.DuckDBPyConnection, path: Path, sources: Mapping[str, str]) -> None:
    """What the store promises of its tables and pages rely on. Raises ExportRefused."""
    for name, source in sources.items():
        keys = ", ".join(KEYS[name])
        holes = " or ".join(f"{key} is null or {key} < 0" for key in KEYS[name])
        rows, different, bad = database.execute(f"select count(*), count(distinct ({keys})), count(*) filter ({holes}) from {source}").fetchone()
        if rows != different or bad:
            raise ExportRefused(f"{path} has rows in {name} that no run has: {keys} tell them apart and are never empty or below 0; {WAY_OUT}")
        if name in TABLES and database.execute(f"select 1 from {source} where step not in (select step from {sources['steps']}) limit 1").fetchone():
            raise ExportRefused(f"{path} has rows in {name} of steps that are not in its table steps; {WAY_OUT}")
    odd = " or ".join(f"len({column}) <> len(token_ids)" for column in TRACES)
    if found := database.execute(f"select step, group_index, rollout_index from {sources['rollouts']} where {odd} limit 1").fetchone():
        raise ExportRefused(f"{path} has token traces of different lengths in one rollout (step, group, rollout: {found}); {WAY_OUT}")

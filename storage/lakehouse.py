"""A sealed run in a DuckLake, for teams that want one lakehouse: the lake adopts the run's own Parquet files, no byte is copied.

DuckLake takes adopted files for its own and deletes them when it compacts, and a resumed run's files are moved and merged. So what is adopted
are second names of the files, hard links in `lake/` of the run's folder: whoever deletes theirs leaves the other's. DuckDB's extension
fits one version of DuckDB only, which is not ours, so ducklake_script.py runs in an interpreter that has both.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import duckdb

from storage.cached import check_local
from storage.errors import StoreError
from storage.layout import VOCABULARY_FILE, check_segment, check_vocabulary, read_layout
from storage.queries.export import Exported
from storage.reader import Store
from storage.schema import TABLES, VOCABULARY
from storage.views import empty_tables

FOLDER = "lake"
SCRIPT = Path(__file__).with_name("ducklake_script.py")
INSTALL = "python3 -m venv lake && lake/bin/pip install duckdb-extensions==1.5.5 duckdb-extension-ducklake==1.5.5 duckdb-extension-postgres-scanner==1.5.5"
"""Which installs duckdb 1.5.5."""
TIMEOUT_S = 3600.0
_SUMMED = {**dict.fromkeys(TABLES, "step"), VOCABULARY.name: "token_id"}


def adopt(store: Store, run_id: str, catalogue: str, python: str) -> tuple[list[Exported], bool]:
    """Put a sealed run into the lake of a catalogue, as tables of a schema of its name; what they are, and whether they were there already.

    `catalogue` is a file, or a URL like postgresql://user@host/base or sqlite:file. Raises StoreError, SegmentDamaged, RunNotFound.
    """
    check_local(store.root)
    run_dir = store.run_dir(run_id)
    layout = read_layout(run_dir)
    if not layout.sealed or layout.in_database:
        raise StoreError(
            f"run {run_id} is not sealed, and its files will be merged into others, which would leave holes in the lake; when it has ended: "
            f"python -m grpo_core seal {run_id}"
        )
    for segments in layout.segments.values():
        for segment in segments:
            check_segment(segment)
    check_vocabulary(run_dir)
    files = {name: [segment.path for segment in segments] for name, segments in layout.segments.items()} | {VOCABULARY.name: [run_dir / VOCABULARY_FILE]}
    linked = {name: [_link(path, run_dir / FOLDER / name) for path in paths] for name, paths in files.items()}
    figures = store.read(run_id, lambda run: {name: _figures(run, name) for name in files})
    request = {
        "catalogue": _for_ducklake(catalogue),
        "data_path": str(store.root / "lake-files"),
        "schema": run_id,
        "tables": {
            name: {"columns": columns, "files": [str(path) for path in linked[name]], "summed": _SUMMED[name], "figures": figures[name]}
            for name, columns in _columns().items()
        },
    }
    already = _run(python, request)
    return [Exported(name, figures[name][0], f"{run_id}.{name}") for name in files], already


def _link(path: Path, folder: Path) -> Path:
    """A second name for a file, where no other file has it; a vocabulary may be written anew under its name."""
    folder.mkdir(parents=True, exist_ok=True)
    status = path.stat()
    link = folder / (path.name if path.name != VOCABULARY_FILE else f"{status.st_mtime_ns}-{VOCABULARY_FILE}")
    if link.exists() and link.samefile(path):
        return link
    try:
        os.link(path, link)
    except FileExistsError:
        raise StoreError(f"{link} is there already and is another file than {path}; move it away") from None
    except OSError as error:
        raise StoreError(
            f"{path} cannot have a second name in {folder} ({error.strerror}), which a lake needs; keep the store on a file system with hard links"
        ) from None
    return link


def _figures(run: duckdb.DuckDBPyConnection, name: str) -> list[int | None]:
    return list(run.execute(f"select count(*)::bigint, sum({_SUMMED[name]})::bigint from {name}").fetchone())


def _columns() -> Mapping[str, str]:
    """The columns of every stored table as DDL, from storage/schema.py."""
    with duckdb.connect() as database:
        for name, table in empty_tables().items():
            database.from_arrow(table).create(name)
        return {name: ", ".join(f'"{column}" {kind}' for column, kind, *_ in database.execute(f"describe {name}").fetchall()) for name in _SUMMED}


def _for_ducklake(catalogue: str) -> str:
    if catalogue.startswith(("postgresql://", "postgres://")):
        return f"postgres:{catalogue}"
    return catalogue if catalogue.startswith(("postgres:", "sqlite:")) else str(Path(catalogue).absolute())


def _run(python: str, request: Mapping[str, object]) -> bool:
    if shutil.which(python) is None:
        raise StoreError(f"there is no interpreter {python}; DuckLake's extension needs one of its own: {INSTALL}, then --ducklake-python lake/bin/python")
    try:
        done = subprocess.run([python, str(SCRIPT)], input=json.dumps(request), capture_output=True, text=True, timeout=TIMEOUT_S)
        said = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise StoreError(f"{python} did not put the run into the lake ({' '.join(str(error).split())[:200]}); nothing was changed") from None
    if said.get("missing"):
        raise StoreError(f"{python} lacks what DuckLake needs ({said['error']}); {INSTALL}, then --ducklake-python lake/bin/python")
    if "error" in said:
        raise StoreError(f"the lake did not take the run ({said['error']}); nothing was changed")
    return bool(said["already"])

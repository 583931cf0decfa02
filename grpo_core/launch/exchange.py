"""Runs that leave a store and come into another: what an export says of a run's life, and what is made of that where it is imported.

An export carries what was recorded and how the run was set up and ended; not its checkpoints, its log, its tags and note.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, TypeAdapter, ValidationError

from grpo_core.config import make_config
from grpo_core.errors import ConfigError
from grpo_core.launch.folder import RUN_ID, RunFolder, catalog_place, read_json
from grpo_core.launch.status import ALIVE, FINAL, Word, run_status
from storage.about import About
from storage.cached import check_local
from storage.catalog import Catalog
from storage.errors import ExportRefused
from storage.importing import Export, add_run, differing_tables, read_export
from storage.reader import Store
from storage.thinning import RECORD, THINNINGS, Thinning, read_record, record_text

NOT_CARRIED = "checkpoints, log, tags, note and superseded steps"
SECRET = ("webhook",)
"""Settings that stay at home: whoever has the address of a webhook can post to it."""

Count = Annotated[int, Field(ge=0, le=2**31)]
Moment = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
"""s since 1970, up to a year that clocks can print."""
State = Literal["starting", "running", "stopping", "finished", "stopped", "failed", "lost"]
assert {*ALIVE, *FINAL, "lost"} == set(get_args(State))


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What an export says of how far a run got and how it ended; fields as those of RunStatus."""

    state: State
    step: Count = 0
    steps: Count = 0
    started_at: Moment | None = None
    updated_at: Moment | None = None
    ended_at: Moment | None = None
    seconds_per_step: Moment | None = None
    exit_code: Annotated[int, Field(ge=-(2**31), le=2**31)] | None = None
    message: Annotated[str, Field(max_length=4000)] = ""
    missing_steps: Count = 0
    attempt: Count = 0


_LIFE = TypeAdapter(Life)


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of an import: the run's id here, whether it is new, its recorded steps, and what to know about it."""

    run_id: str
    new: bool
    steps: int
    notes: tuple[str, ...] = ()


def about_run(store_root: Path, run_id: str, *, name: str) -> About:
    """What an export of the run says of it, as it is now. Raises RunNotFound."""
    folder = RunFolder.open(store_root, run_id)
    config = read_json(folder.config)
    try:
        status = run_status(store_root, run_id)
    except ConfigError:  # neither status.json nor config.json can be read
        life = None
    else:
        life = {field: getattr(status, field) for field in Life.__slots__}
    kept = config and {option: value for option, value in config.items() if option not in SECRET}
    thinned = THINNINGS.dump_python(read_record(folder.path), mode="json") or None
    return About(run_id=run_id, name=name, config=kept, status=life, fork=read_json(folder.fork), retention=thinned and list(thinned))


def import_run(store_root: Path, source: Path, *, run_id: str | None = None, progress: Callable[[int, int], None] = lambda *_: None) -> Imported:
    """Make a run of this store of an export: under its own id, or under `run_id`.

    A run of that id with the same tables and settings is left as it is. Raises ExportRefused for what is no whole export and
    where another run has the id, NewerStore, DiskFull, and StoreError where something cannot be read or written.
    """
    export = read_export(source)
    wanted = export.about.run_id if run_id is None else run_id
    if not RUN_ID.fullmatch(wanted):
        raise ExportRefused(
            f"{wanted[:80]!r} cannot be a run id, which has letters, digits, dots, dashes and underscores; give another with --as, e.g. --as r1"
        )
    check_local(store_root)
    documents = _documents(export, _life(export), wanted)
    folder = RunFolder(store_root, wanted)
    catalog = Catalog(catalog_place(store_root))  # before anything is made: it may be damaged
    if folder.path.exists() or folder.path.is_symlink():
        return _there_already(folder, export)
    try:
        add_run(folder.store_root, wanted, export, documents, progress=progress)
    except FileExistsError:  # another import was faster
        return _there_already(folder, export)
    catalog.register(wanted, export.about.name[:120] or wanted)
    return Imported(wanted, True, export.rows("steps"), _notes(export))


def _life(export: Export) -> Life:
    if export.about.status is None:
        return Life(state="lost")
    try:
        return _LIFE.validate_json(json.dumps(export.about.status))
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"]))
        raise ExportRefused(f"{export.path} says of how its run ended what cannot be ({where}: {wrong['msg'].lower()}); export the run again") from None


def _documents(export: Export, life: Life, run_id: str) -> dict[str, str]:
    """The files of the run's folder that say what it is. No process is behind it, so it has ended, whatever it did when it was exported."""
    about = export.about
    if about.config is None:
        raise ExportRefused(f"{export.path} lacks the settings of its run, whose config.json could not be read; mend that file, then export again")
    word = Word(**(asdict(life) | {"started_at": life.started_at or 0.0, "updated_at": life.updated_at or 0.0, "phase": life.state}))
    if life.state not in FINAL:
        state = "stopped" if life.state in ALIVE else "failed"
        message = f"it was {life.state} when it was exported{f': {life.message}' if life.message else ''}"
        word = Word(**(asdict(word) | {"state": state, "phase": state, "message": message, "step": export.rows("steps"), "ended_at": life.updated_at}))
    origin = {"source": str(export.path), "run_id": about.run_id, "imported_at": time.time()}
    contents = {"config.json": about.config, "status.json": asdict(word), "fork.json": about.fork, "import.json": origin}
    texts = {name: json.dumps(content, indent=1, ensure_ascii=False) + "\n" for name, content in contents.items() if content is not None}
    return texts | ({RECORD: record_text(_thinned(export))} if about.retention else {})


def _thinned(export: Export) -> tuple[Thinning, ...]:
    try:
        return THINNINGS.validate_json(json.dumps(export.about.retention))
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"]))
        raise ExportRefused(f"{export.path} says of its thinned tokens what cannot be ({where}: {wrong['msg'].lower()}); export the run again") from None


def _there_already(folder: RunFolder, export: Export) -> Imported:
    """The run of that id, if it is the same. Raises ExportRefused."""
    config = read_json(folder.config)
    if config is None:
        raise ExportRefused(f"{folder.path} is there already and is no run that can be read; move it away, or give another id with --as")
    differing = differing_tables(Store(folder.store_root), folder.run_id, export)
    ours = {option: value for option, value in config.items() if option not in SECRET}
    if differing or ours != export.about.config:
        raise ExportRefused(
            f"another run {folder.run_id} is in {folder.store_root} already (different: {', '.join(differing or ['config.json'])}), and it stays; "
            f"import this one under another id with --as {folder.run_id[:100]}-imported, or into another folder with --store"
        )
    return Imported(folder.run_id, False, export.rows("steps"))


def _notes(export: Export) -> tuple[str, ...]:
    notes = [f"an export carries no {NOT_CARRIED}, so this run can be read and diagnosed, but not resumed or forked"]
    try:
        make_config(export.about.config)
    except ConfigError as error:
        notes.append(f"some of its settings are not of this version, so what needs all of them is not available ({error})")
    return tuple(notes)

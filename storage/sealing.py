"""The end of a run and the way back: run.duckdb with real tables instead of segments, and segments again for a resume.

The marker store.json is the switch. Whatever it says is complete at every moment: tables are built and verified before it
says sealed and segments go only afterwards; segments are written before it says live and tables go only afterwards.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa

from storage.encode import publish_tables
from storage.errors import RunNotFound, StoreError
from storage.layout import (
    DATABASE,
    MARKER,
    TEMPORARY,
    VOCABULARY_FILE,
    Layout,
    StoreInfo,
    check_segment,
    check_vocabulary,
    damaged,
    list_segments,
    marker_text,
    merged_name,
    missing,
    open_error,
    quoted,
    read_info,
    read_layout,
    rival,
    rivals,
    set_aside,
)
from storage.publish import lock_run, publish, sweep_temporary
from storage.schema import SCHEMA_VERSION, TABLES, VOCABULARY
from storage.transfer import figures
from storage.views import empty_tables, files_source, in_full, publish_database

UNSEAL_BLOCK = 1024
"""Steps per segment when a sealed run is taken apart again."""
UNSEAL_BATCH = 32
"""Steps held in memory at a time while doing so."""


def is_sealed(run_dir: Path) -> bool:
    """Whether run.duckdb holds the run's tables. Raises NewerStore."""
    info = read_info(Path(run_dir))
    return info is not None and info.sealed


def seal(run_dir: Path) -> None:
    """Turns a run that nobody writes into one run.duckdb with real tables; finishes a seal that was cut short.

    Raises RunNotFound, RunLocked, NewerStore, DiskFull, and SegmentDamaged if a file is missing or damaged; the run is then as it was.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise RunNotFound(f"no run folder {run_dir}; `python -m grpo_core runs` lists the runs of a store")
    lock = lock_run(run_dir)
    try:
        sweep_temporary(run_dir)
        layout = read_layout(run_dir)
        if not layout.sealed:
            info = StoreInfo(SCHEMA_VERSION, layout.info.precision if layout.info else "rounded", True)
            _build_tables(run_dir, layout, info)
            publish_info(run_dir, info)
        remove_segments(run_dir)
    finally:
        lock.release()


def unseal(run_dir: Path, info: StoreInfo) -> None:
    """Writes the tables of a sealed run as segments again; the caller, who holds the lock, then publishes a live marker.

    Raises SegmentDamaged if run.duckdb cannot be read, DiskFull. Until the marker changes, run.duckdb stays the truth.
    """
    remove_segments(run_dir)  # leftovers of a seal or of an earlier unseal that was cut short
    path = run_dir / DATABASE
    try:
        with duckdb.connect() as database:
            database.execute(f"attach {quoted(path)} as run (read_only)")
            database.execute("use run")
            steps = [step for (step,) in database.execute("select step from steps order by step").fetchall()]
            for name in reversed(TABLES):
                (run_dir / name).mkdir()
                for block in _pieces(steps, UNSEAL_BLOCK):
                    publish_tables(run_dir / name, merged_name(block[0], block[-1]), _rows(database, name, block), TABLES[name], info.precision)
            pieces = database.sql("select * from vocabulary order by token_id").to_arrow_table()
            publish_tables(run_dir, VOCABULARY_FILE, [pieces], VOCABULARY, info.precision)
    except duckdb.Error as error:
        raise open_error(path, error) from error


def publish_info(run_dir: Path, info: StoreInfo) -> None:
    publish(run_dir, MARKER, lambda path: path.write_bytes(marker_text(info)))


def remove_segments(run_dir: Path) -> None:
    """Folder by folder at once, so that a view from before the seal fails loudly rather than see half a run."""
    for name in reversed(TABLES):
        if (run_dir / name).exists():
            shutil.rmtree((run_dir / name).rename(run_dir / f"{TEMPORARY}{name}"))
    (run_dir / VOCABULARY_FILE).unlink(missing_ok=True)


def _build_tables(run_dir: Path, layout: Layout, info: StoreInfo) -> None:
    for name in TABLES:
        for gap in layout.gaps(name):
            raise missing(run_dir, name, gap)
        for segment in layout.segments[name]:
            check_segment(segment)
        for segment in set_aside(run_dir / name):  # the folders go
            raise damaged(segment.path, "it was set aside")
        for kept, left in rivals(list_segments(run_dir / name)):
            raise rival(kept, left)
    check_vocabulary(run_dir)
    sources = _sources(run_dir, layout)

    def fill(database: duckdb.DuckDBPyConnection) -> None:
        for name, table in empty_tables().items():
            database.from_arrow(table).create(name)
            if name in sources:
                database.execute(f"insert into {name} by name select * from {sources[name]}")

    def check(database: duckdb.DuckDBPyConnection) -> None:
        recorded = figures(database, {name: f"({in_full(f'(from {name} limit 0)', source)})" for name, source in sources.items()})
        for name, written in figures(database, {name: name for name in sources}).items():
            if written != (there := recorded[name]):
                raise StoreError(f"table {name} built for {run_dir} differs from its segments ({written}, not {there}); the run stays unsealed and whole")

    publish_database(run_dir, info, fill, check)


def _sources(run_dir: Path, layout: Layout) -> dict[str, str]:
    """Per table that has any rows, SQL for all of them."""
    sources = {name: f"(from {files_source(s.path for s in files)} where step <= {layout.last_step})" for name, files in layout.segments.items() if files}
    if (run_dir / VOCABULARY_FILE).exists():
        sources[VOCABULARY.name] = files_source([run_dir / VOCABULARY_FILE])
    return sources


def _pieces(steps: list[int], size: int) -> Iterator[list[int]]:
    return (steps[start : start + size] for start in range(0, len(steps), size))


def _rows(database: duckdb.DuckDBPyConnection, name: str, steps: list[int]) -> Iterator[pa.Table]:
    order = ", ".join(column for column in ("step", "group_index", "rollout_index") if column in TABLES[name].arrow.names)
    for part in _pieces(steps, UNSEAL_BATCH):
        yield database.sql(f"select * from {name} where step between ? and ? order by {order}", params=[part[0], part[-1]]).to_arrow_table()

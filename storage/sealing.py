"""The end of a run and the way back: every segment checked and merged into few in a folder of their own, and segments to add to again for a resume.

The marker store.json is the switch. Whatever it says is complete at every moment: the folder `sealed` appears whole and
verified before it says sealed and the live folders go only afterwards; they are back before it says live and `sealed` goes
only afterwards.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from storage.compaction import LARGEST_BYTES, read_tables
from storage.encode import publish_tables
from storage.errors import RunNotFound, SegmentDamaged, StoreError
from storage.layout import (
    DAMAGED,
    DATABASE,
    EMPTY_FILE,
    MARKER,
    SEALED,
    TEMPORARY,
    VOCABULARY_FILE,
    Layout,
    Segment,
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
from storage.publish import link, lock_run, publish, sweep_temporary, sync
from storage.schema import SCHEMA_VERSION, TABLES, VOCABULARY, Table
from storage.supersede import mend
from storage.transfer import STORED, Progress, figures, no_progress
from storage.views import files_source, in_full, publish_views

TABLES_BLOCK = 1024
"""Steps per segment when the tables of a run are written as segments."""
TABLES_BATCH = 32
"""Steps held in memory at a time while doing so."""


def is_sealed(run_dir: Path) -> bool:
    """Whether the run has been sealed and not been written since. Raises NewerStore."""
    info = read_info(Path(run_dir))
    return info is not None and info.sealed


def seal(run_dir: Path, *, progress: Progress = no_progress) -> None:
    """Turns the segments of a run that nobody writes into few, all of them checked; finishes a seal that was cut short.

    A run that an earlier version sealed is written as segments first. `progress` is told of bytes.

    Raises RunNotFound, RunLocked, NewerStore, DiskFull, and SegmentDamaged if a file is missing or damaged; the run is then as it was.
    """
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise RunNotFound(f"no run folder {run_dir}; `python -m grpo_core runs` lists the runs of a store")
    lock = lock_run(run_dir)
    try:
        sweep_temporary(run_dir)
        layout = read_layout(run_dir)
        precision = layout.info.precision if layout.info else "rounded"
        if layout.in_database:
            unseal(run_dir)
            make_live(run_dir, precision)
        elif not layout.sealed and (run_dir / SEALED).exists():  # of an unseal that was cut short: the views may still be on it
            make_live(run_dir, precision)
        if layout.in_database or not layout.sealed:
            mend(run_dir, precision)
            _merge_all(run_dir, precision, progress)
            try:
                publish_info(run_dir, StoreInfo(SCHEMA_VERSION, precision, True))
            except BaseException:
                _remove(run_dir, SEALED)
                raise
        try:
            publish_views(run_dir, precision, sealed=True)  # also where the run was sealed before: its folder may have moved
        except duckdb.Error:  # it wants to read the end of every file
            _check(read_layout(run_dir))
            check_vocabulary(run_dir)
            raise
        _remove_live(run_dir)
    finally:
        lock.release()


def unseal(run_dir: Path) -> None:
    """Gives a sealed run its live folders again; the caller, who holds the lock, then calls `make_live`.

    Raises SegmentDamaged if `sealed` is missing or the run.duckdb of an earlier version cannot be read, DiskFull.
    Until the marker changes, the sealed form stays the truth.
    """
    layout = read_layout(run_dir)
    if not layout.in_database and any((run_dir / name).exists() for name in TABLES):  # of a seal that was cut short: the views may still be on them
        publish_views(run_dir, layout.info.precision, sealed=True)
    _remove_live(run_dir)  # leftovers of a seal or of an earlier unseal that was cut short
    if layout.in_database:
        try:
            with duckdb.connect() as database:
                database.execute(f"attach {quoted(run_dir / DATABASE)} as run (read_only)")
                write_tables(run_dir, run_dir, database, {name: f"run.main.{name}" for name in STORED}, layout.info.precision)
        except duckdb.Error as error:
            raise open_error(run_dir / DATABASE, error) from error
        return
    for name in reversed(TABLES):
        (run_dir / name).mkdir()
        for segment in layout.segments[name]:
            link(segment.path, run_dir / name / segment.path.name)
        sync(run_dir / name)


def make_live(run_dir: Path, precision: str) -> None:
    """Marker, folders, empty segments (so that every glob matches) and the views, whose absolute paths may have moved."""
    publish_info(run_dir, StoreInfo(SCHEMA_VERSION, precision, False))
    _complete(run_dir, run_dir, precision)
    try:
        publish_views(run_dir, precision, sealed=False)
    except duckdb.Error:  # it wants to read the end of every file, and one that is damaged must not cost the others
        if not _set_damaged_aside(run_dir):
            raise
        _complete(run_dir, run_dir, precision)
        publish_views(run_dir, precision, sealed=False)
    if (run_dir / SEALED).exists():
        _remove(run_dir, SEALED)


def _set_damaged_aside(run_dir: Path) -> int:
    """Gives damaged files a name that DuckDB passes over and `Store.damaged` tells; returns how many there were."""
    broken = []
    for segment in (segment for table in TABLES for segment in list_segments(run_dir / table)):
        try:
            check_segment(segment)
        except SegmentDamaged:
            broken.append(segment.path)
    try:
        check_vocabulary(run_dir)
    except SegmentDamaged:
        broken.append(run_dir / VOCABULARY_FILE)
    for path in broken:
        path.rename(f"{path}{DAMAGED}")
    return len(broken)


def write_tables(
    root: Path, run_dir: Path, database: duckdb.DuckDBPyConnection, sources: Mapping[str, str], precision: str, progress: Progress = no_progress
) -> None:
    """Tables of a database, by SQL for each, as segments in `root` and a vocabulary in the run's folder. `progress` is told of steps."""
    steps = [step for (step,) in database.execute(f"select step from {sources['steps']} order by step").fetchall()]
    done, total = 0, len(TABLES) * len(steps)
    progress(done, total)

    def rows(name: str, block: list[int]) -> Iterator[pa.Table]:
        nonlocal done
        order = ", ".join(column for column in ("step", "group_index", "rollout_index") if column in TABLES[name].arrow.names)
        for part in _pieces(block, TABLES_BATCH):
            yield database.sql(f"select * from {sources[name]} where step between ? and ? order by {order}", params=[part[0], part[-1]]).to_arrow_table()
            progress(done := done + len(part), total)

    for name, table in reversed(TABLES.items()):
        (root / name).mkdir(parents=True)
        for block in _pieces(steps, TABLES_BLOCK):
            publish_tables(root / name, merged_name(block[0], block[-1]), rows(name, block), table, precision)
    pieces = database.sql(f"select token_id, piece from {sources[VOCABULARY.name]} order by token_id").to_arrow_table()
    publish_tables(run_dir, VOCABULARY_FILE, [pieces], VOCABULARY, precision)
    _complete(root, run_dir, precision)


def publish_info(run_dir: Path, info: StoreInfo) -> None:
    publish(run_dir, MARKER, lambda path: path.write_bytes(marker_text(info)))


def _merge_all(run_dir: Path, precision: str, progress: Progress) -> None:
    """The folder `sealed`, from live ones in which nothing is damaged or missing."""
    layout = read_layout(run_dir)
    _check(layout)
    for name in TABLES:  # the folders go
        for segment in set_aside(run_dir / name):
            raise damaged(segment.path, "it was set aside")
        for kept, left in rivals(list_segments(run_dir / name)):
            raise rival(kept, left)
    check_vocabulary(run_dir)
    draft = run_dir / f"{TEMPORARY}{SEALED}"
    done, total = 0, sum(segment.path.stat().st_size for segments in layout.segments.values() for segment in segments)
    try:
        for name, table in TABLES.items():
            (draft / name).mkdir(parents=True)
            for parts, size, last in _portions(layout.segments[name]):
                if len(parts) == 1 and parts[0].last == last:
                    link(parts[0].path, draft / name / parts[0].path.name)
                else:
                    _merge(draft / name, parts, last, table, precision)
                progress(done := done + size, total)
            sync(draft / name)
        _complete(draft, run_dir, precision)
        if (run_dir / SEALED).exists():  # of a seal or an unseal that was cut short
            _remove(run_dir, SEALED)
        draft.rename(run_dir / SEALED)
        sync(run_dir)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _check(layout: Layout) -> None:
    for name in TABLES:
        for gap in layout.gaps(name):
            raise missing(name, gap)
        for segment in layout.segments[name]:
            check_segment(segment)


def _portions(segments: Sequence[Segment]) -> Iterator[tuple[list[Segment], int, int]]:
    """Neighbours that make a file of at most LARGEST_BYTES together, their bytes, and the last step of the file.

    Tables are divided at different steps. So that no step between two files, which was never recorded, is taken for one that a table lacks,
    each file reaches as far as the next one begins.
    """
    portion: list[Segment] = []
    filled = 0
    for segment in segments:
        size = segment.path.stat().st_size
        if portion and filled + size > LARGEST_BYTES:
            yield portion, filled, segment.first - 1
            portion, filled = [], 0
        portion.append(segment)
        filled += size
    if portion:
        yield portion, filled, portion[-1].last


def _merge(folder: Path, parts: Sequence[Segment], last: int, table: Table, precision: str) -> None:
    path = publish_tables(folder, merged_name(parts[0].first, last), read_tables(parts), table, precision)
    with duckdb.connect() as database:
        database.from_arrow(table.arrow.empty_table()).create("empty")
        recorded, written = (
            figures(database, {table.name: f"({in_full('empty', files_source(paths))})"}) for paths in ([part.path for part in parts], [path])
        )
    if written != recorded:
        raise StoreError(f"{path} differs from the segments it was made of ({written}, not {recorded}); the run stays unsealed and whole")


def _complete(root: Path, run_dir: Path, precision: str) -> None:
    """What the views cannot do without: a folder and a file without rows of every table, and a vocabulary."""
    for name, table in TABLES.items():
        (root / name).mkdir(exist_ok=True)
        if not _has_columns(root / name / EMPTY_FILE, table.arrow.names):  # an older one would hide the newer columns
            publish_tables(root / name, EMPTY_FILE, [table.arrow.empty_table()], table, precision)
    if not (run_dir / VOCABULARY_FILE).exists():
        publish_tables(run_dir, VOCABULARY_FILE, [VOCABULARY.arrow.empty_table()], VOCABULARY, precision)


def _has_columns(path: Path, names: Sequence[str]) -> bool:
    try:
        return pq.read_schema(path).names == list(names)
    except (FileNotFoundError, pa.ArrowException):
        return False


def _remove_live(run_dir: Path) -> None:
    for name in reversed(TABLES):
        if (run_dir / name).exists():
            _remove(run_dir, name)


def _remove(run_dir: Path, name: str) -> None:
    """A folder at once, so that a view from before fails loudly rather than see half a run."""
    shutil.rmtree((run_dir / name).rename(run_dir / f"{TEMPORARY}old-{name}"))


def _pieces(steps: list[int], size: int) -> Iterator[list[int]]:
    return (steps[start : start + size] for start in range(0, len(steps), size))

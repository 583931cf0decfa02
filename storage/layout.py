"""How a run's recorded data lies on disk: file names, what a listing means, and the marker store.json.

    runs/<run_id>/
      store.json                  schema version, precision, and whether the run is sealed: which of the folders below hold the truth
      run.duckdb                  views on those folders, for anyone with DuckDB
      run.lock                    held by the one process that writes
      merging.lock                held by the one beside it while that merges
      vocabulary.parquet
      steps/ groups/ rollouts/    s<step>-<crc>.parquet                     one step
                                  c<first>-<last>-<since>-<crc>.parquet     several steps, written together or merged; hides what it covers,
                                                                            a file of the very same steps that counts since earlier too
                                  ….damaged                             what a writer found that DuckDB could not open
      sealed/                     instead of them once the run has ended: the same three, every file checked and as large as it may be
      retention.jsonl             whose token lists a retention policy has taken, which one and when; one line per file rewritten
      superseded/<n>/             what a resume from an older checkpoint took out of the run, or a killed writer left half done;
                                  nothing is deleted

Up to version 2 a sealed run had its tables in run.duckdb itself; such runs stay readable.

The checksum in a name is CRC-32 of the whole file: DuckDB reads flipped bits in a Parquet page without a murmur.
`since` (ms since 1970) is when a merged file starts to count for the views of run.duckdb: it is published a little
earlier and the files it covers are removed a little later, so that a view that lists a folder twice counts nothing twice.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from storage.errors import NewerStore, RunLocked, SegmentDamaged
from storage.schema import SCHEMA_VERSION, TABLES

MARKER = "store.json"
DATABASE = "run.duckdb"
LOCK = "run.lock"
MERGING = "merging.lock"
VOCABULARY_FILE = "vocabulary.parquet"
EMPTY_FILE = "empty.parquet"
SUPERSEDED = "superseded"
SEALED = "sealed"
TEMPORARY = ".tmp-"
DAMAGED = ".damaged"
"""Behind the name of a file that a writer found damaged and put out of DuckDB's way."""
LAST_IN_DATABASE = 2
"""The last schema version whose sealed runs have their tables in run.duckdb."""
VERSION_KEY = "groupscope.schema_version"
PRECISION_KEY = "groupscope.precision"

_NAME = re.compile(r"(?:s(?P<step>\d+)|c(?P<first>\d+)-(?P<last>\d+)-(?P<since>\d+))-(?P<crc>[0-9a-f]{8})\.parquet")


@dataclass(frozen=True, slots=True)
class Segment:
    """One Parquet file of one table, holding whole steps from `first` to `last`, both included."""

    path: Path
    first: int
    last: int
    merged: bool
    since_ms: int
    crc: str

    def contains(self, other: Segment) -> bool:
        return self.first <= other.first and other.last <= self.last

    def overlaps(self, first: int | None, last: int | None) -> bool:
        return (first is None or self.last >= first) and (last is None or self.first <= last)


def step_name(step: int) -> Callable[[str], str]:
    """The file name of a one-step segment, given its checksum."""
    return lambda crc: f"s{step:08d}-{crc}.parquet"


def merged_name(first: int, last: int, since_ms: int = 0) -> Callable[[str], str]:
    """The file name of a merged segment, given its checksum; `since_ms` 0 counts at once."""
    return lambda crc: f"c{first:08d}-{last:08d}-{since_ms}-{crc}.parquet"


def list_segments(folder: Path, suffix: str = "") -> list[Segment]:
    """Every segment in a table's folder, widest and then newest first among those that start together; empty if there is no folder.

    With a suffix those behind whose name it stands.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    found = [segment for name in names if name.endswith(suffix) and (segment := _parsed(folder, name, len(suffix)))]
    return sorted(found, key=lambda s: (s.first, -s.last, not s.merged, -s.since_ms, s.path.name))


def parse_segment(path: Path) -> Segment | None:
    """The segment that a file's name tells of; None if it is no segment's."""
    return _parsed(path.parent, path.name, 0)


def visible(segments: Iterable[Segment]) -> list[Segment]:
    """The segments that count: those not covered by a wider one, and of those that hold the same steps the latest. Takes the order of `list_segments`.

    Steps lie in two files of one width where one was thinned, a file was delivered twice, or a folder was copied over an older copy of itself.
    """
    kept: list[Segment] = []
    for segment in segments:
        if not (kept and kept[-1].contains(segment)):
            kept.append(segment)
    return kept


def rivals(segments: Sequence[Segment]) -> list[tuple[Segment, Segment]]:
    """Pairs of a segment that counts and one of exactly its steps with other bytes, which does not and was not replaced by it either.

    Takes the order of `list_segments`.
    """
    counting = {(s.first, s.last): s for s in visible(segments)}
    pairs = [(counting.get((s.first, s.last)), s) for s in segments]
    return [(kept, s) for kept, s in pairs if kept and kept.merged == s.merged and kept.since_ms == s.since_ms and kept.crc != s.crc]


def rival(kept: Segment, left: Segment) -> SegmentDamaged:
    return SegmentDamaged(
        f"{left.path} holds the same steps as {kept.path.name} and other bytes; only {kept.path.name} is read: move the one that is not wanted out of the run"
    )


def checksum(path: Path) -> str:
    """CRC-32 of a file's bytes as 8 hex digits."""
    crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            crc = zlib.crc32(chunk, crc)
    return f"{crc:08x}"


def check_segment(segment: Segment) -> None:
    """Raises SegmentDamaged unless the file is byte for byte what was written; FileNotFoundError if it is gone."""
    try:
        intact = checksum(segment.path) == segment.crc
    except FileNotFoundError:
        raise
    except OSError as error:
        raise damaged(segment.path, error.strerror or str(error)) from None
    if not intact:
        raise damaged(segment.path, "its bytes do not match the checksum in its name")


def set_aside(folder: Path) -> list[Segment]:
    """Damaged segments that a writer put out of the way, but for those whose steps are there: a good copy is back, or what a merge was made of."""
    there = visible(list_segments(folder))
    return [s for s in list_segments(folder, DAMAGED) if not _covered(s, there)]


def check_vocabulary(run_dir: Path) -> None:
    """Raises SegmentDamaged if the vocabulary is there and not as it was written; its fixed name has no room for a checksum, its pages do."""
    path = run_dir / VOCABULARY_FILE
    try:
        pq.read_table(path, page_checksum_verification=True)
    except FileNotFoundError:
        return
    except (OSError, pa.ArrowException) as error:
        why = " ".join(str(error).split())[:200]
        raise SegmentDamaged(f"{path} cannot be read ({why}); put a good copy back, or remove it to do without the text of tokens") from None


def damaged(path: Path, why: str) -> SegmentDamaged:
    """What is wrong with a segment, which a writer may have put aside since."""
    if path.name.endswith(DAMAGED):
        good = path.name.removesuffix(DAMAGED)
        return SegmentDamaged(f"{path} cannot be read ({why}); put a good copy back as {good}, or move it out of the run; all other steps are untouched")
    return SegmentDamaged(
        f"{path} cannot be read ({why}); put a good copy back under this name, or move it out of the run to do without its steps; all other steps are untouched"
    )


def missing(table: str, steps: Segment) -> SegmentDamaged:
    which = f"step {steps.first}" if steps.first == steps.last else f"steps {steps.first} to {steps.last}"
    return SegmentDamaged(
        f"{steps.path.parents[1] / table} has no segment with {which}, although steps/{steps.path.name} says it was recorded; put the file back; "
        "all other steps are untouched"
    )


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """The marker of a run: which schema wrote it, how traces were rounded, and where the truth lies."""

    schema_version: int
    precision: str
    sealed: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """One consistent look at a run: its marker (None before the first writer) and the segments that count, per table."""

    info: StoreInfo | None
    segments: Mapping[str, tuple[Segment, ...]]

    @property
    def sealed(self) -> bool:
        return self.info is not None and self.info.sealed

    @property
    def in_database(self) -> bool:
        """Whether an earlier version sealed the run: its tables are in run.duckdb and there is no segment."""
        return self.sealed and self.info.schema_version <= LAST_IN_DATABASE

    @property
    def last_step(self) -> int:
        """The newest whole step in segments, -1 if there is none: `steps` is published last, so it decides."""
        return max((s.last for s in self.segments["steps"]), default=-1)

    def gaps(self, table: str) -> list[Segment]:
        """Segments of `steps` whose step range the segments of `table` do not hold from end to end."""
        return [s for s in self.segments["steps"] if not _covered(s, self.segments[table])]


def read_layout(run_dir: Path, *, tries: int = 20) -> Layout:
    """Lists until two looks agree, so that no file moved between two folders or two halves of one listing."""
    look = _look(run_dir)
    for _ in range(tries):
        before, look = look, _look(run_dir)
        if look == before:
            break
    if look.sealed and not look.in_database and not (run_dir / SEALED).is_dir() and read_info(run_dir) == look.info:
        raise SegmentDamaged(f"{run_dir / SEALED} is missing, although {MARKER} says the run is there; put it back")
    return look


def read_info(run_dir: Path) -> StoreInfo | None:
    """The marker; where it is lost or torn, what the data themselves say; None if nothing was ever recorded.

    The folder of a sealed run appears when all of it is there and goes before more is recorded, so while it is there it holds everything.

    Raises NewerStore if a newer Groupscope wrote the run.
    """
    info = (
        _info_from_marker(run_dir / MARKER)
        or _info_from_database(run_dir / DATABASE)
        or _info_from_segments(run_dir / SEALED, sealed=True)
        or _info_from_segments(run_dir, sealed=False)
    )
    if info and info.schema_version > SCHEMA_VERSION:
        raise NewerStore(
            f"run {run_dir.name} was recorded with store version {info.schema_version}, but this Groupscope reads up to {SCHEMA_VERSION}; "
            "update Groupscope to open it (it was left as it is, and other runs stay readable)"
        )
    return info


def data_dir(run_dir: Path, info: StoreInfo | None) -> Path:
    """Where a run's folders of segments lie."""
    return run_dir / SEALED if info is not None and info.sealed else run_dir


def marker_text(info: StoreInfo) -> bytes:
    return (json.dumps(asdict(info)) + "\n").encode()


def open_error(path: Path, error: duckdb.Error) -> SegmentDamaged | RunLocked:
    """What is wrong when DuckDB cannot open or read a run.duckdb."""
    if "Could not set lock" in str(error):
        return RunLocked(f"{path} is open for writing in another program; close it there or open it with read_only=True")
    why = " ".join(str(error).split())[:200]
    return SegmentDamaged(f"{path} cannot be read ({why}); put a good copy back under this name; other runs are untouched")


def quoted(path: Path | str) -> str:
    """A path as an SQL string literal."""
    return "'" + str(path).replace("'", "''") + "'"


def is_database(path: Path) -> bool:
    """Whether a file begins as DuckDB's do. Raises OSError."""
    with path.open("rb") as file:
        return file.read(12)[8:] == b"DUCK"


@lru_cache(1 << 16)  # every query lists a run's files twice
def _parsed(folder: Path, name: str, suffix: int) -> Segment | None:
    match = _NAME.fullmatch(name, 0, len(name) - suffix)
    if match is None:
        return None
    merged = match["step"] is None
    first, last = (int(match["first"]), int(match["last"])) if merged else (int(match["step"]), int(match["step"]))
    return Segment(folder / name, first, last, merged, int(match["since"] or 0), match["crc"])


def _look(run_dir: Path) -> Layout:
    info = read_info(run_dir)
    root = data_dir(run_dir, info)
    return Layout(info, {table: tuple(visible(list_segments(root / table))) for table in TABLES})


def _covered(steps: Segment, segments: Iterable[Segment]) -> bool:
    """Whether segments, in the order of `list_segments`, hold all steps that this one holds."""
    next_step = steps.first
    for segment in segments:
        if segment.first <= next_step:
            next_step = max(next_step, segment.last + 1)
    return next_step > steps.last


def _info_from_marker(path: Path) -> StoreInfo | None:
    try:
        marker = json.loads(path.read_text(encoding="utf-8"))
        return StoreInfo(int(marker["schema_version"]), str(marker.get("precision")), bool(marker.get("sealed")))
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _info_from_database(path: Path) -> StoreInfo | None:
    """A run.duckdb with tables in it, as earlier versions sealed, always holds everything: it was made from all segments and is unmade before more come."""
    if not path.exists():
        return None
    try:
        with duckdb.connect(str(path), read_only=True) as database:
            if not database.execute("select 1 from duckdb_tables() where table_name = 'steps'").fetchone():
                return None
            version, precision = database.execute("select schema_version, precision from store_info").fetchone()
    except duckdb.Error as error:
        raise open_error(path, error) from error
    return StoreInfo(version, precision, True)


def _info_from_segments(root: Path, *, sealed: bool) -> StoreInfo | None:
    for segment in reversed(list_segments(root / "steps")):
        try:
            metadata = pq.read_metadata(segment.path).metadata or {}
            return StoreInfo(int(metadata[VERSION_KEY.encode()]), metadata[PRECISION_KEY.encode()].decode(), sealed)
        except (OSError, pa.ArrowException, KeyError):
            continue  # a damaged segment cannot tell; an older one may
    return None

"""A run's folder copied to a place elsewhere, pass after pass: what is whole, and only what is not there yet.

    <place>/
      index/<run_id>.json         which files count at one moment, and the small texts of the run's life; written last, so a reader needs nothing else
      runs/<run_id>/…             the files themselves, under the names they have at home: a copy of all of it is a store again

Segments never change and carry their checksum in their names, so a pass uploads those that are missing, `rollouts` before `groups` before
`steps`. A remote file goes only when a merged one that holds its steps has arrived: what is lost at home is not lost there.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from filelock import FileLock

from storage.errors import SegmentDamaged, StoreError
from storage.layout import (
    DATABASE,
    MARKER,
    SUPERSEDED,
    VOCABULARY_FILE,
    Layout,
    Segment,
    check_segment,
    checksum,
    list_segments,
    marker_text,
    parse_segment,
    read_layout,
)
from storage.places import Place, each
from storage.schema import TABLES
from storage.transfer import Progress, no_progress

INDEX = "index"
RUNS = "runs"
LOG = "log.txt"
LOG_TAIL_BYTES = 16_000
"""What of the log is in the index: as much as pages show. The whole log is a file like others."""
LARGEST_TEXT = 1 << 20
LOCK = "mirror.lock"
LOCK_PATIENCE_S = 600.0
SLOW_S = 30.0
"""The log and the plain copies of small texts, which the index has too, are written again after so long, and at the end."""
TRIES = 20

_TEXTS = re.compile(r"(?!mirror\.)[a-z]+\.jsonl?")  # mirror.json is about this place being away


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a run consists of at one moment: small files by name with their text, others by path with their bytes and CRC-32."""

    texts: dict[str, str] = field(default_factory=dict)
    files: dict[str, tuple[int, str]] = field(default_factory=dict)

    def encode(self) -> bytes:
        """JSON behind a line with its checksum."""
        content = json.dumps(asdict(self)).encode()
        return f"{zlib.crc32(content):08x}\n".encode() + content

    @classmethod
    def decode(cls, encoded: bytes) -> Manifest:
        """Raises ValueError unless every byte is as it was written."""
        said, _, content = encoded.partition(b"\n")
        if said != f"{zlib.crc32(content):08x}".encode():
            raise ValueError("its bytes do not match their checksum")
        parts = json.loads(content)
        return cls(parts["texts"], {path: (int(size), str(crc)) for path, (size, crc) in parts["files"].items()})


def index_name(run_id: str) -> str:
    return f"{run_id}.json"


@dataclass(frozen=True, slots=True)
class Pushed:
    """What one pass did; `damaged` says which files at home were not copied, for they are not as they were written."""

    files: int = 0
    bytes: int = 0
    removed: int = 0
    damaged: tuple[str, ...] = ()


class Mirror:
    """One run on its way to a place. `again` uploads what is there already, too: what lies there may be damaged.

    `progress` is told the bytes of the segments that are there, and of all, after each that it uploads.
    """

    def __init__(self, run_dir: Path, place: Place, *, again: bool = False, progress: Progress = no_progress) -> None:
        self._run_dir, self._place, self._progress = Path(run_dir), place, progress
        self._home = f"{RUNS}/{self._run_dir.name}"
        self._again = again
        self._there: dict[str, int] | None = None  # bytes of every segment in the place
        self._crcs: dict[str, tuple[tuple[int, int], str]] = {}  # files that change: what they were when last uploaded
        self._copied: dict[str, str] = {}
        self._copied_at = float("-inf")
        self._published = b""

    def push(self, now: float, *, final: bool = False) -> Pushed:
        """One pass at `now` (any clock, in s). Raises Unreachable when the place does not answer; the next pass goes on from there."""
        with FileLock(self._run_dir / LOCK, timeout=LOCK_PATIENCE_S):  # a later look at the run must not be overtaken by an earlier one
            try:
                return self._push(now, final)
            except BaseException:
                self._there = None  # what arrived before the error is not known
                raise

    def _push(self, now: float, final: bool) -> Pushed:
        if self._there is None:
            self._there = {} if self._again else self._place.sizes(self._home)
            self._again = False
        for _ in range(TRIES):
            before = dict(self._there)
            try:
                return self._pass(now, final, before)
            except FileNotFoundError:
                continue  # merged or sealed away while it was read: look again
        raise StoreError(f"{self._run_dir} changes faster than it can be copied; try again when the run has ended")

    def _pass(self, now: float, final: bool, before: dict[str, int]) -> Pushed:
        layout = read_layout(self._run_dir)
        files, damaged = self._upload_segments(layout)
        names = [VOCABULARY_FILE, *([DATABASE] if layout.in_database else [])]
        files |= {name: found for name in names if (found := self._upload_changing(name))}
        texts = self._texts()
        if layout.info:
            texts[MARKER] = marker_text(layout.info).decode()  # of the same look as the files: the run may have been sealed since
        if final or now - self._copied_at >= SLOW_S:
            self._copy_texts(texts)
            self._upload_changing(LOG)
            self._copied_at = now
        manifest = Manifest(texts, files).encode()
        if manifest != self._published:
            self._place.write(f"{INDEX}/{index_name(self._run_dir.name)}", manifest)
            self._published = manifest
        fresh = [path for path in files if self._there.get(path) != before.get(path)]
        return Pushed(len(fresh), sum(files[path][0] for path in fresh), self._remove_covered(files), tuple(damaged))

    def _upload_segments(self, layout: Layout) -> tuple[dict[str, tuple[int, str]], list[str]]:
        """Every segment that counts or was superseded, by its path from the run's folder; and what is wrong with those left out."""
        files: dict[str, tuple[int, str]] = {}
        damaged: list[str] = []
        shelves = [shelf for shelf in sorted((self._run_dir / SUPERSEDED).glob("*")) if shelf.name.isdecimal()]
        waves = [[segment for shelf in shelves for segment in list_segments(shelf / name)] for name in reversed(TABLES)]
        waves += [layout.segments[name] for name in reversed(TABLES)]
        total = sum(segment.path.stat().st_size for wave in waves for segment in wave)

        def upload(segment: Segment) -> None:
            path = segment.path.relative_to(self._run_dir).as_posix()
            size = segment.path.stat().st_size
            fresh = self._there.get(path) != size
            if fresh:
                try:
                    check_segment(segment)
                except SegmentDamaged as error:
                    damaged.append(str(error))
                    if path not in self._there:
                        return
                    files[path] = (self._there[path], segment.crc)  # a good copy is there, or a bad one is named when it is read
                    return
                self._place.upload(segment.path, f"{self._home}/{path}")
                self._there[path] = size
            files[path] = (size, segment.crc)
            if fresh:
                self._progress(sum(size for size, _ in list(files.values())), total)

        for wave in waves:
            each(upload, wave)
        return dict(sorted(files.items())), damaged

    def _upload_changing(self, name: str) -> tuple[int, str] | None:
        """A file that is replaced or grows: its bytes and checksum; None if it is not there."""
        path = self._run_dir / name
        try:
            status = path.stat()
            found = status.st_mtime_ns, status.st_size
            if self._crcs.get(name, ((), ""))[0] != found:
                crc = checksum(path)
                self._place.upload(path, f"{self._home}/{name}")
                self._crcs[name] = found, crc
                self._there[name] = status.st_size
        except FileNotFoundError:
            return None
        return found[1], self._crcs[name][1]

    def _texts(self) -> dict[str, str]:
        texts = {}
        for path in sorted(self._run_dir.glob("*.json*")):
            if _TEXTS.fullmatch(path.name) and path.stat().st_size <= LARGEST_TEXT:
                texts[path.name] = _without_secrets(path.name, path.read_text(encoding="utf-8", errors="replace"))
        log = self._run_dir / LOG
        if log.is_file():
            with log.open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - LOG_TAIL_BYTES))
                texts[LOG] = file.read().decode("utf-8", errors="replace")
        return texts

    def _copy_texts(self, texts: dict[str, str]) -> None:
        for name, text in texts.items():
            if name != LOG and self._copied.get(name) != text:
                self._place.write(f"{self._home}/{name}", text.encode())
                self._copied[name] = text

    def _remove_covered(self, files: dict[str, tuple[int, str]]) -> int:
        """Files of the place that were merged, sealed or superseded: those whose every step other files of their table hold."""
        holding: dict[str, list[Segment]] = {}
        for path in files:
            if segment := parse_segment(Path(path)):
                holding.setdefault(segment.path.parent.name, []).append(segment)
        removed = []
        for path in self._there.keys() - files.keys():
            segment = parse_segment(Path(path))
            if segment and not path.startswith(SUPERSEDED) and ranges_hold(holding.get(segment.path.parent.name, ()), segment):
                self._place.remove(f"{self._home}/{path}")
                removed.append(path)
        for path in removed:
            del self._there[path]
        return len(removed)


def _without_secrets(name: str, text: str) -> str:
    """A webhook's address lets whoever reads it post there."""
    if name != "config.json":
        return text
    try:
        config = json.loads(text)
        return json.dumps({key: value for key, value in config.items() if key != "webhook"}, indent=1) + "\n" if "webhook" in config else text
    except (ValueError, TypeError, AttributeError):
        return text


def ranges_hold(segments: Iterable[Segment], wanted: Segment) -> bool:
    """Whether segments hold, together, every step between a segment's first and last."""
    next_step = wanted.first
    for segment in sorted(segments, key=lambda s: s.first):
        if segment.first <= next_step:
            next_step = max(next_step, segment.last + 1)
    return next_step > wanted.last

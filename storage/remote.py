"""A store that lies elsewhere, read here: a cache folder laid out as a local store, which follows the indexes that mirrors write there.

    <cache>/
      place.json                  which place this is a cache of (cached.py)
      runs/<run_id>/
        index                     what was applied last, and its version
        config.json …             the small texts
        steps/ groups/ …          segments under their names: hulls, sparse files of the right size from 1970, until a query needs them

So whoever reads a store reads this one, and only two things are asked of them: `refresh` before looking, `fetch` before opening a segment.
A hull that was opened without that has no valid checksum and counts as damaged.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from storage.cached import url_of
from storage.errors import SegmentDamaged, StoreError
from storage.layout import SEALED, SUPERSEDED, TEMPORARY, Segment, checksum, parse_segment
from storage.mirror import DATABASE, INDEX, LOG, RUNS, VOCABULARY_FILE, Manifest, index_name, ranges_hold
from storage.places import Place, Unreachable, each, open_place
from storage.schema import TABLES

LIMIT_VARIABLE = "GROUPSCOPE_CACHE_GB"
DEFAULT_LIMIT_GB = 20.0
APPLIED = "index"
LOCK = "cache.lock"
FRESH_S = 1.0
"""How old what is known of a place may be when someone looks."""
REST_S = 10.0
"""How long a place that did not answer is left alone; what is here is shown meanwhile."""
WAIT_S = 3.0
"""How long someone who looks waits for a place that takes its time, where there is something to show."""
IN_USE_S = 600.0
"""A segment that a query asked for within this time is not evicted: the query may still be reading it."""
AGAIN_S = 60.0
"""How long a file that was damaged there is not asked for again."""

_RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_FOLDERS = re.compile(rf"(?:{SEALED}/|{SUPERSEDED}/\d+/)?({'|'.join(TABLES)})/[^/]+")
_TEXTS = re.compile(r"[a-z]+\.jsonl?")
_known: dict[Path, Remote] = {}
_knowing = threading.Lock()


def remote_of(root: Path) -> Remote | None:
    """What a folder is a cache of; None for a local store. Raises StoreError if what it takes to reach the place is not installed."""
    url = url_of(root)
    if url is None:
        return None
    root = root.resolve()
    with _knowing:
        if root not in _known:
            _known[root] = Remote(root, open_place(url), _limit_bytes())
        return _known[root]


class Remote:
    """One place and its cache; for many threads, and for many processes on one cache."""

    def __init__(self, root: Path, place: Place, limit_bytes: float) -> None:
        self._root, self._place, self._limit_bytes = root, place, limit_bytes
        self._starting = threading.Lock()
        self._looker: threading.Thread | None = None
        self._downloading = threading.Lock()
        self._next_look = float("-inf")
        self._versions: dict[str, str] = {}
        self._manifests: dict[str, Manifest] = {}
        self._bad: dict[Path, tuple[float, str]] = {}
        self._unreadable: dict[str, str] = {}
        self._failure = ""

    @property
    def url(self) -> str:
        return self._place.url

    @property
    def trouble(self) -> str:
        """Why what is shown may be old, in one sentence; empty while it is not."""
        stale = f"{self._failure}; what was read there before is shown" if self._failure else ""
        return stale or next(iter(self._unreadable.values()), "")

    def refresh(self, *, force: bool = False) -> None:
        """Raises Unreachable if the place does not answer and nothing of it is here; what is here is shown where it takes long to answer."""
        here = self._here()
        with self._starting:
            if force and self._looker:
                self._looker.join()
            due = force or time.monotonic() >= self._next_look
            if due and not (self._looker and self._looker.is_alive()):
                self._looker = threading.Thread(target=self._try_to_look, name="looking elsewhere", daemon=True)
                self._looker.start()
            looker = self._looker
        if looker:
            looker.join(WAIT_S if here and not force else None)
        if self._failure and not here and not self._here():
            raise Unreachable(self._failure)

    def _here(self) -> bool:
        return bool(self._manifests) or any((self._root / RUNS).glob(f"*/{APPLIED}"))

    def _try_to_look(self) -> None:
        try:
            self._look()
            self._failure, pause_s = "", FRESH_S
        except Exception as error:  # of any kind of file system; Unreachable most of the time
            self._failure, pause_s = str(error) or type(error).__name__, REST_S
        self._next_look = time.monotonic() + pause_s

    def fetch(self, paths: Iterable[Path]) -> None:
        """Have these files of the cache whole. Raises SegmentDamaged for the first that is not whole there, FileNotFoundError, Unreachable, DiskFull."""
        paths, now = list(paths), time.time()
        hulls = [path for path in paths if _is_hull(path)]
        for path in paths:
            with suppress(FileNotFoundError):
                if path not in hulls:
                    os.utime(path, ns=(int(now * 1e9), path.stat().st_mtime_ns))
        if hulls:
            with self._downloading:
                each(self._fetch, hulls)
                self._evict()

    def _look(self) -> None:
        there = {name.removesuffix(".json"): version for name, version in self._place.names(INDEX).items() if name.endswith(".json")}
        there = {run_id: version for run_id, version in there.items() if _RUN_ID.fullmatch(run_id)}
        each(lambda run_id: self._follow(run_id, there[run_id]), [run_id for run_id in there if self._versions.get(run_id) != there[run_id]])
        for folder in (self._root / RUNS).glob("*"):
            if folder.name not in there and (folder / APPLIED).exists():
                shutil.rmtree(folder, ignore_errors=True)
                for known in (self._versions, self._manifests, self._unreadable):
                    known.pop(folder.name, None)

    def _follow(self, run_id: str, version: str) -> None:
        """Bring a run's cache to what its index says."""
        run_dir = self._root / RUNS / run_id
        applied = _read_applied(run_dir)
        if applied is None or applied[0] != version:
            try:
                encoded = self._place.read(f"{INDEX}/{index_name(run_id)}")
                manifest = Manifest.decode(encoded)
                _check_names(manifest)
            except FileNotFoundError:
                return  # taken away since it was listed
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self._unreadable[run_id] = (
                    f"{self.url}/{INDEX}/{index_name(run_id)} cannot be read ({error}); what was read there before is shown, and the next pass of its mirror "
                    "mends it"
                )
                return
            run_dir.mkdir(parents=True, exist_ok=True)
            with FileLock(self._root / LOCK):
                before = _read_applied(run_dir)
                _apply(run_dir, before[1] if before else Manifest(), manifest)
                _replace(run_dir / APPLIED, version.encode() + b"\n" + encoded)
            applied = version, manifest
        self._unreadable.pop(run_id, None)
        self._versions[run_id], self._manifests[run_id] = applied

    def _fetch(self, path: Path) -> None:
        inside = path.relative_to(self._root / RUNS)
        run_id, name = inside.parts[0], inside.relative_to(inside.parts[0]).as_posix()
        at, why = self._bad.get(path, (float("-inf"), ""))
        if time.monotonic() < at + AGAIN_S:
            raise SegmentDamaged(why)
        size, crc = self._expected(run_id, name, path)
        beside = path.with_name(f"{TEMPORARY}{os.getpid()}-{threading.get_ident()}-{path.name}")
        there = f"{RUNS}/{inside.as_posix()}"
        try:
            for _ in range(2):  # what came over the network may be damaged by that
                self._place.download(there, beside, size)
                if beside.stat().st_size == size and checksum(beside) == crc:
                    os.replace(beside, path)
                    self._bad.pop(path, None)
                    return
            why = "its bytes do not match its checksum"
        except FileNotFoundError:
            self.refresh(force=True)
            if not path.exists():  # merged away there, and so here
                raise FileNotFoundError(2, "merged away", str(path)) from None
            why = "it is missing"
        finally:
            beside.unlink(missing_ok=True)
        why = (
            f"{self.url}/{there} cannot be read ({why}); where the run was trained, `python -m grpo_core mirror {run_id} {self.url} --again` "
            "puts a good copy there; all other steps are untouched"
        )
        self._bad[path] = time.monotonic(), why
        raise SegmentDamaged(why)

    def _expected(self, run_id: str, name: str, path: Path) -> tuple[int, str]:
        segment = parse_segment(path)
        if segment:
            return path.stat().st_size, segment.crc
        found = _read_applied(self._root / RUNS / run_id)
        if found is None or name not in found[1].files:
            raise FileNotFoundError(2, "gone", str(path))
        return found[1].files[name]

    def _evict(self) -> None:
        """Make hulls of what was not asked for longest, as long as there is more than the limit."""
        whole = []
        for path in (self._root / RUNS).rglob("*.parquet"):
            with suppress(FileNotFoundError):
                status = path.stat()
                if status.st_mtime_ns and not path.name.startswith(TEMPORARY):
                    whole.append((status.st_atime, status.st_size, path))
        total = sum(size for _, size, _ in whole)
        for asked_at, size, path in sorted(whole):
            if total <= self._limit_bytes or asked_at > time.time() - IN_USE_S:
                return
            _make_hull(path, size)
            total -= size


def _apply(run_dir: Path, before: Manifest, after: Manifest) -> None:
    """From one state of a run to the next, so that a look in between sees one of them, or the next one with fewer steps."""
    gone = [name for name in _present(run_dir) if name not in after.files]  # of `before`, and of one whose applying was cut short
    ranges = _ranges(after)
    hidden = {name for name in gone if (segment := parse_segment(Path(name))) and ranges_hold(ranges.get(Path(name).parent.name, []), segment)}
    for name in sorted((name for name in gone if name not in hidden), key=_readers_first):  # taken back to be trained again
        (run_dir / name).unlink(missing_ok=True)
    for folder in {(run_dir / name).parent for name in after.files} | ({run_dir / name for name in TABLES}):
        folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(after.files, key=_readers_first, reverse=True):
        if before.files.get(name) != after.files[name] or not (run_dir / name).exists():
            _make_hull(run_dir / name, after.files[name][0])
    for name, text in sorted(after.texts.items(), key=lambda item: item[0] == "config.json"):  # last: it makes the run appear
        if before.texts.get(name) != text or not (run_dir / name).exists():
            _replace(run_dir / name, text.encode())
    for name in before.texts.keys() - after.texts.keys():
        (run_dir / name).unlink(missing_ok=True)
    for name in sorted(hidden, key=_readers_first):
        (run_dir / name).unlink(missing_ok=True)
    if not any(name.startswith(f"{SEALED}/") for name in after.files):
        shutil.rmtree(run_dir / SEALED, ignore_errors=True)


def _present(run_dir: Path) -> list[str]:
    names = (path.relative_to(run_dir).as_posix() for path in run_dir.rglob("*.parquet"))
    return [name for name in names if _FOLDERS.fullmatch(name) and parse_segment(Path(name))]  # not what is being downloaded


def _ranges(manifest: Manifest) -> dict[str, list[Segment]]:
    ranges: dict[str, list[Segment]] = {}
    for name in manifest.files:
        if not name.startswith(SUPERSEDED) and (segment := parse_segment(Path(name))):
            ranges.setdefault(segment.path.parent.name, []).append(segment)
    return ranges


def _readers_first(name: str) -> int:
    """Readers look at `steps` first, so its files go first and come last."""
    table = Path(name).parent.name
    return -1 if name.startswith(SUPERSEDED) else list(TABLES).index(table) if table in TABLES else len(TABLES)


def _check_names(manifest: Manifest) -> None:
    """Raises ValueError unless every file is one that a run has: what lies elsewhere is anyone's, and must not write anywhere else here."""
    for name in manifest.files:
        known = name in (VOCABULARY_FILE, DATABASE) or (_FOLDERS.fullmatch(name) and parse_segment(Path(name)))
        if not known:
            raise ValueError(f"no run has a file {name[:80]!r}")
    for name, text in manifest.texts.items():
        if not (name == LOG or _TEXTS.fullmatch(name)) or not isinstance(text, str):
            raise ValueError(f"no run has a text {name[:80]!r}")


def _read_applied(run_dir: Path) -> tuple[str, Manifest] | None:
    try:
        version, _, encoded = (run_dir / APPLIED).read_bytes().partition(b"\n")
        return version.decode(), Manifest.decode(encoded)
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _is_hull(path: Path) -> bool:
    try:
        return path.stat().st_mtime_ns == 0
    except FileNotFoundError:
        return False


def _make_hull(path: Path, size: int) -> None:
    """Takes the place of what is there, which those who have it open go on reading."""
    beside = path.with_name(f"{TEMPORARY}{os.getpid()}-{threading.get_ident()}-hull")
    with beside.open("wb") as file:
        file.truncate(size)
    os.utime(beside, (0, 0))
    os.replace(beside, path)


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(f"{TEMPORARY}{os.getpid()}-{threading.get_ident()}")
    beside.write_bytes(content)
    os.replace(beside, path)


def _limit_bytes() -> float:
    given = os.environ.get(LIMIT_VARIABLE) or str(DEFAULT_LIMIT_GB)
    try:
        if float(given) > 0:
            return float(given) * 1e9
    except ValueError:
        pass
    raise StoreError(f"{LIMIT_VARIABLE}={given} is no size of a cache; give GB as a number above 0, like {DEFAULT_LIMIT_GB:g}")

"""Files appear whole or not at all: written beside, flushed to the disk, renamed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from storage.cached import check_local
from storage.errors import DiskFull, RunLocked, StoreError
from storage.layout import LOCK, MERGING, SUPERSEDED, TEMPORARY, checksum
from storage.schema import TABLES

MERGE_PATIENCE_S = 600.0
"""How long merging may take that a writer had begun in another process before it was killed; a quarter of a gigabyte takes seconds."""

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}


def publish(folder: Path, name: str | Callable[[str], str], write: Callable[[Path], None]) -> Path:
    """Makes a file in `folder` through `write(temporary path)`; a callable `name` is given the file's checksum.

    Returns the path once the file is safe on disk. On any failure nothing of it is left. Raises DiskFull.
    """
    temporary = folder / f"{TEMPORARY}{os.getpid()}-{name if isinstance(name, str) else 'segment'}"
    final = temporary
    try:
        with no_room_as_disk_full(folder):
            write(temporary)
            sync(temporary)
            final = folder / (name if isinstance(name, str) else name(checksum(temporary)))
            os.rename(temporary, final)
            sync(folder)
    except BaseException:
        temporary.unlink(missing_ok=True)
        if not isinstance(name, str):  # a fixed name may have replaced an older file, which must not vanish
            final.unlink(missing_ok=True)
        raise
    return final


def link(source: Path, target: Path) -> None:
    """A second name for a file where the file system allows it, else a copy. Raises DiskFull."""
    try:
        os.link(source, target)
    except OSError:
        with no_room_as_disk_full(target.parent):
            shutil.copy2(source, target)
            sync(target)


def sync(path: Path) -> None:
    """Flushes a file's bytes, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def no_room_as_disk_full(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise disk_full(folder, error.strerror or str(error)) from error


def is_no_room(error: Exception) -> bool:
    """Whether DuckDB failed for want of room; it has no error of its own for that."""
    return any(sign in str(error) for sign in ("No space left", "File too large", "quota"))


def disk_full(folder: Path, why: str) -> DiskFull:
    free = shutil.disk_usage(folder).free / 2**20
    return DiskFull(f"no room to write in {folder} ({why}, {free:.1f} MiB free); everything recorded before is safe; free some space and resume the run")


def lock_run(run_dir: Path) -> filelock.FileLock:
    """The run's one write lock, held until released or until the process ends. Raises RunLocked, and StoreError where nothing can be written."""
    check_local(run_dir.parent.parent)
    lock = filelock.FileLock(run_dir / LOCK, timeout=0, thread_local=False)
    try:
        lock.acquire()
        with merging(run_dir):
            return lock
    except filelock.Timeout:
        lock.release()
        raise RunLocked(f"run {run_dir.name} is being written by another process; stop that one first, or wait until it has ended") from None
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        raise StoreError(f"{run_dir} can only be read ({error.strerror}); make it writable, or copy the run to a store that is") from error


def merging(run_dir: Path) -> filelock.FileLock:
    """What a process holds that merges for the run's writer; whoever takes the run after that writer was killed waits for it."""
    return filelock.FileLock(run_dir / MERGING, timeout=MERGE_PATIENCE_S)


def sweep_temporary(run_dir: Path) -> None:
    """Removes what a killed writer left half-written; only for the holder of the lock."""
    for folder in (run_dir, run_dir / SUPERSEDED, *(run_dir / table for table in TABLES)):
        for leftover in folder.glob(f"{TEMPORARY}*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)

"""A folder anywhere that fsspec reaches: a bucket, a server, a disk. What is written there is seen whole or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import fsspec
from fsspec.core import url_to_fs
from fsspec.exceptions import FSTimeoutError

from storage.errors import StoreError

Item = TypeVar("Item")

AT_ONCE = 4
"""Transfers at a time: each waits for the network most of the time."""
CHUNK_BYTES = 8 << 20
"""What an upload holds in memory, twice at most; s3fs would hold up to 100 MB of each."""
LONGEST_WHY = 200
ANSWER_S = 60.0
SLOWEST_BYTES_PER_S = 100_000
"""A transfer may take ANSWER_S and its bytes at this pace; s3fs would wait for ever to be told that it may send."""
_NOT_CACHED = {"use_listings_cache": False, "skip_instance_cache": True}
_S3_PATIENCE = {"config_kwargs": {"connect_timeout": 5, "read_timeout": 10, "retries": {"max_attempts": 2, "mode": "standard"}}}
_S3_TRIES = 2
"""Of s3fs, each with botocore's: who mirrors or reads tries again by itself, and says meanwhile what is wrong."""
_S3 = {"s3", "s3a"}
_PUT_IS_ATOMIC = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "memory"}


class Unreachable(StoreError):
    """The place does not answer, or refuses; what lies there and here is as it was."""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder by URL; paths in it are relative, with slashes. Its methods raise Unreachable; FileNotFoundError for what is not there."""

    url: str
    fs: fsspec.AbstractFileSystem
    root: str

    def names(self, folder: str) -> dict[str, str]:
        """The files in a folder, each with something that changes whenever it is written anew; empty if there is no folder."""
        try:
            with _told(self.url, "list"):
                entries = self.fs.ls(self._path(folder), detail=True, **self._in_time())
        except FileNotFoundError:
            return {}
        return {entry["name"].rsplit("/", 1)[-1]: _version(entry) for entry in entries if entry["type"] == "file"}

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of every file below a folder, by its path from there."""
        try:
            with _told(self.url, "list"):
                found = self.fs.find(self._path(folder), detail=True, **self._in_time())
        except FileNotFoundError:
            return {}
        start = len(self.fs._strip_protocol(self._path(folder)).rstrip("/")) + 1
        return {path[start:]: int(entry["size"]) for path, entry in found.items()}

    def read(self, path: str) -> bytes:
        with _told(f"{self.url}/{path}", "read"):
            return self.fs.cat_file(self._path(path), **self._in_time())

    def download(self, path: str, target: Path, size: int) -> None:
        """`size` is how many bytes it should have."""
        with _told(f"{self.url}/{path}", "read"):
            self.fs.get_file(self._path(path), str(target), **self._in_time(size))

    def write(self, path: str, content: bytes) -> None:
        self._put(path, lambda there: self.fs.pipe_file(there, content, **self._in_time(len(content))))

    def upload(self, source: Path, path: str) -> None:
        """FileNotFoundError if the source is gone."""
        limit = self._in_time(os.stat(source).st_size)
        in_pieces = {"chunksize": CHUNK_BYTES, "max_concurrency": 1} if _protocol(self.fs) in _S3 else {}
        try:
            self._put(path, lambda there: self.fs.put_file(str(source), there, **in_pieces, **limit))
        except Unreachable:
            os.stat(source)  # was it the place that had nothing, or is the source gone meanwhile?
            raise

    def remove(self, path: str) -> None:
        """Also where it is gone already."""
        try:
            with _told(f"{self.url}/{path}", "remove"):
                self.fs.rm_file(self._path(path), **self._in_time())
        except FileNotFoundError:
            return

    def _put(self, path: str, write: Callable[[str], None]) -> None:
        final = self._path(path)
        with _told(f"{self.url}/{path}", "write", missing=False):
            if _protocol(self.fs) in _PUT_IS_ATOMIC:
                write(final)
                return
            folder, name = final.rsplit("/", 1)
            self.fs.makedirs(folder, exist_ok=True)
            beside = f"{folder}/.tmp-{os.getpid()}-{threading.get_ident()}-{name}"
            write(beside)
            self.fs.mv(beside, final)

    def _in_time(self, size: int = 0) -> dict[str, float]:
        return {"timeout": ANSWER_S + size / SLOWEST_BYTES_PER_S} if self.fs.async_impl else {}

    def _path(self, path: str) -> str:
        return f"{self.root}/{path}"


def open_place(url: str) -> Place:
    """Raises StoreError if it is no URL that fsspec knows, or the package for it is missing; says nothing yet about whether it answers."""
    url = url.rstrip("/")
    try:
        options = _S3_PATIENCE if url.split("://")[0] in _S3 else {}
        fs, root = url_to_fs(url, **_NOT_CACHED, **options)
    except ImportError as error:
        package = error.name or "of this kind of place"
        raise StoreError(f"cannot reach {url}: the package {package} is not installed; for s3:// URLs: pip install s3fs") from None
    except (ValueError, TypeError) as error:
        raise StoreError(f"cannot reach {url}: {_why(error)}; give a URL that fsspec knows, like s3://bucket/runs or file:///mnt/shared/runs") from None
    if _protocol(fs) in _S3:
        fs.retries = _S3_TRIES
    return Place(url, fs, root.rstrip("/"))


def each(work: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Does the work on every item, some at a time; raises the first error after all have ended."""
    items = list(items)
    if len(items) < 2:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(work, items))


class _told:
    """Every kind of file system raises errors of its own; they leave as Unreachable with one sentence, or as FileNotFoundError."""

    def __init__(self, url: str, doing: str, *, missing: bool = True) -> None:
        """`missing` is whether something may be missing there; where a bucket is, nothing can be written."""
        self._url, self._doing, self._missing = url, doing, missing

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, Exception) and not (self._missing and isinstance(error, FileNotFoundError)):
            raise Unreachable(f"cannot {self._doing} {self._url} ({_why(error)}); nothing is lost: check network, address and credentials") from error


def _why(error: BaseException) -> str:
    if isinstance(error, FSTimeoutError):
        return "it does not answer"
    return " ".join(str(error).split())[:LONGEST_WHY] or type(error).__name__


def _protocol(fs: fsspec.AbstractFileSystem) -> str:
    return fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]


def _version(entry: Mapping[str, object]) -> str:
    marks: Sequence[str] = ("ETag", "etag", "LastModified", "last_modified", "updated", "mtime", "created", "ino", "size")
    return " ".join(str(entry[mark]) for mark in marks if mark in entry)

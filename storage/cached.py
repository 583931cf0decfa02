"""Which folders are the caches of stores elsewhere. Loads nothing heavy, for whoever only handles paths; remote.py does the work."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

from storage.errors import StoreError

CACHE_VARIABLE = "GROUPSCOPE_CACHE"
PLACE_FILE = "place.json"


def is_url(text: object) -> bool:
    """Whether a store, a mirror or a catalogue is named by URL rather than by a folder."""
    return "://" in str(text)


def store_folder(text: str) -> Path:
    """The folder by which everything reads a store that is named by folder or URL; for a URL its cache. Raises StoreError."""
    if not is_url(text):
        return Path(text)
    url = text.rstrip("/")
    root = cache_home() / f"{re.sub(r'[^A-Za-z0-9]+', '-', url)[:60]}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not (root / PLACE_FILE).exists():
            beside = root / f".{PLACE_FILE}.{os.getpid()}"
            beside.write_text(json.dumps({"url": url}) + "\n", encoding="utf-8")
            beside.replace(root / PLACE_FILE)
    except OSError as error:
        raise StoreError(f"no cache for {url} can be made at {root} ({error.strerror}); name another folder with {CACHE_VARIABLE}") from None
    return root


def cache_home() -> Path:
    """Where caches lie: GROUPSCOPE_CACHE, or groupscope in the user's folder for caches."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "groupscope")


def url_of(root: Path) -> str | None:
    """The place that a folder is a cache of; None for a store here."""
    try:
        return str(json.loads((Path(root) / PLACE_FILE).read_text(encoding="utf-8"))["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def shown_root(root: Path) -> str:
    """How a store is called in messages: by its URL or its folder."""
    return url_of(root) or str(root)


def refresh(root: Path) -> None:
    """Look at the place again if this is the cache of one and the last look is a second old. Raises Unreachable if nothing of it is here."""
    if url_of(root) is not None:
        from storage.remote import remote_of

        remote_of(root).refresh()


def check_local(root: Path) -> None:
    """Raises StoreError where runs can be read but not started, stopped or written."""
    if url := url_of(root):
        raise StoreError(f"runs in {url} are only read from here; start, stop and change them on the machine that trains, in the store it mirrors")

"""A run on its way to a place elsewhere while it trains: a process beside it uploads what is whole, pass after pass.

The trainer starts it and closes its stdin at the end, and never waits for it in between. A place that does not answer is tried again, less and
less often; the run's log says so once, and mirror.json in its folder for as long as it lasts. The process outlives a trainer that was killed,
and one that has ended while the place was away, by an hour at most; `python -m grpo_core mirror RUN` does the rest.

    python -m grpo_core.watch.mirroring STORE RUN URL
"""

from __future__ import annotations

import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from grpo_core.beside import NICE, start_beside
from grpo_core.launch.folder import MIRROR_VARIABLE, RunFolder, replace_file
from storage.errors import StoreError
from storage.mirror import Mirror
from storage.places import open_place

PASS_EVERY_S = 2.0
SLOWEST_S = 60.0
"""How often a place that does not answer is tried in the end."""
LAST_S = 3600.0
"""How long after the run's end."""
PATIENCE_S = 20.0
"""How long the end of a run waits for its last files to arrive; the process goes on by itself after that."""

log = logging.getLogger(__name__)


class Mirroring:
    """The trainer's side: has the run mirrored to where GROUPSCOPE_MIRROR says, if it does."""

    def __init__(self, folder: RunFolder) -> None:
        self._process: subprocess.Popen | None = None
        url = os.environ.get(MIRROR_VARIABLE)
        if not url:
            return
        try:
            with folder.log.open("ab") as errors:
                self._process = start_beside(__name__, str(folder.store_root), folder.run_id, url, text=False, errors=errors)
        except OSError as error:
            log.warning("this run is not mirrored to %s: %s; when it has ended: python -m grpo_core mirror %s %s", url, error, folder.run_id, url)

    def close(self, patience_s: float = PATIENCE_S) -> None:
        """The run's last word is written; let it arrive, for at most this long."""
        if self._process is None:
            return
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            log.warning("not everything is mirrored yet; a process beside goes on with it")


def mirror_while(run_ended: Callable[[float], bool], folder: RunFolder, url: str, *, last_s: float = LAST_S) -> bool:
    """Pass after pass until the run has ended and everything is there; whether it is. `run_ended` waits so many seconds for the end."""
    mirror: Mirror | None = None
    ended_at, since, pause_s = None, 0.0, PASS_EVERY_S
    while ended_at is None or time.monotonic() < ended_at + last_s:
        if ended_at is None and run_ended(pause_s):
            ended_at = time.monotonic()
        elif ended_at is not None:
            time.sleep(pause_s)
        try:
            mirror = mirror or Mirror(folder.path, open_place(url))
            done = mirror.push(time.monotonic(), final=ended_at is not None)
        except Exception as error:  # whatever a file system of any kind may raise; the next pass tries again
            why = " ".join((str(error) if isinstance(error, StoreError) else f"{type(error).__name__}: {error}").split())[:500]
            if not since:
                since = time.time()
                log.warning("not mirrored: %s; training goes on, and so does recording here; it is tried again", why)
            _tell(folder, {"url": url, "since": since, "why": why})
            pause_s = min(2 * pause_s, SLOWEST_S)
            continue
        if since:
            log.info("mirroring works again; what was missing is in %s", url)
            since, pause_s = 0.0, PASS_EVERY_S
        _tell(folder, {"url": url, "since": time.time(), "why": done.damaged[0]} if done.damaged else None)
        if ended_at is not None:
            log.info("mirrored to %s", url)
            return not done.damaged
    log.warning("given up mirroring; when %s answers: python -m grpo_core mirror %s %s", url, folder.run_id, url)
    return False


def _tell(folder: RunFolder, trouble: dict[str, object] | None) -> None:
    """mirror.json says what is wrong for as long as something is; a full disk keeps that to the log."""
    try:
        if trouble:
            replace_file(folder.mirror, json.dumps(trouble) + "\n")
        else:
            folder.mirror.unlink(missing_ok=True)
    except OSError as error:
        log.info("%s cannot be written: %s", folder.mirror.name, error)


def _stdin_ended(seconds: float) -> bool:
    return bool(select.select([sys.stdin], [], [], seconds)[0]) and not sys.stdin.read(1)


def main(store_root: str, run_id: str, url: str) -> None:
    os.nice(NICE)
    logging.basicConfig(format="%(asctime)s %(message)s")  # to stderr, which is the run's log
    logging.getLogger("grpo_core").setLevel(logging.INFO)
    log.setLevel(logging.INFO)
    mirror_while(_stdin_ended, RunFolder.open(Path(store_root), run_id), url)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A query in a process of its own, so that it can be ended at any moment and takes nobody's memory.

    python -m storage.sql_process      the question as JSON on stdin; on stdout a line of JSON, then the rows as an Arrow stream
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import pyarrow as pa

from storage import errors
from storage.errors import QueryRefused, QueryStopped, StoreError
from storage.reader import Store
from storage.sql import MEMORY, THREADS, Answer, answer

PROJECT_ROOT = Path(__file__).resolve().parents[1]
ADDRESSES = 3 << 30
"""Bytes of address space the query may add to its process: MEMORY of DuckDB's own, what that does not count, and the answer."""
START_S = 120.0
"""How long the process may take to be up, on a machine that may be busy training."""
GRACE_S = 1.0
"""How long after its time a query may take to notice an interrupt."""
OVERDUE = 124


class RunningQuery:
    """A query on its way; for one thread at a time, and closed by the answer or by `cancel`."""

    def __init__(self, root: Path, run_ids: Sequence[str], text: str, *, limit: int, timeout_s: float) -> None:
        """Starts it over these runs of a store, for at most `limit` rows and `timeout_s` seconds. Raises StoreError."""
        self.timeout_s = timeout_s
        self._begun = time.monotonic()
        self._ended_by: StoreError | None = None
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - open until the answer is read
        question = {"root": str(root), "run_ids": list(run_ids), "text": text, "limit": limit, "timeout_s": timeout_s}
        with tempfile.TemporaryFile() as asked:
            asked.write(json.dumps(question).encode())
            asked.seek(0)
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", __name__],
                    cwd=PROJECT_ROOT,
                    stdin=asked,
                    stdout=self._said,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is for whoever waits
                )
            except OSError as error:
                raise StoreError(f"cannot start a process for the query ({error.strerror}); try again") from None

    @property
    def seconds(self) -> float:
        """How long ago it was started."""
        return time.monotonic() - self._begun

    def done(self) -> bool:
        """Whether `answer` will not wait. Ends a process that is far beyond its time."""
        if self._process.poll() is None and self.seconds > START_S + self.timeout_s + GRACE_S:
            self._end(QueryStopped(_too_long(self.timeout_s)))
        return self._process.poll() is not None

    def cancel(self) -> None:
        """End it, unless it is done; its answer is QueryStopped then."""
        if self._process.poll() is None:
            self._end(QueryStopped("the query was cancelled"))

    def _end(self, why: StoreError) -> None:
        self._ended_by = why
        self._process.kill()
        self._process.wait()

    def answer(self) -> Answer:
        """Its rows, once; waits for them. Raises what storage.sql.answer does."""
        try:
            while not self.done():
                self._wait(0.5)
        except BaseException:
            self.cancel()
            raise
        with self._said as said:
            if self._ended_by is not None:
                raise self._ended_by
            said.seek(0)
            return _read(said, self._process.returncode, self.timeout_s)

    def _wait(self, seconds: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)


def _read(said: IO[bytes], code: int, timeout_s: float) -> Answer:
    """What the process answered, or why it gave no answer."""
    if code == OVERDUE:
        raise QueryStopped(_too_long(timeout_s))
    if code != 0:
        raise QueryStopped(f"the query's process broke down (exit code {code}), most likely for want of memory; narrow it, or ask for fewer columns")
    head = json.loads(said.readline())
    if "error" in head:
        kind = getattr(errors, head["error"])
        raise kind(head["sentence"], head["place"]) if kind is QueryRefused else kind(head["sentence"])
    with pa.ipc.open_stream(said) as rows:
        return Answer(rows.read_all(), head["seconds"], head["cut"])


def _too_long(timeout_s: float) -> str:
    return f"the query took longer than its {timeout_s:g} s; narrow it, for instance with `where step between 40 and 50`, or give it more time"


def main() -> None:
    """Answer the one question on stdin."""
    question = json.load(sys.stdin)
    _bound(question["timeout_s"])
    running, overdue = [], threading.Event()

    def end() -> None:
        overdue.set()
        for database in running[-1:]:
            database.interrupt()
        time.sleep(GRACE_S)
        os._exit(OVERDUE)

    timer = threading.Timer(question["timeout_s"], end)
    timer.daemon = True
    timer.start()
    try:
        found = answer(Store(question["root"]), question["run_ids"], question["text"], limit=question["limit"], started=running.append)
        head = {"seconds": found.seconds, "cut": found.cut}
    except StoreError as error:
        sentence = _too_long(question["timeout_s"]) if overdue.is_set() else str(error)
        found, head = None, {"error": type(error).__name__, "sentence": sentence, "place": getattr(error, "place", "")}
    except MemoryError:
        found, head = None, {"error": "QueryStopped", "sentence": f"the query needs more than {MEMORY} of memory; narrow it", "place": ""}
    timer.cancel()
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n")
    if found is not None:
        with pa.ipc.new_stream(sys.stdout.buffer, found.table.schema) as rows:
            rows.write_table(found.table)
    sys.stdout.buffer.flush()


def _bound(timeout_s: float) -> None:
    """Let this process grow by ADDRESSES and work for little more than its time, where the system knows such bounds.

    The second is for a text on which the parser hangs, when nobody is left to end it.
    """
    try:
        import resource

        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + ADDRESSES, held + ADDRESSES))
        worked_s = int((START_S + timeout_s) * THREADS) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (worked_s, worked_s))
    except (ImportError, OSError, ValueError):
        return


if __name__ == "__main__":
    main()

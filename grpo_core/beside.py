"""Processes beside a training run or the app: Python modules of ours that talk over stdin and stdout and end when their stdin does."""

from __future__ import annotations

import fcntl
import os
import pickle
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

PROJECT_ROOT = Path(__file__).resolve().parents[1]
NICE = 10
"""How far a process beside a run stands back for the trainer; it lowers its own priority."""
START_S = 300.0
"""How long a process beside may take to be up: it imports torch, standing back on a machine that may be busy training."""
WIDE_BYTES = 1 << 20
"""What Linux lets anyone have in a pipe."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
"""glibc keeps so much for the next array; by default every temporary of a step is asked of the system anew, for a quarter of the time."""


def start_beside(module: str, *arguments: str, text: bool, errors: IO | int) -> subprocess.Popen:
    """Start `python -m module` on one thread, with pipes for stdin and stdout; its stderr goes to `errors`. Raises OSError."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=PROJECT_ROOT,
        env={**os.environ, **ONE_THREAD, **KEPT_MEMORY},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=text,
        start_new_session=True,  # Ctrl-C is for the trainer
    )


def widen(pipe: IO) -> None:
    """Let a pipe hold WIDE_BYTES at once, where the system knows how: a step of a megabyte in pieces of Linux's 64 KiB takes as long as its figures."""
    with suppress(AttributeError, OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, WIDE_BYTES)


class NoAnswer(Exception):
    """The process beside did not start, died or hung; it is ended then."""


class Companion:
    """A process beside this one that answers questions, one at a time, both pickled; its module calls `answer_questions`.

    For one thread at a time.
    """

    def __init__(self, module: str, *, patience_s: float) -> None:
        """Raises NoAnswer if it cannot be started. `patience_s` is how long an answer may take, once it is up."""
        self._patience_s = patience_s
        self._waited_s: float | None = None
        self._ready = False
        try:
            self.process = start_beside(module, text=False, errors=subprocess.DEVNULL)
        except OSError as error:
            raise NoAnswer(str(error)) from None
        for pipe in (self.process.stdin, self.process.stdout):
            widen(pipe)

    @property
    def ready(self) -> bool:
        """Whether it has loaded what it needs; never waits. Raises NoAnswer."""
        if not self._ready and select.select([self.process.stdout], [], [], 0)[0]:
            self._wait_until_ready()
        return self._ready

    def ask(self, question: object, *, patience_s: float | None = None) -> object:
        """Its answer; waits for it, `patience_s` at most where that is given, and for its start where that is not over. Raises NoAnswer."""
        if not self._ready:
            with self._impatient(START_S):
                self._wait_until_ready()
        with self._impatient(patience_s or self._patience_s):
            try:
                pickle.dump(question, self.process.stdin, protocol=5)
                self.process.stdin.flush()
                return self._read()
            except OSError as error:
                raise self._gone(error) from None

    def close(self) -> None:
        """End the process, at once where it does not end by itself."""
        try:
            self.process.stdin.close()
            self.process.wait(1.0)
        except (OSError, subprocess.TimeoutExpired):  # what was never sent cannot be flushed; or it hangs
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    @contextmanager
    def _impatient(self, seconds: float) -> Iterator[None]:
        """Ends the process after so long, and with it a read or a write that would never end."""

        def end() -> None:
            self._waited_s = seconds
            self.process.kill()

        impatience = threading.Timer(seconds, end)
        impatience.start()
        try:
            yield
        finally:
            impatience.cancel()

    def _wait_until_ready(self) -> None:
        self._ready = self._read() is None

    def _read(self) -> object:
        try:
            return pickle.load(self.process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise self._gone(error) from None

    def _gone(self, error: Exception) -> NoAnswer:
        self.close()
        if self._waited_s is not None:
            return NoAnswer(f"none within {self._waited_s:g} s")
        return NoAnswer(f"it ended with code {self.process.returncode}" if isinstance(error, EOFError | OSError) else str(error))


def answer_questions(answer: Callable[[object], object]) -> None:
    """The other side of a Companion: answers until there are no more questions, standing back for the trainer. An error of `answer` ends it."""
    os.nice(NICE)
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    said: object = None  # None first: it is up
    while True:
        pickle.dump(said, answers, protocol=5)
        answers.flush()
        try:
            question = pickle.load(asked)
        except EOFError:
            return
        said = answer(question)

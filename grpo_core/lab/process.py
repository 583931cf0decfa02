"""The laboratory's process: torch stays out of whoever asks, and a question that brings it down brings down nothing else."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from threading import Lock

from grpo_core.beside import ONE_THREAD
from grpo_core.config import RunConfig
from grpo_core.errors import GroupscopeError
from grpo_core.lab.batch import Push, RecordedBatch

PATIENCE_S = 60.0
"""A step of a million tokens takes a method about a second."""


class LabDown(GroupscopeError):
    """The laboratory gave no answer; asking again starts it anew."""


class Laboratory:
    """Answers in a process of its own, started with the first question. May be asked from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._pool: ProcessPoolExecutor | None = None

    def pushes(self, batch: RecordedBatch, configs: Sequence[RunConfig], *, after: bool) -> list[Push]:
        """push_of each config, in order. Raises LabDown."""
        with self._lock:
            self._pool = self._pool or ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_alone)
            try:
                return self._pool.submit(_pushes, batch, tuple(configs), after).result(PATIENCE_S)
            except (BrokenProcessPool, TimeoutError, OSError) as error:
                self._end()
                raise LabDown(f"the laboratory's process gave no answer ({type(error).__name__}); choose again to start it anew") from None

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        pool, self._pool = self._pool, None
        if pool:
            for process in list(pool._processes.values()):  # one that hangs would be waited for at exit; terminate_workers is Python 3.14
                process.kill()
            pool.shutdown(wait=False, cancel_futures=True)


def _alone() -> None:
    os.environ.update(ONE_THREAD)


def _pushes(batch: RecordedBatch, configs: Sequence[RunConfig], after: bool) -> list[Push]:
    from grpo_core.lab.push import push_of

    return [push_of(batch, config, after=after) for config in configs]

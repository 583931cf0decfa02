"""A process beside the recorder makes each step's tables: their many small figures would hold the trainer's interpreter for 2 to 3 % of a small step.

Whatever goes wrong with it, the recorder makes the tables itself from then on, and training notices nothing.

    python -m grpo_core.trace.table_process
"""

from __future__ import annotations

import logging
import os
import pickle
import select
import subprocess
import sys
import threading
from collections.abc import Mapping

import pyarrow as pa

from grpo_core.beside import NICE, start_beside
from grpo_core.trace.flat import FlatStep
from grpo_core.trace.tables import flat_tables

START_AFTER = 8
"""Steps after which the process is started: a shorter run is over before it would help."""
PATIENCE_S = 60.0
"""How long a step's tables may take the process before it is given up; a step of a million tokens takes it about a second."""

log = logging.getLogger(__name__)


class TableProcess:
    """Makes the tables of steps, in the process beside the run as soon as that is up. For one thread at a time."""

    def __init__(self, *, start_after: int = START_AFTER, patience_s: float = PATIENCE_S) -> None:
        self._until_start = start_after
        self._patience_s = patience_s
        self._process: subprocess.Popen | None = None
        self._up = False

    @property
    def up(self) -> bool:
        """Whether the process answers."""
        return self._up

    def tables(self, flat: FlatStep, *, missing_before: int = 0) -> dict[str, pa.Table]:
        """What `flat_tables` makes of the step. Raises what that raises."""
        self._start_in_time()
        if self._is_up():
            try:
                return self._ask(flat, missing_before)
            except (OSError, EOFError, pickle.UnpicklingError, pa.ArrowException) as error:
                self._give_up(f"{type(error).__name__}: {error}")
        return flat_tables(flat, missing_before=missing_before)

    def close(self) -> None:
        """End the process, at once where it does not end by itself."""
        process, self._process, self._up = self._process, None, False
        if process is None:
            return
        try:
            process.stdin.close()
            process.wait(1.0)
        except (OSError, subprocess.TimeoutExpired):  # what was never sent cannot be flushed; or it hangs
            process.kill()
            process.wait()
        process.stdout.close()

    def _start_in_time(self) -> None:
        self._until_start -= 1
        if self._until_start == -1:
            try:
                self._process = start_beside(__name__, text=False, errors=subprocess.DEVNULL)
            except OSError as error:
                self._give_up(str(error))

    def _is_up(self) -> bool:
        """It says None once it has loaded what it needs; nobody waits for that."""
        if self._process is None or self._up:
            return self._up
        if select.select([self._process.stdout], [], [], 0)[0]:
            try:
                self._up = pickle.load(self._process.stdout) is None
            except (EOFError, pickle.UnpicklingError) as error:
                self._give_up(f"it ended while it started ({type(error).__name__})")
        return self._up

    def _ask(self, flat: FlatStep, missing_before: int) -> dict[str, pa.Table]:
        impatience = threading.Timer(self._patience_s, self._process.kill)  # ends a read and a write that would never end
        impatience.start()
        try:
            pickle.dump((flat, missing_before), self._process.stdin, protocol=5)
            self._process.stdin.flush()
            return unpacked(pickle.load(self._process.stdout))
        finally:
            impatience.cancel()

    def _give_up(self, why: str) -> None:
        log.info("the process that helps the recorder is given up (%s); the recorder does its work", why)
        self.close()


def packed(tables: Mapping[str, pa.Table]) -> dict[str, bytes]:
    """Tables as Arrow streams: a tenth of the time that pickling their columns takes."""
    return {name: _stream(table) for name, table in tables.items()}


def unpacked(streams: Mapping[str, bytes]) -> dict[str, pa.Table]:
    """Tables over the bytes of these streams, without copying them."""
    return {name: pa.ipc.open_stream(stream).read_all() for name, stream in streams.items()}


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def main() -> None:
    """Answer every step on stdin with its tables on stdout until there are no more. An error ends it: the recorder will meet the same one."""
    os.nice(NICE)
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    answer: object = None
    while True:
        pickle.dump(answer, answers, protocol=5)
        answers.flush()
        try:
            flat, missing_before = pickle.load(asked)
        except EOFError:
            return
        answer = packed(flat_tables(flat, missing_before=missing_before))


if __name__ == "__main__":
    main()

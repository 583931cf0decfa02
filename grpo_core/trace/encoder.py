"""Steps become Parquet in a process beside the recorder: their many small figures would hold the trainer's interpreter for 2 to 3 % of a small step.

Whatever goes wrong with it, the recorder does its work itself from then on, and training notices nothing.

    python -m grpo_core.trace.encoder
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
from storage.segments import EncodedSteps, encode_steps

START_AFTER = 8
"""Steps after which the process is started: a shorter run is over before it would help."""
PATIENCE_S = 60.0
"""How long a step may take the process before it is given up; a step of a million tokens takes it about a second."""

log = logging.getLogger(__name__)


class StepEncoder:
    """Gathers steps and encodes them together, in the process beside the run as soon as that is up. For one thread at a time."""

    def __init__(self, precision: str, *, start_after: int = START_AFTER, patience_s: float = PATIENCE_S) -> None:
        self._precision = precision
        self._until_start = start_after
        self._patience_s = patience_s
        self._process: subprocess.Popen | None = None
        self._up = False
        self._batch: list[tuple[FlatStep, int]] = []
        self._beside = False  # whether the batch's tables are in the process; else they are in the next one
        self._tables: list[Mapping[str, pa.Table]] = []

    @property
    def up(self) -> bool:
        """Whether the process answers."""
        return self._up

    def add(self, flat: FlatStep, *, missing_before: int = 0) -> None:
        """Gather a step. Raises what `flat_tables` raises; the step is then left out."""
        self._start_in_time()
        if not self._batch:
            self._beside = self._is_up()
        step = (flat, missing_before)
        if self._beside:
            self._ask(step)
        if not self._beside:
            self._tables.append(flat_tables(flat, missing_before=missing_before))
        self._batch.append(step)

    def encoded(self) -> EncodedSteps:
        """All steps gathered since the last call. Raises what `encode_steps` raises; they are then left out."""
        try:
            answer = self._ask(self._precision) if self._beside else None
            return answer or encode_steps(self._tables, self._precision)
        finally:
            self._batch, self._tables = [], []

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
                self._give_up(error)

    def _is_up(self) -> bool:
        """It says None once it has loaded what it needs; nobody waits for that."""
        if self._process is None or self._up:
            return self._up
        if select.select([self._process.stdout], [], [], 0)[0]:
            try:
                self._up = pickle.load(self._process.stdout) is None
            except (EOFError, pickle.UnpicklingError) as error:
                self._give_up(error)
        return self._up

    def _ask(self, question: object) -> EncodedSteps | None:
        """The process's answer; None also where it has none, and then the batch's tables are made here."""
        impatience = threading.Timer(self._patience_s, self._process.kill)  # ends a read and a write that would never end
        impatience.start()
        try:
            pickle.dump(question, self._process.stdin, protocol=5)
            self._process.stdin.flush()
            return pickle.load(self._process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            self._give_up(error)
            return None
        finally:
            impatience.cancel()

    def _give_up(self, error: Exception) -> None:
        log.info("the process that helps the recorder is given up (%s: %s); the recorder does its work", type(error).__name__, error)
        self.close()
        if self._beside:
            self._beside = False
            self._tables = [flat_tables(flat, missing_before=missing_before) for flat, missing_before in self._batch]


def main() -> None:
    """Take in every step on stdin, and answer a precision with all of them encoded. An error ends it: the recorder will meet the same one."""
    os.nice(NICE)
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    answer: EncodedSteps | None = None
    tables: list[Mapping[str, pa.Table]] = []
    while True:
        pickle.dump(answer, answers, protocol=5)
        answers.flush()
        try:
            match pickle.load(asked):
                case str(precision):
                    answer, tables = encode_steps(tables, precision), []
                case flat, missing_before:
                    answer = None
                    tables.append(flat_tables(flat, missing_before=missing_before))
        except EOFError:
            return


if __name__ == "__main__":
    main()

"""Steps become Parquet, and small segments large ones, in a process beside the recorder: both would hold the trainer's interpreter, for 4 % of a small step.

Whatever goes wrong with it, the recorder does its work itself from then on, and training notices nothing.

    python -m grpo_core.trace.encoder
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from grpo_core.beside import Companion, NoAnswer, answer_questions
from grpo_core.trace.flat import FlatStep
from grpo_core.trace.tables import flat_tables
from storage.publish import MERGE_PATIENCE_S
from storage.segments import EncodedSteps, Merge, RunWriter, encode_steps

if TYPE_CHECKING:
    from storage.thinning import Retain

START_AFTER = 4
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
        self._process: Companion | None = None
        self._batch: list[tuple[FlatStep, int]] = []
        self._beside = False  # whether the batch's tables are in the process; else they are in the next one
        self._tables: list[Mapping[str, pa.Table]] = []

    @property
    def up(self) -> bool:
        """Whether the process answers; it is given up where it has ended."""
        try:
            return self._process is not None and self._process.ready
        except NoAnswer as why:
            self._give_up(why)
            return False

    def add(self, flat: FlatStep, *, missing_before: int = 0) -> None:
        """Gather a step. Raises what `flat_tables` raises; the step is then left out."""
        self._start_in_time()
        if not self._batch:
            self._beside = self.up
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

    def compact(self, writer: RunWriter) -> int:
        """`writer.compact()`, in the process if that is up. Raises what that raises."""
        merged = self._ask(writer.merge, patience_s=MERGE_PATIENCE_S) if self.up else None
        return writer.compact() if merged is None else merged

    def thin(self, question: Retain) -> tuple[str, ...]:
        """Old tokens are thinned in the process, and here are lines about it for the run's log; nothing happens while that is not up."""
        return self._ask(question, patience_s=MERGE_PATIENCE_S) or () if self.up else ()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process:
            process.close()

    def _start_in_time(self) -> None:
        self._until_start -= 1
        if self._until_start == -1:
            try:
                self._process = Companion(__name__, patience_s=self._patience_s)
            except NoAnswer as why:
                self._give_up(why)

    def _ask(self, question: object, *, patience_s: float | None = None) -> EncodedSteps | int | tuple[str, ...] | None:
        """The process's answer; None also where it has none, and then the batch's tables are made here."""
        try:
            return self._process.ask(question, patience_s=patience_s)
        except NoAnswer as why:
            self._give_up(why)
            return None

    def _give_up(self, why: NoAnswer) -> None:
        log.info("the process that helps the recorder is given up (%s); the recorder does its work", why)
        self._process = None
        if self._beside:
            self._beside = False
            self._tables = [flat_tables(flat, missing_before=missing_before) for flat, missing_before in self._batch]


class _Gathering:
    """The other side: takes in every step, answers a precision with all of them encoded, and merges or thins what it is told to."""

    def __init__(self) -> None:
        self._tables: list[Mapping[str, pa.Table]] = []

    def __call__(self, question: tuple[FlatStep, int] | str | Merge | Retain) -> EncodedSteps | int | tuple[str, ...] | None:
        if callable(question):
            return question()
        if isinstance(question, str):
            tables, self._tables = self._tables, []
            return encode_steps(tables, question)
        flat, missing_before = question
        self._tables.append(flat_tables(flat, missing_before=missing_before))
        return None


if __name__ == "__main__":
    import pandas  # noqa: F401  pyarrow does so at its first array, and a step would wait for it

    answer_questions(_Gathering())

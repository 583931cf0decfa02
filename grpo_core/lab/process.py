"""The laboratory's process: torch stays out of whoever asks, and a question that brings it down brings down nothing else.

    python -m grpo_core.lab.process
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

from grpo_core.beside import Companion, NoAnswer, answer_questions
from grpo_core.config import RunConfig
from grpo_core.errors import GroupscopeError
from grpo_core.lab.batch import Push, RecordedBatch

PATIENCE_S = 60.0
"""A step of a million tokens takes a method about a second."""


class LabDown(GroupscopeError):
    """The laboratory gave no answer; asking again starts it anew."""


class Laboratory:
    """Answers in a process of its own, started with the first question. May be asked from any thread."""

    def __init__(self, *, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._lock = Lock()
        self._process: Companion | None = None

    def pushes(self, batch: RecordedBatch, configs: Sequence[RunConfig], *, after: bool) -> list[Push]:
        """push_of each config, in order. Raises LabDown."""
        with self._lock:
            try:
                self._process = self._process or Companion(__name__, patience_s=self._patience_s)
                return self._process.ask((batch, tuple(configs), after))
            except NoAnswer as why:
                self._process = None
                raise LabDown(f"the laboratory's process gave no answer ({why}); choose again to start it anew") from None

    def close(self) -> None:
        """End the process."""
        with self._lock:
            process, self._process = self._process, None
            if process:
                process.close()


def main() -> None:
    """Answer pushes until there are no more questions."""
    from grpo_core.lab.push import push_of  # torch, which whoever asks does without

    def pushes(question: tuple[RecordedBatch, Sequence[RunConfig], bool]) -> list[Push]:
        batch, configs, after = question
        return [push_of(batch, config, after=after) for config in configs]

    answer_questions(pushes)


if __name__ == "__main__":
    main()

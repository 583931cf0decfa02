"""What the built-in tasks share: completions are judged by their rubric, and drawing keeps nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from grpo_core.records import Completion, Prompt, Reward
from grpo_core.tasks.base import Encoder
from grpo_core.tasks.scoring import Rubric


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A task whose questions are made here, in an encoder's tokens."""

    rubric: Rubric
    encoder: Encoder

    def judge(self, prompt: Prompt, completion: Completion) -> Reward:
        return self.rubric.judge(prompt, completion)

    def state(self) -> dict[str, object]:
        return {}  # every draw is fresh: the generator's state says it all

    def restore(self, state: Mapping[str, object]) -> None:
        return None

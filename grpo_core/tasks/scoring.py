"""score: groups → scored groups. Reward functions are user code, so whatever they raise becomes data here, never a 0."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from grpo_core.records import Completion, Group, Prompt, Reward, ScoredGroup
from grpo_core.tasks.base import Task

RewardFunction = Callable[[Prompt, Completion], float]
OVERLONG = "overlong"
_LONGEST_FAILURE = 300


@dataclass(frozen=True, slots=True)
class Part:
    """One summand of the reward: `function` times `weight`."""

    name: str
    function: RewardFunction
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Rubric:
    """How completions of a task are judged: the parts, the first of which decides `correct`, and the overlong penalty.

    `correct_at` is in units of the first part, unweighted; `max_new_tokens` and `overlong_buffer` are tokens, a buffer of 0 is off.
    """

    parts: tuple[Part, ...]
    correct_at: float
    max_new_tokens: int
    overlong_buffer: int = 0

    def judge(self, prompt: Prompt, completion: Completion) -> Reward:
        """Σ weight · part, then the overlong penalty. Never raises: a part that fails is NaN and the failure says why."""
        values: dict[str, float] = {}
        failures: list[str] = []
        for part in self.parts:
            try:
                values[part.name] = as_number(part.function(prompt, completion))
            except Exception as error:  # reward functions are user code
                values[part.name] = math.nan
                failures.append(describe(part.name, error))
        total = sum(part.weight * values[part.name] for part in self.parts)
        weights = {part.name: part.weight for part in self.parts}
        if self.overlong_buffer:
            values[OVERLONG] = overlong_penalty(len(completion.token_ids), self.max_new_tokens, self.overlong_buffer)
            total += values[OVERLONG]
            weights[OVERLONG] = 1.0
        if failures:
            return Reward(parts=values, total=math.nan, correct=None, failure="; ".join(failures), weights=weights)
        return Reward(parts=values, total=total, correct=values[self.parts[0].name] >= self.correct_at, weights=weights)


def score(groups: Sequence[Group], task: Task) -> list[ScoredGroup]:
    """Every completion judged, in order. A judge that raises gives a failed reward (total NaN) with its message."""
    return [ScoredGroup(group=group, rewards=tuple(_judge(task, group.prompt, c) for c in group.completions)) for group in groups]


def overlong_penalty(length: int, max_new_tokens: int, buffer: int) -> float:
    """min(0, (max_new_tokens − buffer − length) / buffer): 0 up to the buffer, −1 at the limit; lengths in tokens.

    DAPO's soft overlong punishment (arXiv:2503.14476, Eq. 13).
    """
    return min(0.0, (max_new_tokens - buffer - length) / buffer)


def as_number(value: object) -> float:
    """A reward function's return value as a float.

    Raises TypeError for anything but a number (texts and None included) and ValueError for NaN and infinities.
    """
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():  # a 0-d tensor or array
        value = item()
    if not isinstance(value, numbers.Real):
        raise TypeError(f"the reward function returned {value!r}, not a number")
    if not math.isfinite(value):
        raise ValueError(f"the reward function returned {value!r}, not a finite number")
    return float(value)


def describe(part: str, error: Exception) -> str:
    """`part: ExceptionType: message` on one line of bounded length."""
    text = " ".join(f"{part}: {type(error).__name__}: {error}".split())
    return text if len(text) <= _LONGEST_FAILURE else f"{text[: _LONGEST_FAILURE - 1]}…"


def _judge(task: Task, prompt: Prompt, completion: Completion) -> Reward:
    try:
        return task.judge(prompt, completion)
    except Exception as error:  # a task's judge may be user code too
        return Reward(parts={}, total=math.nan, correct=None, failure=describe("judge", error))

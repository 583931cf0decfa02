"""Which prompts come next, and which of their groups teach: the prompt sampler and the data rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from grpo_core import streams
from grpo_core.records import Prompt, ScoredGroup
from grpo_core.tasks.base import Task


@dataclass(frozen=True, slots=True)
class Draw:
    """A prompt as drawn: its score and the probability of drawing it, None where the sampler draws all alike."""

    prompt: Prompt
    score: float | None = None
    probability: float | None = None


def pool_of(task: Task, seed: int, size: int) -> np.ndarray:
    """Indexes of `size` training prompts, all of them for 0, sorted; the same ones for the same seed."""
    of_pool = streams.of_run(seed, streams.POOL)
    return np.sort(of_pool.choice(task.size, min(size or task.size, task.size), replace=False))


class PromptSampler:
    """Draws a task's training prompts. Same task and seed, same prompts; `state` and `restore` continue bit for bit.

    `pool` are the prompts that `due` wants tried, `trial_rollouts` how often each.
    """

    pool: np.ndarray = np.empty(0, "i8")
    trial_rollouts = 0

    def __init__(self, task: Task, seed: int) -> None:
        self.task = task
        self._rng = streams.of_run(seed, streams.PROMPTS)

    def next_prompts(self, n: int) -> list[Prompt]:
        """The next `n` prompts."""
        return [drawn.prompt for drawn in self.draw(n)]

    def draw(self, n: int) -> list[Draw]:
        """The next `n` prompts with what made the sampler draw them."""
        return [Draw(prompt) for prompt in self.task.draw(self._rng, n)]

    def due(self, step: int) -> bool:
        """Whether prompts are to be scored with rollouts of their own before this step's are drawn."""
        return False

    def observe(self, groups: Sequence[ScoredGroup], *, refresh: bool = False) -> None:
        """What came of prompts; a sampler that draws all alike does not care."""

    def of(self, prompt: Prompt) -> Mapping[str, float]:
        """What the sampler remembers of a prompt, by name, for the record."""
        return {}

    def state(self) -> dict[str, object]:
        """Everything the next draw depends on, JSON-able (the generator's integers have up to 128 bits)."""
        return {"rng": self._rng.bit_generator.state, "task": self.task.state()}

    def restore(self, state: Mapping[str, object]) -> None:
        """Continue where `state` was taken; TaskError if the task's data is not the same."""
        self.task.restore(state["task"])
        self._rng.bit_generator.state = state["rng"]


@dataclass(frozen=True, slots=True)
class DataRule:
    """Which scored groups enter the loss. `reject` gives the reason to drop a group, or an empty string to keep it.

    `refill`: the loop samples further prompts until the step has as many kept groups as it wants. `helps`: hopeless groups get a
    stored success. `demonstrates`: every group gets the task's worked answer as one more row.
    """

    name: str
    refill: bool
    reject: Callable[[ScoredGroup], str]
    helps: bool = False
    demonstrates: bool = False


def keep(rule: DataRule, scored: ScoredGroup) -> tuple[bool, str]:
    """(whether the group enters the loss, the reason if it does not). A group with fewer than two scored rollouts never does, or one of one with none."""
    rollouts = len(scored.rewards)
    if (count := _scored(scored)) < min(2, rollouts):
        return False, f"only {count} of {rollouts} rollouts could be scored, so there is nothing to " + ("compare" if rollouts > 1 else "learn from")
    reason = rule.reject(scored)
    return not reason, reason


def _scored(scored: ScoredGroup) -> int:
    return sum(not reward.failed for reward in scored.rewards)


def _no_objection(scored: ScoredGroup) -> str:
    return ""


def _without_signal(scored: ScoredGroup) -> str:
    """DAPO's dynamic sampling (arXiv:2503.14476, Eq. 11) on total rewards, as verl's `filter_groups`: equal rewards carry no signal."""
    totals = {total for total in scored.totals.tolist() if not math.isnan(total)}
    if len(totals) > 1:
        return ""
    correct = sum(bool(reward.correct) for reward in scored.rewards)
    return f"all rewards are {totals.pop():g} ({correct} of {_scored(scored)} correct), so no rollout is better than another"


DATA_RULES: dict[str, DataRule] = {
    rule.name: rule
    for rule in (
        DataRule("uniform", refill=False, reject=_no_objection),
        DataRule("dynamic", refill=True, reject=_without_signal),
        DataRule("tracked", refill=False, reject=_no_objection),
        DataRule("replay_success", refill=False, reject=_no_objection, helps=True),
        DataRule("demonstrated", refill=False, reject=_no_objection, demonstrates=True),
        DataRule("hinted", refill=False, reject=_no_objection),
    )
}
"""The data rules by the name methods use (`Method.sampler`)."""

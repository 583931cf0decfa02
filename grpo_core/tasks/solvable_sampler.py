"""The task filter: only prompts that the start model solves at least once are drawn (ARPO, arXiv:2505.16282).

The paper keeps the tasks that an agent completes in at least one of 16 rollouts; its code has them as a list made beforehand. Here the
rollouts are made before the first step, of a pool of the task's training prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from grpo_core.config import RunConfig
from grpo_core.errors import TaskError
from grpo_core.records import Prompt, ScoredGroup
from grpo_core.tasks.base import Task
from grpo_core.tasks.sampler import Draw, PromptSampler, pool_of


class SolvableSampler(PromptSampler):
    """Draws all solvable prompts of the pool alike, without replacement while there are enough."""

    def __init__(self, task: Task, config: RunConfig) -> None:
        super().__init__(task, config.seed)
        self.pool = pool_of(task, config.seed, config.filter_pool)
        self.trial_rollouts = config.filter_rollouts
        self.solved: np.ndarray | None = None
        """How many of its trial rollouts each prompt of the pool solved; None before they are made."""
        self._place = {task.at(int(index)).hash: place for place, index in enumerate(self.pool)}

    def draw(self, n: int) -> list[Draw]:
        """Raises TaskError where no prompt of the pool was solved."""
        solvable = self.pool[self.solved > 0]
        if not len(solvable):
            raise TaskError(
                f"the start model solved none of {len(self.pool)} prompts in {self.trial_rollouts} rollouts each, so prompt_sampler=solvable has nothing "
                "to draw; raise filter_rollouts or filter_pool, or set prompt_sampler=uniform"
            )
        return [Draw(self.task.at(int(index))) for index in self._rng.choice(solvable, n, replace=n > len(solvable))]

    def due(self, step: int) -> bool:
        return self.solved is None

    def observe(self, groups: Sequence[ScoredGroup], *, refresh: bool = False) -> None:
        """Count the solved rollouts of the trial; training rollouts filter nothing."""
        if refresh:
            self.solved = np.zeros(len(self.pool), "i8")
            for group in groups:
                self.solved[self._place[group.group.prompt.hash]] = sum(bool(reward.correct) for reward in group.rewards)

    def of(self, prompt: Prompt) -> Mapping[str, float]:
        """trial_solved: how many of its trial rollouts were correct."""
        place = self._place.get(prompt.hash)
        return {} if place is None or self.solved is None else {"trial_solved": float(self.solved[place])}

    def state(self) -> dict[str, object]:
        return {**super().state(), "solved": None if self.solved is None else self.solved.tolist()}

    def restore(self, state: Mapping[str, object]) -> None:
        super().restore(state)
        if state.get("solved") is not None:
            self.solved = np.array(state["solved"], "i8")

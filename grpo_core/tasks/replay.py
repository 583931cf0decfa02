"""Rollouts that outlive their step: stored successes for hopeless groups (ARPO), and a buffer of older policies' groups for any method.

What is replayed keeps the log-probs it was written with, so that ratios are taken against the policy that wrote it, and says how
old it is. All randomness comes from the generator that is handed in.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from grpo_core.records import POLICY, REPLAY, Completion, Group, Prompt, Reward, ScoredGroup

STORED_PER_PROMPT = 8
WORTH_STORING = 0.1
"""A rollout is a success, and stored, where its first reward part is above this."""
HOPELESS_STD, HOPELESS_MEAN = 0.05, 0.2


def first_part(reward: Reward) -> float:
    """The reward part that decides whether a rollout is correct; NaN where scoring failed."""
    return math.nan if reward.failed else float(next(iter(reward.parts.values()), math.nan))


def hopeless(scored: ScoredGroup) -> bool:
    """Whether the group's scores are alike and low: standard deviation (n) below 0.05 and mean below 0.2 (ARPO's released code)."""
    values = np.array([value for value in map(first_part, scored.rewards) if not math.isnan(value)])
    return bool(len(values)) and float(values.std()) < HOPELESS_STD and float(values.mean()) < HOPELESS_MEAN


class Successes:
    """The last successes of every prompt, a PromptMemory (ARPO, arXiv:2505.16282, `replay_buffer.py` of dvlab-research/ARPO).

    The released code recomputes the old log-probs of what it inserts, which makes its ratio 1; here they are those it was written with.
    """

    def __init__(self) -> None:
        self._stored: dict[str, deque[tuple[int, Completion, Reward]]] = defaultdict(lambda: deque(maxlen=STORED_PER_PROMPT))

    def help(self, scored: ScoredGroup, step: int, rng: np.random.Generator) -> ScoredGroup:
        """The group with one stored success in the place of its first rollout, if it is hopeless and there is one; else as it is."""
        stored = self._stored.get(scored.group.prompt.hash)
        if not stored or not hopeless(scored):
            return scored
        when, completion, reward = stored[int(rng.integers(len(stored)))]
        group = replace(scored.group, completions=(replace(completion, source=REPLAY, age=step - when), *scored.group.completions[1:]))
        return replace(scored, group=group, rewards=(reward, *scored.rewards[1:]))

    def observe(self, scored: ScoredGroup, step: int) -> None:
        """Store the successes among rollouts as they were sampled."""
        for completion, reward in zip(scored.group.completions, scored.rewards, strict=True):
            if completion.source == POLICY and first_part(reward) > WORTH_STORING:
                self._stored[scored.group.prompt.hash].append((step, completion, reward))

    def of(self, prompt: Prompt) -> Mapping[str, float]:
        """stored: how many successes are kept; newest_success: the step of the newest."""
        stored = self._stored.get(prompt.hash)
        return {"stored": float(len(stored)), "newest_success": float(stored[-1][0])} if stored else {"stored": 0.0}

    def state(self) -> Mapping[str, object]:
        return {"stored": {key: list(found) for key, found in self._stored.items()}}

    def restore(self, state: Mapping[str, object]) -> None:
        self._stored.clear()
        for key, found in state["stored"].items():
            self._stored[key].extend(found)


class ReplayBuffer:
    """The newest groups of earlier steps, whole, with the log-probs they were written with."""

    def __init__(self, size: int, max_age: int) -> None:
        self._max_age = max_age
        self._stored: deque[tuple[int, ScoredGroup]] = deque(maxlen=size)

    def draw(self, n: int, step: int, rng: np.random.Generator) -> list[ScoredGroup]:
        """At most `n` different groups written no more than the greatest age ago, each as likely; fewer where there are not so many."""
        fitting = [(when, scored) for when, scored in self._stored if 0 < step - when <= self._max_age]
        chosen = rng.choice(len(fitting), min(n, len(fitting)), replace=False) if fitting else []
        return [_replayed(fitting[place][1], step - fitting[place][0]) for place in chosen]

    def observe(self, groups: Sequence[ScoredGroup], step: int) -> None:
        """Store groups as they were sampled."""
        self._stored.extend((step, replace(group, sampling_round=0)) for group in groups)

    def of(self, prompt: Prompt) -> Mapping[str, float]:
        """Nothing: the buffer holds groups, whatever their prompt."""
        return {}

    def state(self) -> Mapping[str, object]:
        return {"stored": list(self._stored)}

    def restore(self, state: Mapping[str, object]) -> None:
        """A fork with a smaller buffer keeps the newest."""
        self._stored.clear()
        self._stored.extend(state["stored"])


def _replayed(scored: ScoredGroup, age: int) -> ScoredGroup:
    completions = tuple(replace(completion, source=REPLAY, age=age) for completion in scored.group.completions)
    return replace(scored, group=Group(prompt=scored.group.prompt, completions=completions))

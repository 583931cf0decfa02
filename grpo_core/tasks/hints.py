"""Difficulty-aware augmentation (DeepVideo-R1, arXiv:2506.07464): the beginning of the worked answer for prompts harder than the recent ones."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from grpo_core.records import Prompt, ScoredGroup

WINDOW = 100
"""Groups whose mean rewards say what is usual: the paper's appendix has 100 samples, its text the most recent steps."""


class RecentRewards:
    """Mean rewards of the last groups that were sampled without a hint, a PromptMemory."""

    def __init__(self) -> None:
        self._means: deque[float] = deque(maxlen=WINDOW)

    def gap(self, scored: ScoredGroup) -> float:
        """How far the group's mean reward lies below that of the window: ΔR, in reward; 0 while one of them is unknown."""
        own = _mean(scored)
        return 0.0 if not self._means or math.isnan(own) else math.fsum(self._means) / len(self._means) - own

    def observe(self, groups: Sequence[ScoredGroup]) -> None:
        """Take in groups as they were sampled; those of which nothing could be scored say nothing."""
        self._means.extend(mean for mean in map(_mean, groups) if not math.isnan(mean))

    def of(self, prompt: Prompt) -> Mapping[str, float]:
        """Nothing: the window holds rewards, whatever their prompt."""
        return {}

    def state(self) -> Mapping[str, object]:
        return {"means": list(self._means)}

    def restore(self, state: Mapping[str, object]) -> None:
        self._means.clear()
        self._means.extend(state["means"])


def hint_length(gap: float, strength: float, answer_tokens: int) -> int:
    """Tokens of the hint: ⌊min(1, strength · ΔR) · answer_tokens⌋, at least one token of the answer left to write; 0 where ΔR ≤ 0.

    `gap` is ΔR in reward, `strength` the share of the answer per reward. The paper says in proportion to ΔR and prints no factor.
    """
    return max(0, min(math.floor(min(1.0, strength * gap) * answer_tokens), answer_tokens - 1))


def _mean(scored: ScoredGroup) -> float:
    totals = scored.totals[~np.isnan(scored.totals)]
    return float(totals.mean()) if len(totals) else math.nan

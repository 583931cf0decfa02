"""Variance-aware sampling: prompts whose rollouts disagree are drawn more often (VAS, MMR1, arXiv:2509.21268 Alg. 1).

A step's prompts are ⌊λB⌋ drawn with replacement in proportion to their score, from a pool of the task's training prompts, and the rest
drawn as any run draws them. The score is VPS = α·p(1−p) + β·(1 − self-BLEU). As in the paper the diversity adds with a positive
sign and without pads; released code adds self-BLEU itself, counts pads, and min-max normalises, which takes the lowest prompt out for ever.
Ours: a pool, because scoring every prompt of a large task costs more than training on it; scores from training rollouts between
refreshes; and a prompt without a score yet counts as if it had the highest one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from grpo_core.config import RunConfig
from grpo_core.measures.diversity import diversity
from grpo_core.measures.variance import outcome_variance, promotion_score
from grpo_core.records import Prompt, ScoredGroup
from grpo_core.tasks.base import Task
from grpo_core.tasks.sampler import Draw, PromptSampler, pool_of

HIGHEST_VARIANCE = 0.25


class VarianceSampler(PromptSampler):
    """Same task, seed and observations, same prompts; `state` and `restore` continue bit for bit."""

    def __init__(self, task: Task, config: RunConfig) -> None:
        super().__init__(task, config.seed)
        self._config = config
        self.pool = pool_of(task, config.seed, config.vas_pool)
        self.trial_rollouts = config.vas_rollouts
        self.scores = np.full(len(self.pool), np.nan)  # of the pool's prompts, NaN without a score
        self._place = {task.at(int(index)).hash: place for place, index in enumerate(self.pool)}

    def draw(self, n: int) -> list[Draw]:
        """Weighted draws first, each with its score and probability; the uniform rest with neither."""
        weighted = int(self._config.vas_mixture * n)
        weights = self.weights()
        places = self._rng.choice(len(self.pool), weighted, p=weights / weights.sum())
        chosen = [Draw(self.task.at(int(self.pool[p])), _known(self.scores[p]), float(weights[p] / weights.sum())) for p in places]
        return [*chosen, *super().draw(n - weighted)]

    def weights(self) -> np.ndarray:
        """The score of every prompt of the pool, the highest possible one where there is none yet; all equal if all are 0."""
        highest = self._config.vas_alpha * HIGHEST_VARIANCE + self._config.vas_beta
        weights = np.where(np.isnan(self.scores), highest, self.scores)
        return weights if weights.sum() > 0 else np.ones_like(weights)

    def due(self, step: int) -> bool:
        """Whether the whole pool is to be scored with fresh rollouts before this step's prompts are drawn."""
        return bool(self._config.vas_refresh) and step % self._config.vas_refresh == 0

    def observe(self, groups: Sequence[ScoredGroup], *, refresh: bool = False) -> None:
        """Score the prompts of these groups: training rollouts (unless vas_reuse is off), or those of a refresh."""
        if not refresh and self._config.vas_reuse == "no":
            return
        for group in groups:
            place, score = self._place.get(group.group.prompt.hash), promotion(group, self._config)
            if place is not None and score is not None:
                old = self.scores[place]
                keep = 0.0 if np.isnan(old) else self._config.vas_momentum
                self.scores[place] = score if not keep else keep * old + (1 - keep) * score

    def of(self, prompt: Prompt) -> Mapping[str, float]:
        """vps: its score now, if it has one."""
        place = self._place.get(prompt.hash)
        return {} if place is None or np.isnan(self.scores[place]) else {"vps": float(self.scores[place])}

    def state(self) -> dict[str, object]:
        return {**super().state(), "scores": [_known(score) for score in self.scores]}

    def restore(self, state: Mapping[str, object]) -> None:
        super().restore(state)
        if "scores" in state:  # a fork from a run that drew uniformly has none
            self.scores = np.array([np.nan if score is None else score for score in state["scores"]], "f8")


def promotion(group: ScoredGroup, config: RunConfig) -> float | None:
    """VPS of a group's scored rollouts; None with fewer than two of them."""
    verdicts = [reward.correct for reward in group.rewards if not reward.failed]
    if len(verdicts) < 2:
        return None
    ids = [c.token_ids for c in group.group.completions]
    lengths = np.array([len(i) for i in ids])
    alike = diversity(np.concatenate(ids), lengths, np.zeros(len(ids), "i8"), 1)
    variance = outcome_variance(np.array([sum(map(bool, verdicts))]), np.array([len(verdicts)]))
    return float(promotion_score(variance, 1 - alike.self_bleu_P, alpha=config.vas_alpha, beta=config.vas_beta)[0])


def _known(score: float) -> float | None:
    return None if np.isnan(score) else float(score)

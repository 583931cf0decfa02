"""How much signal a prompt's outcomes carry: outcome variance, variance promotion score, and the share of groups without any."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def outcome_variance(correct: Array, size: Array) -> Array:
    """p(1−p) with p the share of correct rollouts: at most 0.25 (OVS, MMR1, arXiv:2509.21268). NaN where nothing was scored."""
    p = _share(correct, size)
    return p * (1 - p)


def outcome_variance_unbiased(correct: Array, size: Array) -> Array:
    """n/(n−1)·p(1−p): outcome_variance without its downward bias from few rollouts. NaN with fewer than two."""
    size = np.asarray(size, "f8")
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(size >= 2, outcome_variance(correct, size) * size / (size - 1), np.nan)


def promotion_score(variance: Array, diversity: Array, *, alpha: float = 0.8, beta: float = 0.2) -> Array:
    """VPS = α·OVS + β·TDS (MMR1 Eq. 3) with TDS = 1 − self-BLEU, so that more diverse prompts score higher.

    Released code adds self-BLEU itself, which turns the sign of the second part. A diversity that is NaN counts as 0.
    """
    return alpha * np.asarray(variance, "f8") + beta * np.nan_to_num(diversity)


def draw_probability(score: Array, *, batch: int, weighted: float = 0.5) -> Array:
    """Probability of each prompt (N,) in one draw of a batch: ⌊λB⌋ of B draws ∝ score, the others uniform (MMR1 Alg. 1, λ = `weighted`).

    All draws are uniform where no score is above 0. A score that is NaN counts as 0.
    """
    score = np.clip(np.nan_to_num(np.asarray(score, "f8")), 0, None)
    uniform = np.full(len(score), 1 / max(len(score), 1))
    if not score.sum():
        return uniform
    share = int(batch * weighted) / batch
    return share * score / score.sum() + (1 - share) * uniform


def expected_tied(p: Array, size: int) -> Array:
    """p^G + (1−p)^G: the share of groups of G rollouts, each correct with probability p on its own, that are all right or all wrong."""
    p = np.asarray(p, "f8")
    return p**size + (1 - p) ** size


def pass_at_k(correct: Array, size: Array, k: int) -> Array:
    """1 − C(n−c, k)/C(n, k): probability that at least one of k rollouts drawn from a group's n is correct (arXiv:2107.03374 Eq. 1).

    NaN where a group has fewer than k rollouts.
    """
    correct, size = np.asarray(correct, "f8"), np.asarray(size, "f8")
    missed = np.ones_like(size)
    for i in range(k):
        missed = missed * np.clip((size - correct - i) / np.maximum(size - i, 1), 0, 1)
    return np.where(size >= k, 1 - missed, np.nan)


def half_of(size: int) -> int:
    """The k of pass@k that is told beside pass@1: half the group, at least 2. pass@size is one coin per group, so twice as noisy."""
    return max(size // 2, 2)


def mean_pass_at_k(step: Array, correct: Array, size: Array, groups: Array, k: int) -> tuple[Array, Array]:
    """The steps (S,) and the mean of pass_at_k over each one's groups; NaN where none has k rollouts.

    Groups are given by rows (N,): `groups` of them in `step` have `correct` among `size` rollouts.
    """
    steps, of = np.unique(np.asarray(step, "i8"), return_inverse=True)
    chance = pass_at_k(correct, size, k)
    weight = np.where(np.isnan(chance), 0.0, np.asarray(groups, "f8"))
    with np.errstate(invalid="ignore"):
        return steps, np.bincount(of, np.nan_to_num(chance) * weight, len(steps)) / np.bincount(of, weight, len(steps))


def _share(correct: Array, size: Array) -> Array:
    correct, size = np.asarray(correct, "f8"), np.asarray(size, "f8")
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(size > 0, correct / size, np.nan)

"""Rewards that look at all rollouts of a group, or at several groups: pure functions of plain numbers and tokens, one per paper.

Where a paper's number could not be obtained, the function takes it as an argument and its default says "assumed".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

Array = np.ndarray

ENTITY_SHARE = 0.3
"""α of E-GRPO: what naming the most entities of the group is worth to a wrong rollout."""


def tool_efficiency(calls: int, fewest: int | None, *, smooth: float = 1.0) -> float:
    """r_tool of OTC-GRPO (arXiv:2504.14870): 1 at the `fewest` calls any correct rollout of the group needed, less for more and for fewer.

    With n = fewest and m = calls: 1 if both are 0; cos(mπ/(2m + c)) if n = 0; sin(fπ/(2n)) with f = 2nm/(m + n) otherwise. `fewest` None
    (no rollout is correct) gives 0. c is assumed 1: the paper sets no default, a port has 1.
    """
    if fewest is None:
        return 0.0
    if fewest == 0:
        return 1.0 if calls == 0 else math.cos(calls * math.pi / (2 * calls + smooth))
    return math.sin(2 * fewest * calls / (calls + fewest) * math.pi / (2 * fewest))


def otc(calls: Sequence[int], correct: Sequence[bool], *, alpha: float = 1.0, smooth: float = 1.0) -> list[float]:
    """α · r_tool · r_correct for each rollout of a group (OTC-GRPO, arXiv:2504.14870); all 0 where none is correct. α assumed 1."""
    fewest = min((m for m, right in zip(calls, correct, strict=True) if right), default=None)
    return [alpha * tool_efficiency(m, fewest, smooth=smooth) * right for m, right in zip(calls, correct, strict=True)]


def entity_shares(matched: Sequence[float]) -> list[float]:
    """γ̂: the share of entities each rollout of a group names, over the highest of the group; 0 where no rollout names any."""
    highest = max(matched, default=0.0)
    return [share / highest if highest > 0 else 0.0 for share in matched]


def e_grpo(matched: Sequence[float], correct: Sequence[bool], void: Sequence[bool], *, alpha: float = ENTITY_SHARE) -> list[float]:
    """1 for a correct rollout, α·γ̂ for a wrong one, 0 for one cut at the token limit (`void`) (E-GRPO, arXiv:2510.24694).

    `matched` are shares of the entities found by exact match. As in the paper a cut rollout also leaves the loss, but not the
    group's mean; who trains sees to that.
    """
    shares = entity_shares(matched)
    return [0.0 if cut else 1.0 if right else alpha * share for share, right, cut in zip(shares, correct, void, strict=True)]


def consistency(similarity: Array, form_of: Sequence[int]) -> Array:
    """How alike each rollout is to those that answer the same question in its other forms (N,): the mean of `similarity` (N, N) over them.

    r_ij = 1/((n−1)g) · Σ_{u≠i} Σ_m sim(o_ij, o_um) of PS-GRPO (Con-RAG, arXiv:2510.04392); NaN where there is no other form. `form_of`
    says which form each rollout answers. The paper also has a cheaper version over sampled forms, which is not made here.
    """
    other = np.not_equal.outer(np.asarray(form_of), np.asarray(form_of))
    with np.errstate(invalid="ignore"):
        return (similarity * other).sum(1) / np.where(other.any(1), other.sum(1), np.nan)


def bleu_2(candidate: Sequence[int], reference: Sequence[int]) -> float:
    """BLEU over 1- and 2-grams of two token lists with its brevity penalty, from 0 to 1; 0 where either is empty or they share no token.

    A count of no common 2-gram is taken as 0.1 (Chen & Cherry 2014, method 1), as in measures/diversity.py.
    """
    if not len(candidate) or not len(reference):
        return 0.0
    precisions = []
    for order in (1, 2):
        mine, theirs = (Counter(zip(*(list(ids)[k:] for k in range(order)), strict=False)) for ids in (candidate, reference))
        common = sum((mine & theirs).values())
        if order == 1 and not common:
            return 0.0
        precisions.append((common or 0.1) / max(sum(mine.values()), 1))
    brevity = min(1.0, math.exp(1 - len(reference) / len(candidate)))
    return brevity * math.sqrt(precisions[0] * precisions[1])


def contrast(used: Sequence[bool], correct: Sequence[bool], *, margin: float = 0.1) -> int:
    """M of GCPO (GeometryZero, arXiv:2506.07160): +1 where rollouts with an auxiliary step are right more often than those without, by more
    than `margin`; −1 where less often; else 0, and 0 where the group lacks either kind. The margin is assumed 0.1: the paper's was not read.
    """
    with_step, without = ([right for right, u in zip(correct, used, strict=True) if bool(u) is kind] for kind in (True, False))
    if not with_step or not without:
        return 0
    gap = sum(with_step) / len(with_step) - sum(without) / len(without)
    return 1 if gap > margin else -1 if gap < -margin else 0


def gcpo(totals: Sequence[float], used: Sequence[bool], correct: Sequence[bool], *, weight: float = 1.0, margin: float = 0.1) -> list[float]:
    """total + weight · M · [an auxiliary step was used] (GCPO, arXiv:2506.07160). Its length reward could not be obtained and is left out."""
    sign = contrast(used, correct, margin=margin)
    return [total + weight * sign * bool(u) for total, u in zip(totals, used, strict=True)]


def cosine_weight(step: int, steps: int) -> float:
    """w(t) = ½(1 + cos(πt/T)): from 1 at the first step to 0 after the last (Datarus, arXiv:2508.13382; the form is assumed)."""
    return 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))


def scheduled(structure: Sequence[float], outcome: Sequence[float], weight: float) -> list[float]:
    """w · structure + (1 − w) · outcome for each rollout: first the form counts, then the answer (Datarus, arXiv:2508.13382)."""
    return [weight * s + (1 - weight) * o for s, o in zip(structure, outcome, strict=True)]


def data_hardness(unlike: float, mean_unlike: float) -> float:
    """α^D = σ(δ)/σ(δ̄) of DR-IRL's GRPO-S (arXiv:2503.18991): above 1 where the response is less like the demonstration than on average.

    δ = 1 − W with W a similarity of sentence embeddings. Sources disagree on whether a large α means hard; taken literally here.
    """
    return _sigmoid(unlike) / _sigmoid(mean_unlike)


def model_hardness(rewards: Sequence[float], gaps: Sequence[float], *, spread: float) -> float:
    """α^M = σ(mean R over rollouts with (gap − mean gap)² ≤ spread)/σ(mean R) of the same paper; 1 where no rollout is that near."""
    near = np.square(np.asarray(gaps, "f8") - np.mean(gaps)) <= spread
    if not near.any():
        return 1.0
    rewards = np.asarray(rewards, "f8")
    return _sigmoid(float(rewards[near].mean())) / _sigmoid(float(rewards.mean()))


def scaled_advantages(rewards: Sequence[float], hardness: float) -> Array:
    """α · (R − mean)/std of GRPO-S, std over n; 0 where all rewards are equal."""
    rewards = np.asarray(rewards, "f8")
    return np.zeros_like(rewards) if np.ptp(rewards) == 0 else hardness * (rewards - rewards.mean()) / rewards.std()


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))

"""How alike the completions of a group are, and how much each repeats itself: n-gram counts over unpadded token ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein

Array = np.ndarray

BLEU_ORDER = 3
"""Self-BLEU over n-grams of 1 to 3 tokens with equal weights, as MMR1's code (arXiv:2509.21268, `self_bleu_123`)."""
_SMOOTHING = 0.1
"""Chen & Cherry 2014, method 1: a precision with no match counts this many matches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """Of groups (P,) and rollouts (R,), NaN where there is nothing to compare.

    `self_bleu_P` is the mean over the group's rollouts of BLEU against the others: 1 for identical ones. `distinct_P` is the share
    of different 3-grams among all of the group's. `repetition_R` is the share of a rollout's 3-grams that it has had before.
    """

    self_bleu_P: Array
    distinct_P: Array
    repetition_R: Array


def diversity(ids_N: Array, length_R: Array, group_R: Array, groups: int) -> Diversity:
    """Self-BLEU, distinct-3 and repetition in one pass over the tokens. Pads must not be among `ids_N`.

    MMR1's released code counts pads and adds self-BLEU with a positive sign; the paper's trajectory diversity is 1 − self-BLEU.
    """
    length_R, group_R = np.asarray(length_R, "i8"), np.asarray(group_R, "i8")
    rollout_N = np.repeat(np.arange(len(length_R)), length_R)
    position_N = np.arange(len(rollout_N)) - (np.cumsum(length_R) - length_R)[rollout_N]
    size_P = np.bincount(group_R, minlength=groups)
    log_precision_R, matched_R = np.zeros(len(length_R)), np.zeros(len(length_R))
    gram_N = first_N = np.asarray(ids_N, "i8")
    for order in range(1, BLEU_ORDER + 1):
        if order > 1:
            gram_N = _longer(gram_N, first_N)
        here = np.flatnonzero(position_N >= order - 1)
        table = _count(gram_N[here], rollout_N[here], group_R, groups)
        matches_R = np.bincount(table.rollout, weights=np.minimum(table.count, table.most_elsewhere), minlength=len(length_R))
        total_R = np.maximum(length_R - order + 1, 1)
        log_precision_R += np.log(np.where(matches_R > 0, matches_R, _SMOOTHING) / total_R) / BLEU_ORDER
        matched_R = matches_R if order == 1 else matched_R
    bleu_R = np.where(matched_R > 0, np.exp(log_precision_R) * _brevity(length_R, group_R), 0.0)
    grams_R = np.maximum(length_R - BLEU_ORDER + 1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return Diversity(
            self_bleu_P=np.where(size_P >= 2, np.bincount(group_R, weights=bleu_R, minlength=groups) / size_P, np.nan),
            distinct_P=table.different_P / np.bincount(group_R, weights=grams_R, minlength=groups),
            repetition_R=1 - np.bincount(table.rollout, minlength=len(length_R)) / grams_R,
        )


def mean_pairwise_distance(sequences: list[Array]) -> float:
    """Mean over pairs of the squared Levenshtein distance divided by the longer length: MMR1's appendix estimator of trajectory diversity.

    NaN with fewer than two sequences; two empty sequences are at distance 0.
    """
    rows = [np.asarray(s).tolist() for s in sequences]
    pairs = [(a, b) for i, a in enumerate(rows) for b in rows[i + 1 :]]
    return float(np.mean([Levenshtein.normalized_distance(a, b) ** 2 for a, b in pairs])) if pairs else float("nan")


@dataclass(frozen=True, slots=True)
class _Counts:
    """One entry per different (n-gram, rollout): its count, the most any other rollout of the group has; per group, its different n-grams."""

    rollout: Array
    count: Array
    most_elsewhere: Array
    different_P: Array


def _longer(gram_N: Array, first_N: Array) -> Array:
    """Ids of n-grams one token longer, ending at the same token; at a rollout's first tokens they reach into the one before and are not used."""
    return np.unique(np.roll(gram_N, 1) * (first_N.max(initial=0) + 1) + first_N, return_inverse=True)[1]


def _count(gram: Array, rollout: Array, group_R: Array, groups: int) -> _Counts:
    rollouts = len(group_R)
    key, count = np.unique((group_R[rollout] * (gram.max(initial=0) + 1) + gram) * rollouts + rollout, return_counts=True)
    if not len(key):
        return _Counts(key, count, count, np.zeros(groups, "i8"))
    shared, owner = np.divmod(key, rollouts)
    first = np.flatnonzero(np.diff(shared, prepend=-1))
    spread = np.diff(first, append=len(key))  # in how many rollouts each n-gram is
    most = np.repeat(np.maximum.reduceat(count, first), spread)
    alone = np.repeat(np.add.reduceat(count == most, first), spread) == 1
    next_most = np.repeat(np.maximum.reduceat(np.where(count == most, 0, count), first), spread)
    most_elsewhere = np.where((count == most) & alone, next_most, most)
    return _Counts(owner, count, most_elsewhere, np.bincount(group_R[owner[first]], minlength=groups))


def _brevity(length_R: Array, group_R: Array) -> Array:
    """BLEU's penalty for a rollout shorter than the closest length among the others of its group, the shorter one on a tie."""
    penalty_R = np.ones(len(length_R))
    for start, stop in _stretches(group_R):
        length = length_R[start:stop]
        if stop - start < 2 or (length == length[0]).all():
            continue
        gap = np.abs(length[:, None] - length[None, :]).astype("f8") + 1e-9 * length[None, :]
        np.fill_diagonal(gap, np.inf)
        closest = length[gap.argmin(1)]
        penalty_R[start:stop] = np.where(length >= closest, 1.0, np.exp(1 - closest / np.maximum(length, 1)))
    return penalty_R


def _stretches(group_R: Array) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(group_R, prepend=-1, append=-2))
    return list(zip(edges[:-1].tolist(), edges[1:].tolist()))

"""Pushes of several methods beside one another: numpy only.

Losses of different methods differ in size, and an optimizer that normalises gradients takes most of that away again, so pushes
are compared as multiples of the method's own average: push / mean |push| over the tokens of the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grpo_core.lab.batch import Array, Push, RecordedBatch
from grpo_core.measures.conflicts import conflicts


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a method does with the whole batch; None where it pushes nothing.

    Shares are of Σ|push|: `down_correct` pushes tokens of correct rollouts down, `down_shared` pushes down tokens that stand at
    the same place of a correct and a wrong rollout of the group. `groups` and `tokens` are effective counts, (Σm)² / Σm² of
    Σ|push| per group and of |push| per token: how many would carry as much if all weighed alike. `clipped` is the share of loss
    tokens that a bound holds, None where the method has no bounds.
    """

    down_correct: float | None
    down_shared: float | None
    groups: float | None
    tokens: float | None
    clipped: float | None


def mean_push(push: Push) -> float:
    """The method's average |push| over the tokens of the step, 1/nat; 0 for a step without tokens."""
    return float(np.abs(push.push_N).mean()) if len(push.push_N) else 0.0


def relative(push: Push) -> Array:
    """The push of every token as a multiple of the method's average |push|, (N,); all 0 for a method that pushes nothing."""
    mean = mean_push(push)
    return push.push_N / mean if mean else np.zeros_like(push.push_N)


def shared_tokens(batch: RecordedBatch) -> Array:
    """Tokens (N,) at the same place, from the start or the end, of a correct and a wrong rollout of their group."""
    found = conflicts(batch.token_ids_N, batch.length_R, batch.group_R, batch.verdict_R)
    return found.run | found.mid


def summary(batch: RecordedBatch, push: Push, shared_N: Array, *, clips: bool) -> Summary:
    """The batch under one method; `shared_N` as of shared_tokens, `clips` whether the method has bounds."""
    size_N = np.abs(push.push_N)
    total = float(size_N.sum())
    down_N = np.where(push.push_N < 0, size_N, 0.0)
    correct_N = (batch.verdict_R > 0)[batch.rollout_N]
    taken_N = (push.taken_R & ~np.isnan(batch.reward_R))[batch.rollout_N]
    held = float((push.clipped_N != 0).sum() / taken_N.sum()) if clips and taken_N.any() else None
    if not total > 0:
        return Summary(down_correct=None, down_shared=None, groups=None, tokens=None, clipped=held)
    by_group = np.bincount(batch.group_R[batch.rollout_N], weights=size_N)
    return Summary(
        down_correct=float(down_N[correct_N].sum() / total),
        down_shared=float(down_N[shared_N].sum() / total),
        groups=_effective(by_group),
        tokens=_effective(size_N),
        clipped=held,
    )


def opposed(pushes: Sequence[Push]) -> float:
    """Share of the tokens that at least one method makes likelier and another less likely."""
    stacked = np.stack([push.push_N for push in pushes])
    return float(((stacked > 0).any(0) & (stacked < 0).any(0)).mean()) if stacked.size else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """Stretches of neighbouring tokens of one rollout that each method pushes alike: `first` and `last` token of the batch, both
    included, and how far the methods' relative pushes lie `apart` there. The farthest apart first, the longest first among equals.
    """

    first: Array
    last: Array
    apart: Array


def widest(batch: RecordedBatch, relatives: Sequence[Array]) -> Spans:
    """Where methods disagree, from the relative pushes of each; stretches on which all agree are left out."""
    stacked = np.round(np.stack(relatives), 6)
    same = np.zeros(stacked.shape[1], "?")
    same[1:] = (stacked[:, 1:] == stacked[:, :-1]).all(0) & (np.diff(batch.rollout_N) == 0)
    first = np.flatnonzero(~same)
    last = np.append(first[1:], len(same)) - 1
    apart = np.ptp(stacked[:, first], axis=0)
    order = np.lexsort((first - last, -apart))
    order = order[apart[order] > 0]
    return Spans(first=first[order], last=last[order], apart=apart[order])


def _effective(mass: Array) -> float:
    return float(mass.sum() ** 2 / np.square(mass).sum())

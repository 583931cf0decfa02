"""Row weights from the current policy: what a loss over a whole group becomes once its scores are known.

    J = Σ_g J_g(s_1 … s_G),  s_i = mean over tokens of φ(logp, ratio, 1):   ∂J/∂s_i = weight_i · A_i / G, the weight without gradient

Taken anew at every update from one pass without gradient over all its rows, so that micro-batches and split groups add up to the
same gradient. The value of the loss then says nothing, so each rule also gives the objective itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from grpo_core.algorithms.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The rows of an update, (B,) each: mean token score under the current policy, advantage, group number, and whether it is in the loss."""

    scores_B: Tensor
    advantages_B: Tensor
    group_B: Tensor
    inside_B: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TiltRule:
    """`weights` gives a factor per row (B,), `value` the objective to maximise; both take the scores and the rule's number."""

    weights: Callable[[Scores, float], Tensor]
    value: Callable[[Scores, float], Tensor]


TILTS: Registry[TiltRule] = Registry("group objective")


def softmax_weights(rows: Scores, temperature: float) -> Tensor:
    """For rows with A < 0 their number in the group times softmax(s / τ) among them: the likeliest wrong answers weigh most; 1 elsewhere."""
    down_B = (rows.advantages_B < 0) & rows.inside_B
    risen_B, _ = _risen(rows, down_B, temperature)
    total_B, count_B = _group_sum(risen_B, rows), _group_sum(down_B.to(risen_B.dtype), rows)
    return torch.where(down_B, risen_B * count_B / total_B.clamp(min=1e-30), 1.0)


def discriminative_value(rows: Scores, temperature: float) -> Tensor:
    """(1/Q) Σ over groups with both signs of mean s⁺ − τ · log mean exp(s⁻ / τ), Q counting all groups (DisCO, arXiv:2505.12366 Eq. 9)."""
    up_B, down_B = ((rows.advantages_B > 0) & rows.inside_B, (rows.advantages_B < 0) & rows.inside_B)
    risen_B, highest_B = _risen(rows, down_B, temperature)
    ups_B, downs_B = (_group_sum(one_B.to(risen_B.dtype), rows) for one_B in (up_B, down_B))
    better_B = _group_sum(rows.scores_B * up_B, rows) / ups_B.clamp(min=1)
    worse_B = highest_B + temperature * (_group_sum(risen_B, rows) / downs_B.clamp(min=1)).clamp(min=1e-30).log()
    parted_B = torch.where((ups_B > 0) & (downs_B > 0), better_B - worse_B, 0.0)
    size_B = _group_sum(torch.ones_like(risen_B), rows)
    return (parted_B / size_B).sum() / len(rows.group_B.unique())  # every row has its group's value


def _risen(rows: Scores, among_B: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """exp((s − highest) / τ) of some rows, 0 elsewhere, and the highest score among them in the row's group (0 without any)."""
    n = int(rows.group_B.max()) + 1 if len(rows.group_B) else 0
    low = torch.full((n,), -torch.inf, dtype=rows.scores_B.dtype, device=rows.scores_B.device)
    highest_B = low.scatter_reduce(0, rows.group_B, rows.scores_B.masked_fill(~among_B, -torch.inf), "amax")[rows.group_B]
    highest_B = highest_B.masked_fill(highest_B.isinf(), 0.0)
    return torch.where(among_B, ((rows.scores_B - highest_B).clamp(max=0) / temperature).exp(), 0.0), highest_B


def _group_sum(x_B: Tensor, rows: Scores) -> Tensor:
    n = int(rows.group_B.max()) + 1 if len(rows.group_B) else 0
    return torch.zeros(n, dtype=x_B.dtype, device=x_B.device).index_add(0, rows.group_B, x_B)[rows.group_B]


TILTS.register("softmax_negatives")(TiltRule(weights=softmax_weights, value=discriminative_value))

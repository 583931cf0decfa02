"""Objectives of a whole group's scores, J(s_1 … s_B) to maximise, and the pull of each row that has their exact gradient.

    s_i = mean over tokens of φ(logp, ratio, A = 1)        pull_i = B · ∂J/∂s_i, without gradient        loss = −(1/B) Σ_i pull_i · s_i

The pulls stand in for A in the loss of tokens under the normaliser `sequence`. They are taken anew at every update, from one pass
without gradient over all its rows, so that micro-batches and even split groups add up to the same gradient. The value of that loss
says nothing; J is kept beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from grpo_core.algorithms.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The rows of an update, (B,) each: score under the current policy, advantage, group number, and whether it is in the loss."""

    scores_B: Tensor
    advantages_B: Tensor
    group_B: Tensor
    inside_B: Tensor


GROUP_OBJECTIVES: Registry[Callable[[Scores, float], Tensor]] = Registry("group objective")
"""Each takes the scores and the number that its row gives it, and returns J, differentiable in the scores."""


def pulls(name: str, rows: Scores, number: float) -> tuple[Tensor, Tensor]:
    """Every row's pull (B,), and J."""
    gradient_B, value = slopes(lambda scored: GROUP_OBJECTIVES[name](scored, number), rows)
    return (gradient_B * rows.inside_B.sum()).to(rows.scores_B.dtype), value


def slopes(objective: Callable[[Scores], Tensor], rows: Scores) -> tuple[Tensor, Tensor]:
    """∂J/∂s of every row (B,), float64, and J, both without gradient."""
    with torch.enable_grad():
        scores_B = rows.scores_B.detach().double().requires_grad_()
        value = objective(replace(rows, scores_B=scores_B, advantages_B=rows.advantages_B.double()))
        (gradient_B,) = torch.autograd.grad(value, scores_B)
    return gradient_B, value.detach()


@GROUP_OBJECTIVES.register("discriminate")
def discriminate(rows: Scores, temperature: float) -> Tensor:
    """(1/Q) Σ over groups of mean s⁺ − τ · log mean exp(s⁻ / τ) over rows with A > 0 and A < 0: the likeliest wrong answers count most.

    DisCO (arXiv:2505.12366). A group with one sign only adds 0 and is counted in Q.
    """
    up_B, down_B = ((rows.advantages_B > 0) & rows.inside_B, (rows.advantages_B < 0) & rows.inside_B)
    ups_B, downs_B = group_sum(up_B.double(), rows), group_sum(down_B.double(), rows)
    highest_B = _group_highest(rows, down_B)
    risen_B = ((rows.scores_B - highest_B).clamp(max=0) / temperature).exp() * down_B
    better_B = group_sum(rows.scores_B * up_B, rows) / ups_B.clamp(min=1)
    worse_B = highest_B + temperature * (group_sum(risen_B, rows) / downs_B.clamp(min=1)).clamp(min=1e-300).log()
    return mean_over_groups(torch.where((ups_B > 0) & (downs_B > 0), better_B - worse_B, 0.0), rows)


@GROUP_OBJECTIVES.register("regress")
def regress(rows: Scores, floor: float) -> Tensor:
    """−mean over rows of (A − Z)², Z = (s − mean) / max(std, `floor`) of the group's scores, std over n.

    Reg-GRPO (arXiv:2506.07464 Eq. 8) with s the log-ratio of a completion: at a std above the floor it is 2·(corr(r, s) − 1). At the
    policy that sampled all scores are 0 and so is the std, hence the floor. A group whose advantages are all 0 adds nothing.
    """
    count_B = group_sum(rows.inside_B.double(), rows).clamp(min=1)
    live_B = rows.inside_B & (group_sum((rows.advantages_B != 0) * rows.inside_B.double(), rows) > 0)
    centred_B = (rows.scores_B - group_sum(rows.scores_B * rows.inside_B, rows) / count_B) * rows.inside_B
    variance_B = group_sum(centred_B**2, rows) / count_B
    z_B = centred_B / variance_B.clamp(min=floor**2).sqrt()
    return -((rows.advantages_B - z_B) ** 2 * live_B).sum() / rows.inside_B.sum().clamp(min=1)


def _group_highest(rows: Scores, among_B: Tensor) -> Tensor:
    """(B,) highest score of some rows of the row's group, without gradient; 0 where the group has none of them."""
    scores_B = rows.scores_B.detach().masked_fill(~among_B, -torch.inf)
    n = int(rows.group_B.max()) + 1 if len(rows.group_B) else 0
    found = torch.full((n,), -torch.inf, dtype=scores_B.dtype, device=scores_B.device).scatter_reduce(0, rows.group_B, scores_B, "amax")
    return found.masked_fill(found.isinf(), 0.0)[rows.group_B]


def group_sum(x_B: Tensor, rows: Scores) -> Tensor:
    """(B,) sum over the row's group."""
    n = int(rows.group_B.max()) + 1 if len(rows.group_B) else 0
    return torch.zeros(n, dtype=x_B.dtype, device=x_B.device).index_add(0, rows.group_B, x_B)[rows.group_B]


def mean_over_groups(values_B: Tensor, rows: Scores) -> Tensor:
    """Mean over the groups of a value that every row of a group has."""
    size_B = group_sum(torch.ones_like(values_B), rows)
    return (values_B / size_B).sum() / len(rows.group_B.unique())

"""NORMS of a summand's difference from its baseline, and WHOLES of the sum over the batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from grpo_core.algorithms.groups import Rows, group_variance
from grpo_core.algorithms.registry import Registry

NORMS: Registry[Callable[[Tensor, Tensor, Rows, float], Tensor]] = Registry("advantage norm")
WHOLES: Registry[Callable[[Tensor, Tensor, float], Tensor]] = Registry("norm over the batch")
"""Each takes the sum of all summands (B,), which rollouts are scored, and epsilon."""


@NORMS.register("none")
def no_norm(centred_B: Tensor, rewards_B: Tensor, rows: Rows, epsilon: float) -> Tensor:
    """r − base as it is (Dr. GRPO, arXiv:2503.20783; RLOO)."""
    return centred_B


@NORMS.register("std")
def std_norm(centred_B: Tensor, rewards_B: Tensor, rows: Rows, epsilon: float) -> Tensor:
    """Divided by the group's standard deviation over n−1 plus epsilon (TRL: 1e-4, verl: 1e-6)."""
    return centred_B / (group_variance(rewards_B, rows, correction=1).sqrt() + epsilon)


@NORMS.register("std_population")
def std_population_norm(centred_B: Tensor, rewards_B: Tensor, rows: Rows, epsilon: float) -> Tensor:
    """Divided by the group's standard deviation over n plus epsilon."""
    return centred_B / (group_variance(rewards_B, rows, correction=0).sqrt() + epsilon)


@NORMS.register("variance")
def variance_norm(centred_B: Tensor, rewards_B: Tensor, rows: Rows, epsilon: float) -> Tensor:
    """Divided by the group's variance over n: with values 1 and 0 that is 1/n⁺ for each positive and −1/n⁻ for each negative, times n.

    DisCO's difference of mean scores (arXiv:2505.12366) as an advantage; no epsilon, as tied groups are 0 already.
    """
    return centred_B / group_variance(rewards_B, rows, correction=0).clamp(min=1e-12)


@NORMS.register("token_whiten")
def token_whiten_norm(centred_B: Tensor, rewards_B: Tensor, rows: Rows, epsilon: float) -> Tensor:
    """Minus the mean and over the standard deviation (n−1) of all tokens of the batch, each with its rollout's value.

    REINFORCE++ (arXiv:2501.03262 Eq. 8), 1e-8 under the root as in verl. A group tied in reward is moved too where lengths differ.
    """
    tokens_B = rows.lengths_B * rows.scored_B
    count = tokens_B.sum().clamp(min=2)
    from_mean_B = centred_B - (centred_B * tokens_B).sum() / count
    return from_mean_B * ((from_mean_B**2 * tokens_B).sum() / (count - 1) + 1e-8).rsqrt()


@NORMS.register("nonzero_share")
def nonzero_share_norm(centred_B: Tensor, rewards_B: Tensor, rows: Rows, epsilon: float) -> Tensor:
    """Divided by the share of rollouts that have a deviation at all, so that groups without signal do not shrink the step.

    α = B / #nonzero of GPG (arXiv:2504.02546), with f_norm = 1; verl counts rewards that are not 0 in place of deviations.
    """
    live = ((centred_B != 0) & rows.scored_B).sum()
    return centred_B * (rows.scored_B.sum() / live.clamp(min=1))


@NORMS.register("batch_std")
def batch_std_norm(centred_B: Tensor, rewards_B: Tensor, rows: Rows, epsilon: float) -> Tensor:
    """(x − mean)/(std + 1e-8) over the scored rollouts of the batch, std over n−1 (SPO's released code); 0 where all are equal.

    A group tied in the value is moved too.
    """
    known = centred_B[rows.scored_B]
    if len(known) < 2 or (known == known[0]).all():
        return torch.zeros_like(centred_B)
    return (centred_B - known.mean()) / (known.std() + 1e-8)


@WHOLES.register("none")
def as_summed(advantages_B: Tensor, scored_B: Tensor, epsilon: float) -> Tensor:
    """The sum of the summands as it is."""
    return advantages_B


@WHOLES.register("batch_std")
def batch_std(advantages_B: Tensor, scored_B: Tensor, epsilon: float) -> Tensor:
    """Divided by the standard deviation (n−1) over the scored rollouts of the batch plus epsilon (GDPO, arXiv:2601.05242).

    The paper takes off the batch's mean first, which is 0 for summands that are centred on their groups; not doing so keeps tied
    groups at exactly 0.
    """
    count = scored_B.sum().clamp(min=2)
    mean = advantages_B.sum() / count
    return advantages_B / ((((advantages_B - mean) ** 2) * scored_B).sum().div(count - 1).sqrt() + epsilon)

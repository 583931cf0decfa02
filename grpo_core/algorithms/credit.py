"""Advantages from rewards: A = Σ_c w_c · Norm_c( r − Base_c(group) ), one value per rollout.

Rows of one group share an integer in `group_B`. Rows whose scoring failed have `scored_B` False: they are left out of every
statistic and get advantage 0. Arithmetic is in float64, and a tied group is a case of its own, never an epsilon.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from grpo_core.algorithms.registry import Registry

BASES: Registry[Callable[[Tensor, Tensor, Tensor], Tensor]] = Registry("baseline")
NORMS: Registry[Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]] = Registry("advantage norm")


class Summand(Protocol):
    """What `credit` reads of a component: names in the registries and a weight."""

    base: str
    norm: str
    weight: float


def credit(
    rewards_B: Tensor, group_B: Tensor, scored_B: Tensor, components: Sequence[Summand], *, epsilon: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Advantages and baselines (B,), float64.

    The baseline returned is that of the first component. Raises ValueError for a name not in the registries.
    """
    rewards_B = rewards_B.double().masked_fill(~scored_B, 0.0)
    advantages_B = torch.zeros_like(rewards_B)
    baselines: list[Tensor] = []
    for component in components:
        base_B = BASES[component.base](rewards_B, group_B, scored_B)
        centred_B = torch.where(scored_B & ~tied(rewards_B, group_B, scored_B), rewards_B - base_B, 0.0)
        advantages_B = advantages_B + component.weight * NORMS[component.norm](centred_B, rewards_B, group_B, scored_B, epsilon)
        baselines.append(base_B)
    return advantages_B.masked_fill(~scored_B, 0.0), baselines[0]


def tied(rewards_B: Tensor, group_B: Tensor, scored_B: Tensor) -> Tensor:
    """(B,) True where all scored rewards of the row's group are equal, or fewer than two rows are scored."""
    n = int(group_B.max()) + 1 if len(group_B) else 0
    high = torch.full((n,), -torch.inf, dtype=rewards_B.dtype).scatter_reduce(0, group_B, rewards_B.masked_fill(~scored_B, -torch.inf), "amax")
    low = torch.full((n,), torch.inf, dtype=rewards_B.dtype).scatter_reduce(0, group_B, rewards_B.masked_fill(~scored_B, torch.inf), "amin")
    return (high <= low)[group_B]


@BASES.register("mean")
def mean_base(rewards_B: Tensor, group_B: Tensor, scored_B: Tensor) -> Tensor:
    """Mean reward of the group's scored rollouts (GRPO, arXiv:2402.03300)."""
    return _group_sum(rewards_B * scored_B, group_B) / _group_count(scored_B, group_B).clamp(min=1)


@BASES.register("leave_one_out")
def leave_one_out_base(rewards_B: Tensor, group_B: Tensor, scored_B: Tensor) -> Tensor:
    """Mean reward of the other scored rollouts of the group (RLOO, arXiv:2402.14740)."""
    others_B = _group_sum(rewards_B * scored_B, group_B) - rewards_B * scored_B
    return others_B / (_group_count(scored_B, group_B) - scored_B.double()).clamp(min=1)


@NORMS.register("none")
def no_norm(centred_B: Tensor, rewards_B: Tensor, group_B: Tensor, scored_B: Tensor, epsilon: float) -> Tensor:
    """r − base as it is (Dr. GRPO, arXiv:2503.20783; RLOO)."""
    return centred_B


@NORMS.register("std")
def std_norm(centred_B: Tensor, rewards_B: Tensor, group_B: Tensor, scored_B: Tensor, epsilon: float) -> Tensor:
    """Divided by the group's standard deviation over n−1 plus epsilon (TRL: 1e-4, verl: 1e-6)."""
    return centred_B / (_group_variance(rewards_B, group_B, scored_B, correction=1).sqrt() + epsilon)


@NORMS.register("std_population")
def std_population_norm(centred_B: Tensor, rewards_B: Tensor, group_B: Tensor, scored_B: Tensor, epsilon: float) -> Tensor:
    """Divided by the group's standard deviation over n plus epsilon."""
    return centred_B / (_group_variance(rewards_B, group_B, scored_B, correction=0).sqrt() + epsilon)


def _group_sum(x_B: Tensor, group_B: Tensor) -> Tensor:
    """(B,) sum over the row's group."""
    n = int(group_B.max()) + 1 if len(group_B) else 0
    return torch.zeros(n, dtype=x_B.dtype).index_add(0, group_B, x_B)[group_B]


def _group_count(scored_B: Tensor, group_B: Tensor) -> Tensor:
    return _group_sum(scored_B.double(), group_B)


def _group_variance(rewards_B: Tensor, group_B: Tensor, scored_B: Tensor, *, correction: int) -> Tensor:
    deviation_B = (rewards_B - mean_base(rewards_B, group_B, scored_B)) * scored_B
    return _group_sum(deviation_B**2, group_B) / (_group_count(scored_B, group_B) - correction).clamp(min=1)

"""Advantages from rewards: A = Σ_c w_c · Norm_c( value_c − Base_c(group) ) · Scale_c, one value per rollout.

Rows of one group share an integer in `group_B`. Rows whose scoring failed have `scored_B` False: they are left out of every
statistic and get advantage 0. Arithmetic is in float64, and a group tied in the value is a case of its own, never an epsilon.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from grpo_core.algorithms.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of every rollout, (B,) each: total reward, +1 if correct and −1 if not, mean token entropy in nats."""

    rewards_B: Tensor
    verdicts_B: Tensor | None = None
    entropies_B: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRule:
    """A baseline (B,) of a value (B,). `compares` says that it is taken from the group, so that a tied group has advantage 0."""

    of: Callable[[Tensor, Tensor, Tensor], Tensor]
    compares: bool = True


VALUES: Registry[Callable[[Facts], Tensor]] = Registry("advantage value")
BASES: Registry[BaseRule] = Registry("baseline")
NORMS: Registry[Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]] = Registry("advantage norm")
SCALES: Registry[Callable[[Tensor], Tensor]] = Registry("advantage scale")


class Summand(Protocol):
    """What `credit` reads of a component: names in the registries and a weight."""

    value: str
    base: str
    norm: str
    scale: str
    weight: float


def credit(facts: Facts, group_B: Tensor, scored_B: Tensor, components: Sequence[Summand], *, epsilon: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Advantages and baselines (B,), float64.

    The baseline returned is that of the first component. Raises ValueError for a name not in the registries.
    """
    advantages_B = torch.zeros(len(group_B), dtype=torch.float64)
    baselines: list[Tensor] = []
    for component in components:
        base = BASES[component.base]
        values_B = VALUES[component.value](facts).double().masked_fill(~scored_B, 0.0)
        base_B = base.of(values_B, group_B, scored_B)
        void_B = ~scored_B | tied(values_B, group_B, scored_B) if base.compares else ~scored_B
        centred_B = (values_B - base_B).masked_fill(void_B, 0.0)
        normed_B = NORMS[component.norm](centred_B, values_B, group_B, scored_B, epsilon)
        advantages_B = advantages_B + component.weight * SCALES[component.scale](normed_B) * normed_B
        baselines.append(base_B)
    return advantages_B.masked_fill(~scored_B, 0.0), baselines[0]


def tied(rewards_B: Tensor, group_B: Tensor, scored_B: Tensor) -> Tensor:
    """(B,) True where all scored rewards of the row's group are equal, or fewer than two rows are scored."""
    n = int(group_B.max()) + 1 if len(group_B) else 0
    high = torch.full((n,), -torch.inf, dtype=rewards_B.dtype).scatter_reduce(0, group_B, rewards_B.masked_fill(~scored_B, -torch.inf), "amax")
    low = torch.full((n,), torch.inf, dtype=rewards_B.dtype).scatter_reduce(0, group_B, rewards_B.masked_fill(~scored_B, torch.inf), "amin")
    return (high <= low)[group_B]


@VALUES.register("outcome")
def outcome(facts: Facts) -> Tensor:
    """The total reward."""
    return facts.rewards_B


@VALUES.register("verdict")
def verdict(facts: Facts) -> Tensor:
    """+1 for a correct rollout, −1 for a wrong one (arXiv:2506.01347 §2)."""
    assert facts.verdicts_B is not None
    return facts.verdicts_B


@VALUES.register("certainty")
def certainty(facts: Facts) -> Tensor:
    """−⟨H⟩, the mean token entropy of the completion with its sign turned (GTPO, arXiv:2508.03772)."""
    assert facts.entropies_B is not None
    return -facts.entropies_B


def mean_base(rewards_B: Tensor, group_B: Tensor, scored_B: Tensor) -> Tensor:
    """Mean reward of the group's scored rollouts (GRPO, arXiv:2402.03300)."""
    return _group_sum(rewards_B * scored_B, group_B) / _group_count(scored_B, group_B).clamp(min=1)


def leave_one_out_base(rewards_B: Tensor, group_B: Tensor, scored_B: Tensor) -> Tensor:
    """Mean reward of the other scored rollouts of the group (RLOO, arXiv:2402.14740)."""
    others_B = _group_sum(rewards_B * scored_B, group_B) - rewards_B * scored_B
    return others_B / (_group_count(scored_B, group_B) - scored_B.double()).clamp(min=1)


def zero_base(rewards_B: Tensor, group_B: Tensor, scored_B: Tensor) -> Tensor:
    """No baseline: every rollout stands for itself, whatever its group did (REINFORCE)."""
    return torch.zeros_like(rewards_B)


BASES.register("mean")(BaseRule(of=mean_base))
BASES.register("leave_one_out")(BaseRule(of=leave_one_out_base))
BASES.register("zero")(BaseRule(of=zero_base, compares=False))


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


@SCALES.register("one")
def one(normed_B: Tensor) -> Tensor:
    """Every rollout."""
    return torch.ones_like(normed_B)


@SCALES.register("positives")
def positives(normed_B: Tensor) -> Tensor:
    """Only what lies above the baseline (positive-sample reinforcement, arXiv:2506.01347)."""
    return (normed_B > 0).double()


@SCALES.register("negatives")
def negatives(normed_B: Tensor) -> Tensor:
    """Only what lies below the baseline (negative-sample reinforcement, arXiv:2506.01347)."""
    return (normed_B < 0).double()


def _group_sum(x_B: Tensor, group_B: Tensor) -> Tensor:
    """(B,) sum over the row's group."""
    n = int(group_B.max()) + 1 if len(group_B) else 0
    return torch.zeros(n, dtype=x_B.dtype).index_add(0, group_B, x_B)[group_B]


def _group_count(scored_B: Tensor, group_B: Tensor) -> Tensor:
    return _group_sum(scored_B.double(), group_B)


def _group_variance(rewards_B: Tensor, group_B: Tensor, scored_B: Tensor, *, correction: int) -> Tensor:
    deviation_B = (rewards_B - mean_base(rewards_B, group_B, scored_B)) * scored_B
    return _group_sum(deviation_B**2, group_B) / (_group_count(scored_B, group_B) - correction).clamp(min=1)

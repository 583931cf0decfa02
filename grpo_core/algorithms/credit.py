"""Advantages from rewards: A = Σ_c w_c · Norm_c( value_c − Base_c(group) ) · Scale_c, one value per rollout.

Rows of one group share an integer in `group_B`. Rows whose scoring failed have `scored_B` False: they are left out of every
statistic and get advantage 0. Arithmetic is in float64, and a group tied in the value is a case of its own, never an epsilon:
its deviations are exactly 0. Only a norm over the whole batch may still move it.
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
    """What is known of every rollout, (B,) each: total reward, +1 if correct and −1 if not, mean token entropy in nats, tokens, and the
    success rate of its prompt that a memory brings."""

    rewards_B: Tensor
    verdicts_B: Tensor | None = None
    entropies_B: Tensor | None = None
    lengths_B: Tensor | None = None
    tracked_B: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """How the rollouts of a batch belong together, (B,) each: group number, whether scored, tokens, and the tracked rate of the prompt."""

    group_B: Tensor
    scored_B: Tensor
    lengths_B: Tensor
    tracked_B: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRule:
    """A baseline (B,) of a value (B,). `compares` says that it is taken from the group, so that a tied group has advantage 0."""

    of: Callable[[Tensor, Rows], Tensor]
    compares: bool = True


VALUES: Registry[Callable[[Facts], Tensor]] = Registry("advantage value")
BASES: Registry[BaseRule] = Registry("baseline")
NORMS: Registry[Callable[[Tensor, Tensor, Rows, float], Tensor]] = Registry("advantage norm")
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
    lengths_B = torch.ones_like(advantages_B) if facts.lengths_B is None else facts.lengths_B.double()
    rows = Rows(group_B=group_B, scored_B=scored_B, lengths_B=lengths_B, tracked_B=facts.tracked_B)
    baselines: list[Tensor] = []
    for component in components:
        base = BASES[component.base]
        values_B = VALUES[component.value](facts).double().masked_fill(~scored_B, 0.0)
        base_B = base.of(values_B, rows)
        void_B = ~scored_B | tied(values_B, group_B, scored_B) if base.compares else ~scored_B
        centred_B = (values_B - base_B).masked_fill(void_B, 0.0)
        normed_B = NORMS[component.norm](centred_B, values_B, rows, epsilon)
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


@VALUES.register("success")
def success(facts: Facts) -> Tensor:
    """1 for a correct rollout, 0 for a wrong one."""
    assert facts.verdicts_B is not None
    return (facts.verdicts_B > 0).double()


def mean_base(rewards_B: Tensor, rows: Rows) -> Tensor:
    """Mean reward of the group's scored rollouts (GRPO, arXiv:2402.03300)."""
    return _group_sum(rewards_B * rows.scored_B, rows) / _group_count(rows).clamp(min=1)


def leave_one_out_base(rewards_B: Tensor, rows: Rows) -> Tensor:
    """Mean reward of the other scored rollouts of the group (RLOO, arXiv:2402.14740)."""
    others_B = _group_sum(rewards_B * rows.scored_B, rows) - rewards_B * rows.scored_B
    return others_B / (_group_count(rows) - rows.scored_B.double()).clamp(min=1)


def length_weighted_base(rewards_B: Tensor, rows: Rows) -> Tensor:
    """Mean reward of the group weighted by length, Σ l·r / Σ l: the baseline of least variance where a rollout's gradient grows with √l.

    OPO (arXiv:2505.23585).
    """
    weight_B = rows.lengths_B * rows.scored_B
    return _group_sum(rewards_B * weight_B, rows) / _group_sum(weight_B, rows).clamp(min=1)


def second_best_base(rewards_B: Tensor, rows: Rows) -> Tensor:
    """The group's second-highest reward, which is the highest where two share it (pass@k, arXiv:2503.19595); 0 for a single rollout."""
    out_B = torch.zeros_like(rewards_B)
    for group in rows.group_B.unique():
        members_B = rows.group_B == group
        known = rewards_B[members_B & rows.scored_B]
        if len(known) > 1:
            out_B[members_B] = known.topk(2).values[1]
    return out_B


def zero_base(rewards_B: Tensor, rows: Rows) -> Tensor:
    """No baseline: every rollout stands for itself, whatever its group did (REINFORCE)."""
    return torch.zeros_like(rewards_B)


def tracked_base(rewards_B: Tensor, rows: Rows) -> Tensor:
    """p̂ of the rollout's prompt, tracked over earlier steps (SPO, arXiv:2509.13232)."""
    assert rows.tracked_B is not None
    return rows.tracked_B.double()


BASES.register("mean")(BaseRule(of=mean_base))
BASES.register("leave_one_out")(BaseRule(of=leave_one_out_base))
BASES.register("length_weighted")(BaseRule(of=length_weighted_base))
BASES.register("second_best")(BaseRule(of=second_best_base))
BASES.register("zero")(BaseRule(of=zero_base, compares=False))
BASES.register("tracked")(BaseRule(of=tracked_base, compares=False))


@NORMS.register("none")
def no_norm(centred_B: Tensor, rewards_B: Tensor, rows: Rows, epsilon: float) -> Tensor:
    """r − base as it is (Dr. GRPO, arXiv:2503.20783; RLOO)."""
    return centred_B


@NORMS.register("std")
def std_norm(centred_B: Tensor, rewards_B: Tensor, rows: Rows, epsilon: float) -> Tensor:
    """Divided by the group's standard deviation over n−1 plus epsilon (TRL: 1e-4, verl: 1e-6)."""
    return centred_B / (_group_variance(rewards_B, rows, correction=1).sqrt() + epsilon)


@NORMS.register("std_population")
def std_population_norm(centred_B: Tensor, rewards_B: Tensor, rows: Rows, epsilon: float) -> Tensor:
    """Divided by the group's standard deviation over n plus epsilon."""
    return centred_B / (_group_variance(rewards_B, rows, correction=0).sqrt() + epsilon)


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

    α = B / #nonzero of GPG (arXiv:2504.02546), with f_norm = 1.
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


def _group_sum(x_B: Tensor, rows: Rows) -> Tensor:
    """(B,) sum over the row's group."""
    n = int(rows.group_B.max()) + 1 if len(rows.group_B) else 0
    return torch.zeros(n, dtype=x_B.dtype).index_add(0, rows.group_B, x_B)[rows.group_B]


def _group_count(rows: Rows) -> Tensor:
    return _group_sum(rows.scored_B.double(), rows)


def _group_variance(rewards_B: Tensor, rows: Rows, *, correction: int) -> Tensor:
    deviation_B = (rewards_B - mean_base(rewards_B, rows)) * rows.scored_B
    return _group_sum(deviation_B**2, rows) / (_group_count(rows) - correction).clamp(min=1)

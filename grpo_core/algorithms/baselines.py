"""BASES: what a rollout's value is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from grpo_core.algorithms.groups import Rows, group_count, group_highest, group_mean, group_sum
from grpo_core.algorithms.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRule:
    """A baseline (B,) of a value (B,) and the number its row gives it. `compares` says that a tied group has advantage 0 under it."""

    of: Callable[[Tensor, Rows, float], Tensor]
    compares: bool = True


BASES: Registry[BaseRule] = Registry("baseline")


def mean_base(rewards_B: Tensor, rows: Rows, number: float = 0.0) -> Tensor:
    """Mean reward of the group's scored rollouts (GRPO, arXiv:2402.03300)."""
    return group_mean(rewards_B, rows)


def leave_one_out_base(rewards_B: Tensor, rows: Rows, number: float = 0.0) -> Tensor:
    """Mean reward of the other scored rollouts of the group (RLOO, arXiv:2402.14740)."""
    others_B = group_sum(rewards_B * rows.scored_B, rows) - rewards_B * rows.scored_B
    return others_B / (group_count(rows) - rows.scored_B.double()).clamp(min=1)


def length_weighted_base(rewards_B: Tensor, rows: Rows, number: float = 0.0) -> Tensor:
    """Mean reward of the group weighted by length, Σ l·r / Σ l: the baseline of least variance where a rollout's gradient grows with √l.

    OPO (arXiv:2505.23585).
    """
    weight_B = rows.lengths_B * rows.scored_B
    return group_sum(rewards_B * weight_B, rows) / group_sum(weight_B, rows).clamp(min=1)


def second_best_base(rewards_B: Tensor, rows: Rows, number: float = 0.0) -> Tensor:
    """The group's second-highest reward, which is the highest where two share it (pass@k, arXiv:2503.19595); 0 for a single rollout."""
    out_B = torch.zeros_like(rewards_B)
    for group in rows.group_B.unique():
        members_B = rows.group_B == group
        known = rewards_B[members_B & rows.scored_B]
        if len(known) > 1:
            out_B[members_B] = known.topk(2).values[1]
    return out_B


def zero_base(rewards_B: Tensor, rows: Rows, number: float = 0.0) -> Tensor:
    """No baseline: every rollout stands for itself, whatever its group did (REINFORCE)."""
    return torch.zeros_like(rewards_B)


def below_mean_base(rewards_B: Tensor, rows: Rows, number: float) -> Tensor:
    """Mean reward of the group less `number`, so that every rollout is pushed up by that much more (AsymRE, arXiv:2506.20520)."""
    return group_mean(rewards_B, rows) - number


def log_average_exp_base(rewards_B: Tensor, rows: Rows, number: float) -> Tensor:
    """τ · log mean exp(r / τ) over the group's scored rollouts, τ = `number`: the mean for large τ, the maximum for small.

    OPMD (arXiv:2505.17826), after the log-partition function of Kimi k1.5 (arXiv:2501.12599).
    """
    highest_B = group_highest(rewards_B, rows)
    risen_B = ((rewards_B - highest_B).clamp(max=0) / number).exp() * rows.scored_B
    return highest_B + number * (group_sum(risen_B, rows) / group_count(rows).clamp(min=1)).clamp(min=1e-300).log()


def greedy_base(rewards_B: Tensor, rows: Rows, number: float = 0.0) -> Tensor:
    """The reward of the prompt's greedy completion (ReMax, arXiv:2310.10505); NaN where it could not be scored."""
    assert rows.greedy_B is not None
    return rows.greedy_B.double()


def tracked_base(rewards_B: Tensor, rows: Rows, number: float = 0.0) -> Tensor:
    """p̂ of the rollout's prompt, tracked over earlier steps (SPO, arXiv:2509.13232)."""
    assert rows.tracked_B is not None
    return rows.tracked_B.double()


BASES.register("mean")(BaseRule(of=mean_base))
BASES.register("below_mean")(BaseRule(of=below_mean_base, compares=False))
BASES.register("log_average_exp")(BaseRule(of=log_average_exp_base))
BASES.register("leave_one_out")(BaseRule(of=leave_one_out_base))
BASES.register("length_weighted")(BaseRule(of=length_weighted_base))
BASES.register("second_best")(BaseRule(of=second_best_base))
BASES.register("greedy")(BaseRule(of=greedy_base, compares=False))
BASES.register("zero")(BaseRule(of=zero_base, compares=False))
BASES.register("tracked")(BaseRule(of=tracked_base, compares=False))

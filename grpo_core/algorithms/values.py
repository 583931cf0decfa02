"""VALUES: what a rollout is worth before it is compared, from what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from grpo_core.algorithms.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of every rollout, (B,) each: total reward, +1 if correct and −1 if not, mean token entropy in nats, tokens.

    `parts_BK` are the unweighted parts of each reward, `part_weights_K` what they weigh in its total. `draws_B` is a random number in
    [0, 1) per rollout, for what is left out at random, `greedy_B` the reward of its prompt's greedy completion, `tracked_B` the success
    rate of its prompt that a memory brings. `reference_B` marks worked answers among the rollouts. `ranks_BK` is what
    every item of a ranked list earned.
    """

    rewards_B: Tensor
    verdicts_B: Tensor | None = None
    entropies_B: Tensor | None = None
    lengths_B: Tensor | None = None
    parts_BK: Tensor | None = None
    part_weights_K: Tensor | None = None
    draws_B: Tensor | None = None
    greedy_B: Tensor | None = None
    tracked_B: Tensor | None = None
    reference_B: Tensor | None = None
    ranks_BK: Tensor | None = None


VALUES: Registry[Callable[[Facts], Tensor]] = Registry("advantage value")


@VALUES.register("outcome")
def outcome(facts: Facts) -> Tensor:
    """The total reward."""
    return facts.rewards_B


@VALUES.register("verdict")
def verdict(facts: Facts) -> Tensor:
    """+1 for a correct rollout, −1 for a wrong one (arXiv:2506.01347 §2)."""
    assert facts.verdicts_B is not None
    return facts.verdicts_B


@VALUES.register("correct")
def correct(facts: Facts) -> Tensor:
    """1 for a correct rollout, 0 for a wrong one."""
    assert facts.verdicts_B is not None
    return (facts.verdicts_B + 1) / 2


@VALUES.register("parts")
def parts(facts: Facts) -> Tensor:
    """Every part of the reward for itself, (B, K) (GDPO, arXiv:2601.05242)."""
    assert facts.parts_BK is not None
    return facts.parts_BK


@VALUES.register("ranks")
def ranks(facts: Facts) -> Tensor:
    """What every item of the list earned, (B, K) (Rank-GRPO)."""
    assert facts.ranks_BK is not None
    return facts.ranks_BK


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

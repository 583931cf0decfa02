"""Advantages from rewards: A = whole( Σ_c w_c · Norm_c( value_c − Base_c(group) ) · Scale_c ), one value per rollout.

Rows of one group share an integer in `group_B`. Rows whose scoring failed have `scored_B` False: they are left out of every
statistic and get advantage 0. Arithmetic is in float64, and a group tied in the value is a case of its own, never an epsilon:
its deviations are exactly 0. Only a norm over the whole batch may still move it. A value of several columns (the parts of a reward)
is a summand for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from grpo_core.algorithms.baselines import BASES
from grpo_core.algorithms.groups import Rows, tied
from grpo_core.algorithms.norms import NORMS, WHOLES
from grpo_core.algorithms.selections import DROPS, SCALES
from grpo_core.algorithms.values import VALUES, Facts


class Summand(Protocol):
    """What `credit` reads of a component: names in the registries and a weight."""

    value: str
    base: str
    norm: str
    scale: str
    drop: str
    weight: float
    at: float


def credit(
    facts: Facts, group_B: Tensor, scored_B: Tensor, components: Sequence[Summand], *, whole: str = "none", epsilon: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Advantages and baselines (B,), float64.

    The baseline returned is that of the first component, columns weighted and added up. Raises ValueError for a name not in the
    registries.
    """
    advantages_B = torch.zeros(len(group_B), dtype=torch.float64)
    lengths_B = torch.ones_like(advantages_B) if facts.lengths_B is None else facts.lengths_B.double()
    rows = Rows(
        group_B=group_B, scored_B=scored_B, lengths_B=lengths_B, draws_B=facts.draws_B, greedy_B=facts.greedy_B, tracked_B=facts.tracked_B
    )
    baselines: list[Tensor] = []
    for component in components:
        baseline_B = torch.zeros_like(advantages_B)
        for values_B, weight in _columns(component.value, facts):
            normed_B, base_B = _compared(component, values_B.masked_fill(~scored_B, 0.0), rows, epsilon)
            advantages_B = advantages_B + component.weight * weight * SCALES[component.scale](normed_B) * normed_B
            baseline_B = baseline_B + weight * base_B
        baselines.append(baseline_B)
    return WHOLES[whole](advantages_B.masked_fill(~scored_B, 0.0), scored_B, epsilon), baselines[0]


def _columns(name: str, facts: Facts) -> list[tuple[Tensor, float]]:
    """A value (B,) with weight 1, or its columns (B, K): parts of a reward with their weights, others with weight 1."""
    values = VALUES[name](facts).double()
    if values.dim() == 1:
        return [(values, 1.0)]
    weights = facts.part_weights_K.tolist() if name == "parts" and facts.part_weights_K is not None else [1.0] * values.shape[1]
    return list(zip(values.unbind(1), weights, strict=True))


def _compared(component: Summand, values_B: Tensor, rows: Rows, epsilon: float) -> tuple[Tensor, Tensor]:
    """Norm(value − base) and the base, (B,) each; 0 for rollouts that are not scored, left out or without a base, and for tied groups if compared."""
    base = BASES[component.base]
    rows = replace(rows, scored_B=rows.scored_B & ~DROPS[component.drop](values_B, rows))
    base_B = base.of(values_B, rows, component.at)
    void_B = ~rows.scored_B | base_B.isnan()
    if base.compares:
        void_B = void_B | tied(values_B, rows.group_B, rows.scored_B)
    centred_B = (values_B - base_B).masked_fill(void_B, 0.0)
    return NORMS[component.norm](centred_B, values_B, rows, epsilon), base_B

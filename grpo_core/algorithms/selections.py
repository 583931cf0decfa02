"""Which rollouts count: DROPS before they are compared, SCALES by how they compare."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from grpo_core.algorithms.groups import Rows, group_mean, tied
from grpo_core.algorithms.registry import Registry

DROPS: Registry[Callable[[Tensor, Rows], Tensor]] = Registry("drop rule")
"""Each gives the rollouts (B,) that are left out of their group: of its statistics, and with advantage 0."""
SCALES: Registry[Callable[[Tensor], Tensor]] = Registry("advantage scale")


@DROPS.register("none")
def nothing_dropped(values_B: Tensor, rows: Rows) -> Tensor:
    """Every scored rollout is compared."""
    return torch.zeros_like(rows.scored_B)


@DROPS.register("balance")
def balance(values_B: Tensor, rows: Rows) -> Tensor:
    """Rollouts below the group's mean, drawn at random until there are no more of them than of the others (RED-Drop, arXiv:2509.24203).

    Those with the smallest draws are left out.
    """
    assert rows.draws_B is not None
    out_B = torch.zeros_like(rows.scored_B)
    low_B = rows.scored_B & (values_B < group_mean(values_B, rows)) & ~tied(values_B, rows.group_B, rows.scored_B)
    for group in rows.group_B.unique():
        members_B = rows.group_B == group
        low = (members_B & low_B).nonzero().squeeze(1)
        surplus = 2 * len(low) - int((members_B & rows.scored_B).sum())
        if surplus > 0:
            out_B[low[rows.draws_B[low].argsort()[:surplus]]] = True
    return out_B


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

"""How the rollouts of a batch belong together, and figures of their groups: each row gets its group's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """How the rollouts of a batch belong together, (B,) each: group number, whether scored and compared, tokens; the rest as in Facts."""

    group_B: Tensor
    scored_B: Tensor
    lengths_B: Tensor
    draws_B: Tensor | None = None
    greedy_B: Tensor | None = None
    tracked_B: Tensor | None = None


def tied(values_B: Tensor, group_B: Tensor, scored_B: Tensor) -> Tensor:
    """(B,) True where all scored values of the row's group are equal, or fewer than two rows are scored."""
    n = int(group_B.max()) + 1 if len(group_B) else 0
    high = torch.full((n,), -torch.inf, dtype=values_B.dtype).scatter_reduce(0, group_B, values_B.masked_fill(~scored_B, -torch.inf), "amax")
    low = torch.full((n,), torch.inf, dtype=values_B.dtype).scatter_reduce(0, group_B, values_B.masked_fill(~scored_B, torch.inf), "amin")
    return (high <= low)[group_B]


def group_sum(x_B: Tensor, rows: Rows) -> Tensor:
    """(B,) sum over the row's group."""
    n = int(rows.group_B.max()) + 1 if len(rows.group_B) else 0
    return torch.zeros(n, dtype=x_B.dtype).index_add(0, rows.group_B, x_B)[rows.group_B]


def group_count(rows: Rows) -> Tensor:
    """(B,) how many rows of the row's group are scored, float64."""
    return group_sum(rows.scored_B.double(), rows)


def group_mean(x_B: Tensor, rows: Rows) -> Tensor:
    """(B,) mean over the scored rows of the row's group; 0 where none is scored."""
    return group_sum(x_B * rows.scored_B, rows) / group_count(rows).clamp(min=1)


def group_variance(x_B: Tensor, rows: Rows, *, correction: int) -> Tensor:
    """(B,) variance over the scored rows of the row's group, over their number less `correction`."""
    deviation_B = (x_B - group_mean(x_B, rows)) * rows.scored_B
    return group_sum(deviation_B**2, rows) / (group_count(rows) - correction).clamp(min=1)


def group_highest(x_B: Tensor, rows: Rows) -> Tensor:
    """(B,) highest value of the row's group among scored rows; 0 where none is scored."""
    n = int(rows.group_B.max()) + 1 if len(rows.group_B) else 0
    found = torch.full((n,), -torch.inf, dtype=x_B.dtype).scatter_reduce(0, rows.group_B, x_B.masked_fill(~rows.scored_B, -torch.inf), "amax")
    return found.masked_fill(found.isinf(), 0.0)[rows.group_B]

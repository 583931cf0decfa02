"""How per-token values become one number: a weight per token, so that the loss is Σ weights ⊙ values.

Weights depend only on the mask of a whole update, so micro-batches and skipped rows add up to exactly the same loss.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from grpo_core.algorithms.registry import Registry

NORMALISERS: Registry[Callable[[Tensor, int], Tensor]] = Registry("normaliser")


@NORMALISERS.register("token")
def token(mask_BT: Tensor, max_length: int) -> Tensor:
    """Every token of the update weighs the same (DAPO, arXiv:2503.14476 Eq. 12)."""
    return mask_BT / mask_BT.sum().clamp(min=1)


@NORMALISERS.register("sequence")
def sequence(mask_BT: Tensor, max_length: int) -> Tensor:
    """Mean over each row's tokens, then over rows (GRPO, arXiv:2402.03300 Eq. 3).

    Rows without a trained token are left out, as in verl; TRL counts them as 0.
    """
    length_B1 = mask_BT.sum(1, keepdim=True)
    return mask_BT / length_B1.clamp(min=1) / (length_B1 > 0).sum().clamp(min=1)


@NORMALISERS.register("sequence_sum")
def sequence_sum(mask_BT: Tensor, max_length: int) -> Tensor:
    """Mean over each row's tokens, summed over rows: the loss grows with the batch (GTPO's released code)."""
    return mask_BT / mask_BT.sum(1, keepdim=True).clamp(min=1)


@NORMALISERS.register("row_sum")
def row_sum(mask_BT: Tensor, max_length: int) -> Tensor:
    """Sum over each row's tokens, mean over rows: a completion weighs as much as it is long (LUSPO, arXiv:2602.05261)."""
    return mask_BT / (mask_BT.sum(1) > 0).sum().clamp(min=1)


@NORMALISERS.register("constant")
def constant(mask_BT: Tensor, max_length: int) -> Tensor:
    """Sum over tokens divided by rows × max_length, whatever was written (Dr. GRPO, arXiv:2503.20783)."""
    return mask_BT / (mask_BT.shape[0] * max_length)

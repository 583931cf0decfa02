"""The policy objective per token: φ(logp, ratio, A), and the level at which the ratio is taken."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from grpo_core.algorithms.registry import Registry

LEVELS: Registry[Callable[[Tensor, Tensor, Tensor], Tensor]] = Registry("ratio level")
SURROGATES: Registry[Callable[[Tensor, Tensor, tuple[float, float]], tuple[Tensor, Tensor]]] = Registry("surrogate")


@LEVELS.register("token")
def token_level(logp_BT: Tensor, before_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Log-ratio of each token, (B, T), 0 outside the mask."""
    return (logp_BT - before_BT) * mask_BT


@LEVELS.register("sequence")
def sequence_level(logp_BT: Tensor, before_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean log-ratio of the whole completion on each of its tokens, (B, T): the log of the geometric mean (GSPO, arXiv:2507.18071 Eq. 7)."""
    mean_B1 = token_level(logp_BT, before_BT, mask_BT).sum(1, keepdim=True) / mask_BT.sum(1, keepdim=True).clamp(min=1)
    return mean_B1 * mask_BT


@SURROGATES.register("clip")
def clip(log_ratio_BT: Tensor, advantages_BT: Tensor, bounds: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """min(ρA, clip(ρ, 1−low, 1+high)·A) per token with ρ = exp(log-ratio).

    PPO (arXiv:1707.06347 Eq. 7); low < high is DAPO's clip-higher (arXiv:2503.14476 Eq. 10).
    Returns the objective (to maximise) and the side on which clipping was active (−1 low, 0 none, +1 high), both (B, T).
    """
    low, high = bounds
    ratio_BT = log_ratio_BT.exp()
    free_BT = ratio_BT * advantages_BT
    held_BT = ratio_BT.clamp(1 - low, 1 + high) * advantages_BT
    held_low_BT = (held_BT < free_BT) & (ratio_BT < 1)
    held_high_BT = (held_BT < free_BT) & (ratio_BT > 1)
    return torch.minimum(free_BT, held_BT), held_high_BT.to(torch.int8) - held_low_BT.to(torch.int8)


@SURROGATES.register("reinforce")
def reinforce(log_ratio_BT: Tensor, advantages_BT: Tensor, bounds: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """A · r per token with r = exp(log π − sg log π), which is 1 in value: gradient A · ∇ log π at every update, nothing clipped."""
    return (log_ratio_BT - log_ratio_BT.detach()).exp() * advantages_BT, torch.zeros_like(log_ratio_BT, dtype=torch.int8)

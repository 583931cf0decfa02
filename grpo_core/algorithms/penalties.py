"""Regularisers of the loss: per-token values, the tokens they are averaged over, and what they need from the trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from grpo_core.algorithms.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class PenaltyRule:
    """`values(logp, before, ref, advantages, mask)` gives (B, T) to minimise.

    `over` is "loss" (averaged with the loss's own normaliser) or "preserve" (over tokens with A ≥ 0).
    `zero_on_first_update` says that it vanishes, value and gradient, while the policy still is the one that sampled.
    """

    values: Callable[[Tensor, Tensor, Tensor | None, Tensor, Tensor], Tensor]
    over: str
    needs_reference: bool = False
    needs_tied_groups: bool = False
    zero_on_first_update: bool = False


DEAD_ZONE = 1e-4
"""Nats below which a change of log-prob is rounding: sampler and trainer agree to 2e-5 in float32 (tests/rollout). The hinge's
gradient does not shrink with the fall, so without it noise would be penalised like a real loss of likelihood."""

PENALTIES: Registry[PenaltyRule] = Registry("regulariser")


def k3(log_ratio_BT: Tensor) -> Tensor:
    """exp(d) − d − 1 ≥ 0, an unbiased estimate of KL(p ‖ q) on samples of p with d = log q − log p (Schulman 2020, "k3")."""
    return log_ratio_BT.exp() - log_ratio_BT - 1


def _kl_ref(logp_BT: Tensor, before_BT: Tensor, ref_BT: Tensor | None, advantages_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """k3 of KL(policy ‖ reference) (GRPO, arXiv:2402.03300 Eq. 4)."""
    assert ref_BT is not None
    return k3((ref_BT - logp_BT) * mask_BT)


def llds_response(logp_BT: Tensor, before_BT: Tensor, ref_BT: Tensor | None, advantages_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """max(0, before − logp) on completions with A ≥ 0 whose log-prob fell as a whole (LLDS, arXiv:2512.04220 Eq. 10).

    Zero-advantage completions count as preserved, as in the paper. Falls within DEAD_ZONE are 0 with gradient 0; released code
    has no dead zone, and there rounding alone penalises about half of all tokens on the first update.
    """
    keep_BT = mask_BT * (advantages_BT >= 0)
    fall_BT = (before_BT - logp_BT) * keep_BT
    open_B1 = fall_BT.detach().sum(1, keepdim=True) > DEAD_ZONE
    return torch.where(fall_BT > DEAD_ZONE, fall_BT, 0.0) * open_B1


PENALTIES.register("kl_ref_k3")(PenaltyRule(values=_kl_ref, over="loss", needs_reference=True, needs_tied_groups=True))
PENALTIES.register("llds_response")(
    PenaltyRule(values=llds_response, over="preserve", needs_tied_groups=True, zero_on_first_update=True)
)

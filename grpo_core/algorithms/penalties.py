"""Regularisers of the loss: per-token values, the tokens they are averaged over, and what they need from the trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from grpo_core.algorithms.group_objectives import Scores, group_sum, mean_over_groups
from grpo_core.algorithms.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class PenaltyRule:
    """`values(logp, before, ref, advantages, mask)` gives (B, T) to minimise.

    `over` is "method" (averaged with the loss's own normaliser), "preserve" (over tokens with A ≥ 0) or "loss" (over all loss
    tokens). `answer_weighted` says that tokens of the final answer may weigh less in it. `factor(now, before, mask)` multiplies the
    coefficient by a number taken from the whole update under the current policy, without gradient.

    `groups` makes the regulariser one of whole groups: a number of all rows' scores, each the sum of the row's values under the current
    policy. Every token is then weighed by that number's slope in its row's score, which has the exact gradient in any micro-batches; `over`
    is "groups", and the term is set right to the number itself.
    """

    values: Callable[[Tensor, Tensor, Tensor | None, Tensor, Tensor], Tensor]
    over: str
    needs_reference: bool = False
    needs_tied_groups: bool = False
    answer_weighted: bool = False
    factor: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    groups: Callable[[Scores], Tensor] | None = None


DEAD_ZONE = 1e-4
"""Nats below which a change of log-prob is rounding: sampler and trainer agree to 2e-5 in float32 (tests/rollout). The hinge's
gradient does not shrink with the fall, so without it noise would be penalised like a real loss of likelihood."""

KL_BOUND = 1e-4
"""Nats per token of KL(old ‖ policy) that DisCO allows (arXiv:2505.12366, δ)."""

GEPO_BETA = 0.1
"""β of GEPO's implicit reward β·log(π/π_ref). Assumed: the paper's (arXiv:2505.12723) was not read; 0.1 is what DPO is mostly used with."""
GEPO_SPREAD = 1.0
"""λ of the variance of the winners' rewards in GEPO (arXiv:2505.12723)."""

PENALTIES: Registry[PenaltyRule] = Registry("regulariser")


def k3(log_ratio_BT: Tensor) -> Tensor:
    """exp(d) − d − 1 ≥ 0, an unbiased estimate of KL(p ‖ q) on samples of p with d = log q − log p (Schulman 2020, "k3")."""
    return log_ratio_BT.exp() - log_ratio_BT - 1


def _kl_ref(logp_BT: Tensor, before_BT: Tensor, ref_BT: Tensor | None, advantages_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """k3 of KL(policy ‖ reference) (GRPO, arXiv:2402.03300 Eq. 4)."""
    assert ref_BT is not None
    return k3((ref_BT - logp_BT) * mask_BT)


def action_runs(mask_BT: Tensor) -> Tensor:
    """Number of the action each token belongs to, (B, T), 0 outside: an action is an unbroken run of trained tokens.

    Text that others wrote into a completion (tool results) is not trained and parts two actions; a completion without any is one.
    """
    trained_BT = mask_BT > 0
    begins_BT = trained_BT.clone()
    begins_BT[:, 1:] &= ~trained_BT[:, :-1]
    return begins_BT.long().cumsum(1) * trained_BT


def llds_response(logp_BT: Tensor, before_BT: Tensor, ref_BT: Tensor | None, advantages_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """max(0, before − logp) on completions with A ≥ 0 whose log-prob fell as a whole (LLDS, arXiv:2512.04220 Eq. 10).

    Zero-advantage completions count as preserved, as in the paper. Falls within DEAD_ZONE are 0 with gradient 0; released code
    has no dead zone, and there rounding alone penalises about half of all tokens on the first update.
    """
    fall_BT = _fall(logp_BT, before_BT, advantages_BT, mask_BT)
    return _hinge(fall_BT) * (fall_BT.detach().sum(1, keepdim=True) > DEAD_ZONE)


def llds_action(logp_BT: Tensor, before_BT: Tensor, ref_BT: Tensor | None, advantages_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The same, on actions whose log-prob fell as a whole (Eq. 4); for a single-turn completion it is `llds_response`."""
    fall_BT = _fall(logp_BT, before_BT, advantages_BT, mask_BT)
    action_BT = action_runs(mask_BT)
    sums_BK = fall_BT.detach().new_zeros(len(fall_BT), int(action_BT.max()) + 1).scatter_add(1, action_BT, fall_BT.detach())
    return _hinge(fall_BT) * (sums_BK > DEAD_ZONE).gather(1, action_BT)


def llds_token(logp_BT: Tensor, before_BT: Tensor, ref_BT: Tensor | None, advantages_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The same, on every token that fell, whatever the others did (Eq. 9)."""
    return _hinge(_fall(logp_BT, before_BT, advantages_BT, mask_BT))


def answer_weights(answer_BT: Tensor, beta: float) -> Tensor:
    """β on tokens of the final answer, 1 elsewhere (LLDS-MA, arXiv:2512.04220 Eq. 5). `answer_BT` is 1.0 on answer tokens."""
    return 1 + (beta - 1) * answer_BT


def _fall(logp_BT: Tensor, before_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """How much less likely each preserved token has become, in nats; 0 on tokens with A < 0."""
    return (before_BT - logp_BT) * mask_BT * (advantages_BT >= 0)


def _hinge(fall_BT: Tensor) -> Tensor:
    return torch.where(fall_BT > DEAD_ZONE, fall_BT, 0.0)


def _unlikely(logp_BT: Tensor, before_BT: Tensor, ref_BT: Tensor | None, advantages_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """−log π of every sampled token: KL(old ‖ policy) but for a constant, so that all rollouts become likelier (REC, arXiv:2509.24203)."""
    return -logp_BT * mask_BT


def _moved_squared(logp_BT: Tensor, before_BT: Tensor, ref_BT: Tensor | None, advantages_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """(log π − log π_old)²: twice k2 of the KL to the policy that sampled, the half being part of the weight (OPMD of Kimi k1.5, arXiv:2501.12599)."""
    return ((logp_BT - before_BT) * mask_BT) ** 2


def _lost(logp_BT: Tensor, before_BT: Tensor, ref_BT: Tensor | None, advantages_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """log π_old − log π: k1 of KL(old ‖ policy) (DisCO, arXiv:2505.12366)."""
    return (before_BT - logp_BT) * mask_BT


def kl_excess(now_BT: Tensor, before_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """max(KL(old ‖ policy) − KL_BOUND, 0), k1 over the update's tokens: times its gradient this is that of half the squared hinge."""
    kl = ((before_BT - now_BT) * mask_BT).sum() / mask_BT.sum().clamp(min=1)
    return (kl - KL_BOUND).clamp(min=0)


def _drift_from_ref(logp_BT: Tensor, before_BT: Tensor, ref_BT: Tensor | None, advantages_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """log π − log π_ref of every token."""
    assert ref_BT is not None
    return (logp_BT - ref_BT) * mask_BT


def prefer_winners(rows: Scores) -> Tensor:
    """Mean over groups of −log σ(mean r̂ of winners − mean r̂ of losers) + Var(r̂ of winners), r̂ = β·log(π/π_ref) of a whole completion.

    GEPO (arXiv:2505.12723), λ = 1. Winners are rows with A > 0, losers rows with A < 0; a group without either adds 0 and is counted. Assumed,
    as the paper does not say: β = 0.1, the variance over n (so that a single winner has one, 0), and the mean over groups.
    """
    implicit_B = GEPO_BETA * rows.scores_B
    up_B, down_B = ((rows.advantages_B > 0) & rows.inside_B, (rows.advantages_B < 0) & rows.inside_B)
    ups_B, downs_B = group_sum(up_B.double(), rows), group_sum(down_B.double(), rows)
    won_B, lost_B = (group_sum(implicit_B * side_B, rows) / n_B.clamp(min=1) for side_B, n_B in ((up_B, ups_B), (down_B, downs_B)))
    spread_B = group_sum((implicit_B - won_B) ** 2 * up_B, rows) / ups_B.clamp(min=1)
    loss_B = softplus(lost_B - won_B) + GEPO_SPREAD * spread_B
    return mean_over_groups(torch.where((ups_B > 0) & (downs_B > 0), loss_B, 0.0), rows)


PENALTIES.register("gepo")(PenaltyRule(values=_drift_from_ref, over="groups", needs_reference=True, groups=prefer_winners))
PENALTIES.register("forward_kl")(PenaltyRule(values=_unlikely, over="method", needs_tied_groups=True))
PENALTIES.register("k2_before")(PenaltyRule(values=_moved_squared, over="method", needs_tied_groups=True))
PENALTIES.register("kl_hinge")(PenaltyRule(values=_lost, over="loss", needs_tied_groups=True, factor=kl_excess))
PENALTIES.register("kl_ref_k3")(PenaltyRule(values=_kl_ref, over="method", needs_reference=True, needs_tied_groups=True))
for _name, _values in (("llds_response", llds_response), ("llds_action", llds_action), ("llds_token", llds_token)):
    PENALTIES.register(_name)(PenaltyRule(values=_values, over="preserve", needs_tied_groups=True, answer_weighted=True))

"""One equation for every method: loss = Σ N ⊙ W ⊙ (−φ) + Σ_k λ_k · Σ N_k ⊙ reg_k, each term kept per token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from grpo_core.algorithms.group_objectives import Scores, pulls, slopes
from grpo_core.algorithms.normalisers import NORMALISERS
from grpo_core.algorithms.penalties import PENALTIES, answer_weights
from grpo_core.algorithms.surrogates import LEVELS, SURROGATES, Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A method's choices, resolved: registry names, clip bounds, and the penalties with λ > 0.

    `over` names the tokens a penalty is averaged over where that is not its rule's own choice; `answer_weight` is β of
    `answer_weights` for the penalties that allow it. `group` is a group objective and its number, None for a loss of tokens alone.
    `preference` is the weight of GEPO on a stream of its own, which is no part of a LossBatch. No ratio counts as more than `cap`: two-sided
    clipping (INTELLECT-2, arXiv:2505.07291; TRL's delta), which is the dual clip for A < 0.
    """

    surrogate: str
    level: str
    clip: tuple[float, float]
    normaliser: str
    penalties: Mapping[str, float]
    over: Mapping[str, str] = field(default_factory=dict)
    answer_weight: float = 1.0
    group: tuple[str, float] | None = None
    preference: float = 0.0
    cap: float = math.inf

    @property
    def needs_current(self) -> bool:
        """Whether an update's weights depend on its rows' log-probs under the current policy: one more pass, without gradient."""
        return self.group is not None or any(PENALTIES[name].factor or PENALTIES[name].groups for name in self.penalties)

    @property
    def needs_reference(self) -> bool:
        return any(PENALTIES[name].needs_reference for name in self.penalties)

    @property
    def needs_tied_groups(self) -> bool:
        """Whether rows with advantage 0 can have a gradient; if not, they may be skipped exactly."""
        return any(PENALTIES[name].needs_tied_groups for name in self.penalties)


@dataclass(frozen=True, slots=True, kw_only=True)
class LossBatch:
    """The fixed inputs of one update, all (B, T): `weights` (N ⊙ W) and `penalty_weights` already sum over the whole update.

    With a group objective the advantages are its pulls, and `objective` is its value under the current policy; None for other methods.
    `segment_BT` numbers the segments of ratios taken by segment. `penalty_offsets` are added to the terms of regularisers of whole
    groups, so that these sum to what they are worth.
    """

    before_BT: Tensor
    advantages_BT: Tensor
    mask_BT: Tensor
    weights_BT: Tensor
    penalty_weights: Mapping[str, Tensor]
    ref_BT: Tensor | None = None
    objective: Tensor | None = None
    penalty_offsets: Mapping[str, Tensor] = field(default_factory=dict)
    segment_BT: Tensor | None = None

    def rows(self, index: Tensor | slice | tuple[slice, slice]) -> LossBatch:
        """The same update restricted to some rows; losses of disjoint row sets add up to the whole."""
        return LossBatch(
            before_BT=self.before_BT[index],
            advantages_BT=self.advantages_BT[index],
            mask_BT=self.mask_BT[index],
            weights_BT=self.weights_BT[index],
            penalty_weights={name: w_BT[index] for name, w_BT in self.penalty_weights.items()},
            ref_BT=None if self.ref_BT is None else self.ref_BT[index],
            objective=self.objective,
            penalty_offsets={name: offset_BT[index] for name, offset_BT in self.penalty_offsets.items()},
            segment_BT=None if self.segment_BT is None else self.segment_BT[index],
        )

    def narrow(self, width: int) -> LossBatch:
        """The first `width` tokens of every row; nothing is lost when the rest is padding."""
        return self.rows((slice(None), slice(width)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """`total` is the scalar to minimise; `terms` are (B, T) weighted per-token values that sum to it; `side` is (B, T) clip side."""

    total: Tensor
    terms: Mapping[str, Tensor]
    side_BT: Tensor


def loss_batch(
    objective: Objective,
    *,
    before_BT: Tensor,
    advantages_BT: Tensor,
    mask_BT: Tensor,
    max_length: int,
    ref_BT: Tensor | None = None,
    multipliers_BT: Tensor | None = None,
    answer_BT: Tensor | None = None,
    group_B: Tensor | None = None,
    now_BT: Tensor | None = None,
    segment_BT: Tensor | None = None,
) -> LossBatch:
    """Token weights of a whole update, from all its rows.

    `multipliers_BT` are the method's W: they weigh the policy term only, and do not enter the normaliser. `answer_BT` marks the
    tokens of the final answer with 1.0. `group_B` is read by a group objective and regularisers of whole groups alone; `now_BT` are log-probs under the current
    policy for methods that need them, None where that is the policy before the update.
    """
    now_BT = before_BT if now_BT is None else now_BT
    plain_BT = NORMALISERS[objective.normaliser](mask_BT, max_length)
    preserve_BT = mask_BT * (advantages_BT >= 0)
    over = {"method": plain_BT, "preserve": preserve_BT / preserve_BT.sum().clamp(min=1), "loss": mask_BT / mask_BT.sum().clamp(min=1)}

    def of_groups(name: str, coef: float) -> tuple[Tensor, Tensor]:
        """Token weights of a regulariser of whole groups, and what makes its term its value."""
        assert group_B is not None
        values_BT = PENALTIES[name].values(now_BT, before_BT, ref_BT, advantages_BT, mask_BT).detach()
        rows = Scores(scores_B=values_BT.sum(1), advantages_B=_row_mean(advantages_BT, mask_BT), group_B=group_B, inside_B=mask_BT.sum(1) > 0)
        slope_B, value = slopes(PENALTIES[name].groups, rows)
        weights_BT = coef * slope_B.to(mask_BT.dtype)[:, None] * mask_BT
        return weights_BT, coef * value.to(mask_BT.dtype) * over["loss"] - weights_BT * values_BT

    def penalty_weights(name: str, coef: float) -> Tensor:
        rule = PENALTIES[name]
        weights_BT = coef * over[objective.over.get(name, rule.over)]
        if rule.factor is not None:
            weights_BT = weights_BT * rule.factor(now_BT, before_BT, mask_BT)
        return weights_BT * answer_weights(answer_BT, objective.answer_weight) if rule.answer_weighted and answer_BT is not None else weights_BT

    grouped = {name: of_groups(name, coef) for name, coef in objective.penalties.items() if PENALTIES[name].groups}
    weighed = {name: grouped[name][0] if name in grouped else penalty_weights(name, coef) for name, coef in objective.penalties.items()}
    value = None
    if objective.group is not None:
        assert group_B is not None
        name, number = objective.group
        pulls_B, value = pulls(name, _scores(objective, now_BT, before_BT, advantages_BT, mask_BT, group_B, segment_BT), number)
        advantages_BT = pulls_B[:, None] * mask_BT
    return LossBatch(
        before_BT=before_BT,
        advantages_BT=advantages_BT,
        mask_BT=mask_BT,
        weights_BT=plain_BT if multipliers_BT is None else plain_BT * multipliers_BT,
        penalty_weights=weighed,
        ref_BT=ref_BT,
        objective=value,
        penalty_offsets={name: offset_BT for name, (_, offset_BT) in grouped.items()},
        segment_BT=segment_BT,
    )


def _scores(
    objective: Objective, now_BT: Tensor, before_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, group_B: Tensor, segment_BT: Tensor | None
) -> Scores:
    """Every row's mean of the surrogate with A = 1 over its tokens, under the current policy."""
    tokens = Tokens(
        logp_BT=now_BT * mask_BT,
        log_ratio_BT=LEVELS[objective.level](now_BT, before_BT, mask_BT, segment_BT),
        advantages_BT=torch.ones_like(mask_BT),
        mask_BT=mask_BT,
    )
    scores_B = _row_mean(SURROGATES[objective.surrogate](tokens, objective.clip)[0], mask_BT)
    return Scores(scores_B=scores_B, advantages_B=_row_mean(advantages_BT, mask_BT), group_B=group_B, inside_B=mask_BT.sum(1) > 0)


def _row_mean(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over each row's tokens (B,), 0 for a row without any."""
    return (values_BT * mask_BT).sum(1) / mask_BT.sum(1).clamp(min=1)


def policy_loss(objective: Objective, logp_BT: Tensor, batch: LossBatch) -> Loss:
    """The loss of some rows of an update, differentiable in logp_BT (B, T)."""
    log_ratio_BT = LEVELS[objective.level](logp_BT, batch.before_BT, batch.mask_BT, batch.segment_BT)
    tokens = Tokens(
        logp_BT=logp_BT * batch.mask_BT,
        log_ratio_BT=log_ratio_BT.clamp(max=math.log(objective.cap)) if objective.cap < math.inf else log_ratio_BT,
        advantages_BT=batch.advantages_BT,
        mask_BT=batch.mask_BT,
    )
    objective_BT, side_BT = SURROGATES[objective.surrogate](tokens, objective.clip)
    if objective.cap < math.inf:
        side_BT = torch.where((log_ratio_BT > tokens.log_ratio_BT) & (batch.advantages_BT < 0), 1, side_BT).to(torch.int8)
    terms: dict[str, Tensor] = {"policy": -objective_BT * batch.weights_BT}
    for name, weights_BT in batch.penalty_weights.items():
        values_BT = PENALTIES[name].values(logp_BT, batch.before_BT, batch.ref_BT, batch.advantages_BT, batch.mask_BT)
        terms[name] = values_BT * weights_BT + batch.penalty_offsets.get(name, 0.0)
    return Loss(total=sum((t.sum() for t in terms.values()), torch.zeros(())), terms=terms, side_BT=side_BT * (batch.mask_BT > 0))


def resolve(names: Sequence[str], coefs: Sequence[float]) -> dict[str, float]:
    """Penalties with λ > 0 by name; raises ValueError for a name that is not registered."""
    return {name: coef for name, coef in zip(names, coefs, strict=True) if PENALTIES[name] and coef > 0}

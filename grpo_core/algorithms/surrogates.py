"""The policy objective per token: φ(logp, ratio, A), and the level at which the ratio is taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from grpo_core.algorithms.registry import Registry
from grpo_core.algorithms.segments import segment_log_ratio

Bounds = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a surrogate reads, all (B, T): log-probs, log-ratios at the method's level (both 0 outside the mask), advantages, loss mask."""

    logp_BT: Tensor
    log_ratio_BT: Tensor
    advantages_BT: Tensor
    mask_BT: Tensor


LEVELS: Registry[Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]] = Registry("ratio level")
"""Each takes log-probs now and before, the loss mask and the number of each token's segment (−1 outside; None: a completion is one)."""
SURROGATES: Registry[Callable[[Tokens, Bounds], tuple[Tensor, Tensor]]] = Registry("surrogate")
"""Each gives the objective (to maximise) and the side on which a bound held the token (−1 low, 0 none, +1 high), both (B, T)."""

SAPO_TEMPERATURES = (1.0, 1.05)
"""For tokens with A > 0 and with A ≤ 0 (arXiv:2511.20347)."""
VESPO_SHAPES = ((2.0, 3.0), (3.0, 2.0))
"""k and λ for A ≥ 0 and for A < 0 (arXiv:2602.10693, TRL's defaults)."""
VESPO_RANGE = (math.log(1e-8), 20.0)
REC_RING = (0.6, 2.0)
"""How far below and above 1 the outer bounds of REC-Ring lie (arXiv:2509.24203, default_args of its code; its constructor says 0.4, 0.4)."""
DUAL_CLIP = 3.0
"""Times A that a token with A < 0 is pushed at most (arXiv:1912.09729; verl's default)."""


@LEVELS.register("token")
def token_level(logp_BT: Tensor, before_BT: Tensor, mask_BT: Tensor, segment_BT: Tensor | None = None) -> Tensor:
    """Log-ratio of each token, (B, T), 0 outside the mask."""
    return (logp_BT - before_BT) * mask_BT


@LEVELS.register("sequence")
def sequence_level(logp_BT: Tensor, before_BT: Tensor, mask_BT: Tensor, segment_BT: Tensor | None = None) -> Tensor:
    """Mean log-ratio of the whole completion on each of its tokens, (B, T): the log of the geometric mean (GSPO, arXiv:2507.18071 Eq. 7)."""
    return _row_mean(token_level(logp_BT, before_BT, mask_BT), mask_BT)


@LEVELS.register("sequence_sum")
def sequence_sum_level(logp_BT: Tensor, before_BT: Tensor, mask_BT: Tensor, segment_BT: Tensor | None = None) -> Tensor:
    """Log-ratio of the whole completion, summed over its tokens, on each of them (B, T): the true importance weight (VESPO, arXiv:2602.10693)."""
    return token_level(logp_BT, before_BT, mask_BT).sum(1, keepdim=True) * mask_BT


@LEVELS.register("segment")
def segment_level(logp_BT: Tensor, before_BT: Tensor, mask_BT: Tensor, segment_BT: Tensor | None = None) -> Tensor:
    """Mean log-ratio of the token's segment on each of its tokens, (B, T): the log of a geometric mean per item (Rank-GRPO, its released code).

    A token of the loss outside every segment has ratio 1 and no gradient.
    """
    found_BT = torch.zeros_like(mask_BT, dtype=torch.long) if segment_BT is None else segment_BT
    return segment_log_ratio(logp_BT, before_BT, found_BT.masked_fill(mask_BT == 0, -1))


@SURROGATES.register("clip")
def clip(tokens: Tokens, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """min(ρA, clip(ρ, 1−low, 1+high)·A) per token with ρ = exp(log-ratio).

    PPO (arXiv:1707.06347 Eq. 7); low < high is DAPO's clip-higher (arXiv:2503.14476 Eq. 10).
    """
    low, high = bounds
    ratio_BT = tokens.log_ratio_BT.exp()
    free_BT = ratio_BT * tokens.advantages_BT
    held_BT = ratio_BT.clamp(1 - low, 1 + high) * tokens.advantages_BT
    return torch.minimum(free_BT, held_BT), _side((held_BT < free_BT) & (ratio_BT < 1), (held_BT < free_BT) & (ratio_BT > 1))


@SURROGATES.register("dual_clip")
def dual_clip(tokens: Tokens, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """`clip`, and where A < 0 no less than 3·A: a token far likelier than when it was written is not pushed down without bound.

    Dual clip (arXiv:1912.09729), c = 3 as in verl.
    """
    clipped_BT, side_BT = clip(tokens, bounds)
    least_BT = DUAL_CLIP * tokens.advantages_BT
    held_BT = (tokens.advantages_BT < 0) & (clipped_BT < least_BT)
    return torch.where(held_BT, least_BT, clipped_BT), torch.where(held_BT, 1, side_BT).to(torch.int8)


@SURROGATES.register("reinforce")
def reinforce(tokens: Tokens, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """A · r per token with r = exp(log π − sg log π), which is 1 in value: gradient A · ∇ log π at every update, nothing clipped."""
    return (tokens.log_ratio_BT - tokens.log_ratio_BT.detach()).exp() * tokens.advantages_BT, _no_side(tokens)


@SURROGATES.register("log_prob")
def log_prob(tokens: Tokens, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """A · log π per token: REINFORCE as it is written, with no ratio and nothing clipped."""
    return tokens.advantages_BT * tokens.logp_BT, _no_side(tokens)


@SURROGATES.register("ratio")
def ratio(tokens: Tokens, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """ρA per token, with nothing clipped (importance-weighted policy gradient)."""
    return tokens.log_ratio_BT.exp() * tokens.advantages_BT, _no_side(tokens)


@SURROGATES.register("log_ratio")
def log_ratio(tokens: Tokens, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """A · log ρ per token; at the level `sequence_sum` log ρ is that of the whole completion (Reg-GRPO, arXiv:2506.07464)."""
    return tokens.advantages_BT * tokens.log_ratio_BT, _no_side(tokens)


def one_side(ratio_BT: Tensor, advantages_BT: Tensor, bounds: Bounds) -> Tensor:
    """Where the ratio has not yet left [1−low, 1+high] in the direction A pushes: where PPO's clip has a gradient."""
    low, high = bounds
    return ~((advantages_BT > 0) & (ratio_BT > 1 + high)) & ~((advantages_BT < 0) & (ratio_BT < 1 - low))


def two_side(ratio_BT: Tensor, advantages_BT: Tensor, bounds: Bounds) -> Tensor:
    """Where the ratio lies in [1−low, 1+high]."""
    low, high = bounds
    return (ratio_BT >= 1 - low) & (ratio_BT <= 1 + high)


def ring(ratio_BT: Tensor, advantages_BT: Tensor, bounds: Bounds) -> Tensor:
    """Inside the two bounds, and far beyond them on the side from which A pulls back: below 1 − 0.6 for A > 0, above 1 + 2 for A < 0."""
    outer_low, outer_high = REC_RING
    back_BT = ((advantages_BT > 0) & (ratio_BT <= 1 - outer_low)) | ((advantages_BT < 0) & (ratio_BT >= 1 + outer_high))
    return two_side(ratio_BT, advantages_BT, bounds) | back_BT


def _region(inside: Callable[[Tensor, Tensor, Bounds], Tensor], *, weighted: bool) -> Callable[[Tokens, Bounds], tuple[Tensor, Tensor]]:
    """sg(ρ) · 1[ρ inside] · A · log π, or the same without ρ (REC, arXiv:2509.24203)."""

    def surrogate(tokens: Tokens, bounds: Bounds) -> tuple[Tensor, Tensor]:
        ratio_BT = tokens.log_ratio_BT.detach().exp()
        inside_BT = inside(ratio_BT, tokens.advantages_BT, bounds)
        weight_BT = torch.where(inside_BT, ratio_BT if weighted else torch.ones_like(ratio_BT), 0.0)
        return weight_BT * tokens.advantages_BT * tokens.logp_BT, _side(~inside_BT & (ratio_BT < 1), ~inside_BT & (ratio_BT > 1))

    return surrogate


for _inside in (one_side, two_side, ring):
    SURROGATES.register(f"{_inside.__name__}")(_region(_inside, weighted=False))
    SURROGATES.register(f"{_inside.__name__}_weighted")(_region(_inside, weighted=True))


@SURROGATES.register("clipped_weight")
def clipped_weight(tokens: Tokens, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """sg(clip(ρ, 1−low, 1+high)) · A · log π: the importance weight is held at its bounds and no token loses its gradient.

    CISPO (arXiv:2506.13585 Eq. 4-5). TRL has the upper bound alone, and means by its `epsilon_high` the bound itself, 1 + high.
    """
    low, high = bounds
    ratio_BT = tokens.log_ratio_BT.detach().exp()
    return ratio_BT.clamp(1 - low, 1 + high) * tokens.advantages_BT * tokens.logp_BT, _side(ratio_BT < 1 - low, ratio_BT > 1 + high)


@SURROGATES.register("soft_gate")
def soft_gate(tokens: Tokens, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """(4/τ) · σ(τ(ρ − 1)) · A: the gradient fades on both sides of ρ = 1, sooner for A ≤ 0 (SAPO, arXiv:2511.20347)."""
    above, below = SAPO_TEMPERATURES
    temperature_BT = torch.where(tokens.advantages_BT > 0, above, below).to(tokens.log_ratio_BT.dtype)
    gate_BT = torch.sigmoid(temperature_BT * (tokens.log_ratio_BT.exp() - 1)) * 4 / temperature_BT
    return gate_BT * tokens.advantages_BT, _no_side(tokens)


@SURROGATES.register("gamma_gate")
def gamma_gate(tokens: Tokens, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """sg(φ(ρ)) · A · log π with φ(ρ) = e^λ ρ^k e^(−λρ), which is 1 at ρ = 1 (VESPO, arXiv:2602.10693, as in TRL).

    k and λ are VESPO_SHAPES; log ρ is kept within VESPO_RANGE.
    """
    (k_up, rate_up), (k_down, rate_down) = VESPO_SHAPES
    log_ratio_BT = tokens.log_ratio_BT.detach().clamp(*VESPO_RANGE)
    up_BT, down_BT = (rate + k * log_ratio_BT - rate * log_ratio_BT.exp() for k, rate in ((k_up, rate_up), (k_down, rate_down)))
    weight_BT = torch.where(tokens.advantages_BT >= 0, up_BT, down_BT).exp()
    return weight_BT * tokens.advantages_BT * tokens.logp_BT, _no_side(tokens)


@SURROGATES.register("geometric_clip")
def geometric_clip(tokens: Tokens, bounds: Bounds) -> tuple[Tensor, Tensor]:
    """ρ̄ · A on every token, ρ̄ the geometric mean of the completion's token ratios, each held first: log ρ ≤ high where A > 0, ≥ −low where A < 0.

    GMPO (arXiv:2507.20673 Eq. 4). Takes log-ratios of the token level; its bounds are in nats.
    """
    low, high = bounds
    up_BT, log_ratio_BT = tokens.advantages_BT > 0, tokens.log_ratio_BT
    held_BT = torch.where(up_BT, log_ratio_BT.clamp(max=high), log_ratio_BT.clamp(min=-low))
    ratio_BT = _row_mean(held_BT, tokens.mask_BT).exp()
    return ratio_BT * tokens.advantages_BT, _side(~up_BT & (log_ratio_BT < -low), up_BT & (log_ratio_BT > high))


def _row_mean(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean of each row's tokens on each of them (B, T); the values are 0 outside the mask."""
    return values_BT.sum(1, keepdim=True) / mask_BT.sum(1, keepdim=True).clamp(min=1) * mask_BT


def _side(low_BT: Tensor, high_BT: Tensor) -> Tensor:
    return high_BT.to(torch.int8) - low_BT.to(torch.int8)


def _no_side(tokens: Tokens) -> Tensor:
    return torch.zeros_like(tokens.log_ratio_BT, dtype=torch.int8)

"""A config's method with its numbers filled in: what the trainer optimises and the laboratory weighs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from grpo_core import streams
from grpo_core.algorithms.credit import credit
from grpo_core.algorithms.loss import Objective, resolve
from grpo_core.algorithms.nthr import Pull
from grpo_core.algorithms.segments import SPREADS, Earned, rank_rewards, ratio_segments
from grpo_core.algorithms.values import Facts
from grpo_core.algorithms.weights import Written, token_weights
from grpo_core.config import RunConfig
from grpo_core.method_row import Method, Penalty

RANK = "rank_"
"""How reward parts begin that judge one item of a ranked list, in order of rank."""


def objective_of(config: RunConfig) -> Objective:
    """The method's choices with the config's overrides."""
    method = config.method_row
    low, high = method.clip or (0.0, 0.0)
    names = [_penalty_name(penalty, config) for penalty in method.penalties]
    coefs = {name: config.strength(p.knob, p.coef) for name, p in zip(names, method.penalties, strict=True)}
    preference = coefs.pop("gepo", 0.0) if config.preferences else 0.0
    llds = {name: config.llds_normaliser for name, p in zip(names, method.penalties, strict=True) if p.knob == "llds_coef"}
    return Objective(
        surrogate=method.surrogate,
        level=method.level,
        clip=(config.strength("clip_low", low), config.strength("clip_high", high)),
        normaliser=method.normaliser,
        penalties=resolve(list(coefs), list(coefs.values())),
        over=llds,
        answer_weight=config.llds_answer_weight,
        group=None if method.group is None else (method.group.name, config.strength(method.group.knob, method.group.value)),
        preference=preference,
        cap=math.inf if config.clip_cap is None else config.clip_cap,
    )


def method_of(config: RunConfig) -> Method:
    """The method's row with the config's numbers in its credit and weights."""
    method = config.method_row
    return replace(
        method,
        credit=tuple(replace(c, weight=config.strength(c.knob, c.weight), at=config.strength(c.at_knob, c.at)) for c in method.credit),
        weights=tuple(replace(w, value=config.strength(w.knob, w.value)) for w in method.weights),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Credited:
    """What a method's credit makes of a batch: every token's advantage (B, T), every rollout's baseline (B,), and the segments of its ratios."""

    advantages_BT: Tensor
    baseline_B: Tensor
    segment_BT: Tensor | None


def credited(method: Method, facts: Facts, group_B: Tensor, *, inside_BT: Tensor, item_BT: Tensor | None) -> Credited:
    """Advantages of all tokens of the completions, which `inside_BT` marks; `item_BT` numbers their items where they are lists. All on one device."""
    scored_B = ~facts.rewards_B.isnan()
    advantages_B, baseline_B = credit(facts, group_B, scored_B, method.credit, whole=method.whole)
    earned = Earned(advantages_B=advantages_B, ranks_BK=facts.ranks_BK, group_B=group_B, scored_B=scored_B)
    by_rank = item_BT is not None and facts.ranks_BK is not None
    return Credited(
        advantages_BT=SPREADS[method.spread](earned, inside_BT.double(), item_BT),
        baseline_B=baseline_B,
        segment_BT=ratio_segments(item_BT, facts.ranks_BK.shape[1]) if by_rank else None,
    )


def ranks_of(parts: Mapping[str, Tensor], config: RunConfig) -> Tensor | None:
    """What every rank earned (B, K), from the reward parts (B,) named rank_1, rank_2, …; None where there are none."""
    hits = [parts[name] for name in parts if name.startswith(RANK)]
    return rank_rewards(torch.stack(hits, dim=1), decay=config.rank_decay) if hits else None


def multipliers_of(
    method: Method, facts: Facts, *, ids_BT: Tensor, mask_BT: Tensor, group_B: Tensor, first_entropy: float, pull: Pull | None = None
) -> Tensor | None:
    """The method's token weights (B, T), None where it has none. `group_B` lies where `facts` do, the rest where the loss is taken.

    Signs are those of its first credit component: what was earned, before an entropy term moves it.
    """
    if not method.weights:
        return None
    earned_B, _ = credit(facts, group_B, ~facts.rewards_B.isnan(), method.credit[:1])
    device = mask_BT.device
    written = Written(
        ids_BT=ids_BT,
        mask_BT=mask_BT,
        group_B=group_B.to(device),
        advantages_B=earned_B.to(device),
        entropies_B=facts.entropies_B.to(device),
        first_entropy=first_entropy,
        reference_B=None if facts.reference_B is None else facts.reference_B.to(device),
        pull=pull,
    )
    return token_weights(written, method.weights)


def random_draws(seed: int, step: int, rollouts: int) -> Tensor:
    """A number in [0, 1) for every rollout of a step's batch, in order, the same for the same run seed and step."""
    return torch.from_numpy(streams.left_out(seed, step).random(rollouts))


def _penalty_name(penalty: Penalty, config: RunConfig) -> str:
    return f"llds_{config.llds_gate}" if penalty.knob == "llds_coef" else penalty.name

"""A config's method with its numbers filled in: what the trainer optimises and the laboratory weighs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from grpo_core.algorithms.credit import Facts, credit
from grpo_core.algorithms.loss import Objective, resolve
from grpo_core.algorithms.weights import Written, token_weights
from grpo_core.config import RunConfig
from grpo_core.methods import Method, Penalty

DRAWS = 2**23
"""The purpose of this stream of random numbers, which sets it apart from the trainer's own (trainer/collect.py)."""


def objective_of(config: RunConfig) -> Objective:
    """The method's choices with the config's overrides."""
    method = config.method_row
    low, high = method.clip or (0.0, 0.0)
    names = [_penalty_name(penalty, config) for penalty in method.penalties]
    llds = {name: config.llds_normaliser for name, p in zip(names, method.penalties, strict=True) if p.knob == "llds_coef"}
    return Objective(
        surrogate=method.surrogate,
        level=method.level,
        clip=(config.strength("clip_low", low), config.strength("clip_high", high)),
        normaliser=method.normaliser,
        penalties=resolve(names, [config.strength(p.knob, p.coef) for p in method.penalties]),
        over=llds,
        answer_weight=config.llds_answer_weight,
        group=None if method.group is None else (method.group.name, config.strength(method.group.knob, method.group.value)),
    )


def method_of(config: RunConfig) -> Method:
    """The method's row with the config's numbers in its credit and weights."""
    method = config.method_row
    return replace(
        method,
        credit=tuple(replace(c, weight=config.strength(c.knob, c.weight), at=config.strength(c.at_knob, c.at)) for c in method.credit),
        weights=tuple(replace(w, value=config.strength(w.knob, w.value)) for w in method.weights),
    )


def multipliers_of(method: Method, facts: Facts, *, ids_BT: Tensor, mask_BT: Tensor, group_B: Tensor, first_entropy: float) -> Tensor | None:
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
    )
    return token_weights(written, method.weights)


def random_draws(seed: int, step: int, rollouts: int) -> Tensor:
    """A number in [0, 1) for every rollout of a step's batch, in order, the same for the same run seed and step."""
    return torch.from_numpy(np.random.default_rng((seed, step, DRAWS)).random(rollouts))


def _penalty_name(penalty: Penalty, config: RunConfig) -> str:
    return f"llds_{config.llds_gate}" if penalty.knob == "llds_coef" else penalty.name

"""A config's method with its numbers filled in: what the trainer optimises and the laboratory weighs."""

from __future__ import annotations

from dataclasses import replace

from grpo_core.algorithms.loss import Objective, resolve
from grpo_core.config import RunConfig
from grpo_core.methods import Method, Penalty


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
    )


def method_of(config: RunConfig) -> Method:
    """The method's row with the config's numbers in its credit and weights."""
    method = config.method_row
    return replace(
        method,
        credit=tuple(replace(c, weight=config.strength(c.knob, c.weight)) for c in method.credit),
        weights=tuple(replace(w, value=config.strength(w.knob, w.value)) for w in method.weights),
    )


def _penalty_name(penalty: Penalty, config: RunConfig) -> str:
    return f"llds_{config.llds_gate}" if penalty.knob == "llds_coef" else penalty.name

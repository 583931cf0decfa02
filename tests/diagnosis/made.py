"""Histories made by hand: a healthy run by default, with some columns bent."""

from __future__ import annotations

import numpy as np

from grpo_core.diagnosis.history import Facts, History

FACTS = Facts(method="grpo", updates=2, group_size=8, max_new_tokens=24, lr=2e-4, epochs=2, planned_steps=100, clips=True, penalised=False, reference=False)


def noise(seed: int, n: int, scale: float) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, n)


def made(n: int = 60, facts: Facts = FACTS, **bent: object) -> History:
    """A run that learns from 0.4 to 0.9 in n steps; `bent` replaces columns by arrays, numbers or functions of the step."""
    s = np.arange(n)
    right = 0.4 + 0.5 * (1 - np.exp(-s / 20))
    every = lambda k, x: np.where(s % k == 0, x, np.nan)  # noqa: E731
    columns = {
        "reward_mean": right,
        "correct_rate": right,
        "eval_correct": every(10, right),
        "pass_at_1": right + noise(5, n, 0.02),
        "pass_at_half": 1 - (1 - right) ** 3 + noise(6, n, 0.02),
        "logp_correct": -0.05 + 0.03 * right,
        "delta_correct": 0.002 + noise(1, n, 0.0005),
        "displaced_correct": np.full(n, 0.2),
        "probe_logp": every(5, -0.1 + 0.08 * right),
        "probe_fell": every(5, np.full(n, 0.1)),
        "probe_delta": every(5, right),
        "entropy": 0.1 - 0.06 * right,
        "grad_norm_max": 0.5 + noise(2, n, 0.05),
        "kl_step": np.full(n, 0.001),
        "ess": np.full(n, 0.999),
        "clip_low": np.full(n, 0.003),
        "clip_high": np.full(n, 0.001),
        "length_mean": 18 + noise(3, n, 0.3),
        "truncated_rate": np.zeros(n),
        "repetition": np.full(n, 0.01),
        "loop_rate": np.zeros(n),
        "reward_length_corr": noise(4, n, 0.1),
        "inverted_pairs": np.zeros(n),
        "groups": np.full(n, 16.0),
        "groups_all_fail": np.round(3 * (1 - right)),
        "groups_all_pass": np.round(10 * right),
        "rollouts": np.full(n, 128.0),
        "rollouts_failed": np.zeros(n),
        "conflict_run": np.full(n, 1000.0),
        "conflict_mid": np.full(n, 50.0),
        "conflict_tokens": np.full(n, 1500.0),
        "conflict_pushed_down": np.full(n, 200.0),
    }
    for name, value in bent.items():
        columns[name] = np.array([value(int(step)) for step in s], "f8") if callable(value) else np.broadcast_to(np.asarray(value, "f8"), n).copy()
    return History(steps=s, columns=columns, facts=facts)

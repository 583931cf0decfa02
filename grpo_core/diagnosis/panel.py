"""Every signal, in the order they are shown."""

from __future__ import annotations

from collections.abc import Callable

from grpo_core.diagnosis.history import History
from grpo_core.diagnosis.levels import Signal
from grpo_core.diagnosis.signals import data, entropy, likelihood, paid, policy, rewards, text, updates

SIGNALS: tuple[Callable[[History], Signal], ...] = (
    rewards.held_out_fall,
    rewards.reward_fall,
    likelihood.displacement,
    likelihood.probe,
    entropy.explosion,
    entropy.collapse,
    entropy.hardening,
    updates.gradient_spikes,
    updates.step_kl,
    updates.sample_size,
    updates.clipping,
    policy.mismatch,
    policy.reference_kl,
    text.length,
    text.truncation,
    text.repetition,
    rewards.hacking,
    rewards.length_bought,
    paid.inverted,
    paid.paid_aside,
    paid.paid_by_length,
    rewards.sharpening,
    data.starvation,
    data.mastery,
    data.conflicts,
    rewards.failures,
)


def examine(history: History) -> tuple[Signal, ...]:
    """Every signal of a run so far."""
    return tuple(read(history) for read in SIGNALS)

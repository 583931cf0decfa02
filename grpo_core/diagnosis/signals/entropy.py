"""Entropy, both ways: exploding (the opposite face of a likelihood collapse) and vanishing before the task is solved, which begins as hardening."""

from __future__ import annotations

import numpy as np

from grpo_core.diagnosis.history import History
from grpo_core.diagnosis.levels import Evidence, Level, Signal
from grpo_core.diagnosis.signals.likelihood import change_of_correct
from grpo_core.diagnosis.signals.reading import at_worst, nothing, signal
from grpo_core.diagnosis.thresholds import THRESHOLDS
from grpo_core.diagnosis.trends import against_start, carried, trailing_mean

BASELINE = 5
SOLVED = 0.9
"""Share of correct rollouts from which low entropy is what a solved task looks like."""
MEASURE = dict(unit="× start", column="entropy")


def explosion(history: History) -> Signal:
    """Entropy against the run's first steps; above ln 2 where it began below, half of all tokens are no longer what the policy would pick."""
    entropy = history["entropy"]
    name = dict(name="entropy_rise", title="Entropy explosion", **MEASURE)
    if np.isnan(entropy).all():
        return nothing(history, **name, why="Not measured: the trace has no entropies.")
    start, times = against_start(entropy, BASELINE)
    levels = THRESHOLDS["entropy_rise"].levels(times)
    if start < np.log(2):
        levels = np.maximum(levels, np.where(times > 1.2, THRESHOLDS["policy_collapse"].levels(times * start), 0)).astype("i1")
    return signal(
        history,
        **name,
        levels=np.where(np.isnan(times), -1, levels),
        values=times,
        missing=f"Not enough data: {int((~np.isnan(entropy)).sum())} of {BASELINE} steps.",
        says={
            Level.HEALTHY: "Entropy is not above where the run began.",
            Level.WATCH: "Entropy rises above where the run began.",
            Level.UNHEALTHY: "Entropy has risen far above where the run began: the policy is coming apart.",
            Level.COLLAPSED: "Mean entropy is above ln 2: at most tokens the policy no longer has a favourite.",
        },
        evidence=(
            Evidence(label="entropy now", value=float(carried(entropy)[-1]), unit="nats/token", step=at_worst(history, entropy, lowest=False)),
            Evidence(label="entropy at the start", value=start, unit="nats/token"),
        ),
    )


def collapse(history: History) -> Signal:
    """Entropy against the run's first steps, divided by wrong rollouts against the first steps: a policy that grows certain as fast as it
    grows right stays near 1. Falling entropy alone is no alarm, nor is a solved task."""
    entropy, right = history["entropy"], history["correct_rate"]
    name = dict(name="entropy_fall", title="Entropy collapse", **MEASURE)
    if np.isnan(entropy).all():
        return nothing(history, **name, why="Not measured: the trace has no entropies.")
    start, times = against_start(entropy, BASELINE)
    _, wrong = against_start(1 - right, BASELINE)
    per_error = times / np.where(wrong > 0, wrong, 1.0)
    levels = THRESHOLDS["entropy_fall"].levels(per_error)
    levels = np.where(trailing_mean(right, BASELINE, least=1) >= SOLVED, np.minimum(levels, Level.HEALTHY), levels)
    levels = np.where(np.isnan(wrong), np.minimum(levels, Level.WATCH), levels)
    tied = (history["groups_all_fail"] + history["groups_all_pass"]) / history["groups"]
    return signal(
        history,
        **name,
        levels=levels,
        values=per_error,
        missing=f"Not enough data: {int((~np.isnan(entropy)).sum())} of {BASELINE} steps.",
        says={
            Level.HEALTHY: "The policy still explores, or has solved the task.",
            Level.WATCH: "Entropy falls much faster than errors do.",
            Level.UNHEALTHY: "The policy has stopped exploring although the task is not solved.",
            Level.COLLAPSED: "The policy writes the same whatever it is asked twice, and the task is not solved.",
        },
        evidence=(
            Evidence(label="entropy now", value=float(carried(entropy)[-1]), unit="nats/token", step=at_worst(history, entropy, lowest=True)),
            Evidence(label="groups with nothing to compare", value=float(carried(tied)[-1]), unit="share of groups"),
            Evidence(label="correct rollouts", value=float(carried(right)[-1]), unit="share"),
        ),
    )


def hardening(history: History) -> Signal:
    """What correct rollouts gain in log-prob over a window of updates, as a share of it, while entropy is not well above the first steps':
    learning gains less, and a policy that learns nothing but its own favourites gains several times what there was."""
    share = change_of_correct(history)
    name = dict(name="hardening", title="Hardening on what is already sampled", unit="share of log-prob", column="delta_correct")
    if np.isnan(share).all() or np.isnan(history["entropy"]).all():
        return nothing(history, **name, why="Not measured: no correct rollout was scored again after the updates (option rescore), or no entropies.")
    _, times = against_start(history["entropy"], BASELINE)
    return signal(
        history,
        **name,
        values=np.where((times >= THRESHOLDS["entropy_rise"].watch) & (share > 0), 0.0, share),
        says={
            Level.HEALTHY: "Correct rollouts do not gain more likelihood than learning explains.",
            Level.WATCH: "Correct rollouts gain likelihood several times over: the policy hardens on what it samples anyway.",
        },
        evidence=(Evidence(label="gained over the window, without regard to entropy", value=float(carried(share)[-1]), unit="share of log-prob"),),
    )

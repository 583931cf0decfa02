"""Are correct answers losing likelihood? Paired changes on the step's own rollouts, and a fixed probe set (LLD, arXiv:2512.04220)."""

from __future__ import annotations

import numpy as np

from grpo_core.diagnosis.history import History
from grpo_core.diagnosis.levels import Evidence, Level, Signal
from grpo_core.diagnosis.signals.reading import nothing, signal, worst
from grpo_core.diagnosis.thresholds import THRESHOLDS
from grpo_core.diagnosis.trends import best_so_far, carried, trailing

Array = np.ndarray

LEAST_FALL = 0.012
"""Nats per token the probe set must have lost before it counts how many times farther from certainty it is: near 0, ratios are noise."""
CLEAR_TIMES = 1.5
"""How many times its best distance from certainty the probe set must be for lost nats to be more than a watch: answers the policy is unsure of
drift by more nats than answers it is sure of."""
WINDOW = 8
LEAST = 3
VOID_PENALTY = " The LLDS penalty does nothing about it: with one update per rollout batch it is zero by construction."
FLOOR = 0.1
"""Nats per token: a log-prob closer to 0 than this is taken for this, or certain answers would lose all of it by a hair."""


def displacement(history: History) -> Signal:
    """Paired change of log-prob, after minus before each step's updates, over tokens of correct rollouts, summed over a window.

    As a share of their log-prob, so that a model that is sure of its answers and one that is not are judged alike.
    """
    delta = history["delta_correct"]
    name = dict(name="displacement", title="Likelihood of correct rollouts", unit="share of log-prob", column="delta_correct")
    if np.isnan(delta).all():
        return nothing(history, **name, why="Not measured: no correct rollout was scored again after the updates (option rescore).")
    share = change_of_correct(history)
    spiral = spiralling(delta)
    void = VOID_PENALTY if history.facts.penalised and history.facts.updates == 1 and not history.facts.clips else ""
    return signal(
        history,
        **name,
        values=share,
        missing=f"Not enough data: {int((~np.isnan(delta)).sum())} of {LEAST + 1} steps with correct rollouts that were scored again.",
        says={
            Level.HEALTHY: "Correct rollouts become more likely, or stay as likely, over each step's updates.",
            Level.WATCH: "The updates make correct rollouts less likely than they were." + void,
            Level.UNHEALTHY: "Correct rollouts lose likelihood step after step: lazy likelihood displacement." + void,
        },
        evidence=(
            worst(history, delta, label="lowest change per token lately", unit="nats/token", lowest=True),
            Evidence(label="correct rollouts less likely than before", value=float(carried(history["displaced_correct"])[-1]), unit="share"),
            Evidence(label="steps in a row with a negative and falling change", value=float(spiral[-1]), unit="steps"),
        ),
    )


def probe(history: History) -> Signal:
    """Log-prob per token of the probe set's known answers, below its best; or, once below its start, times its best distance from certainty.

    The latter is no more than a watch while the answers are as likely as when the run began: near certainty runs that end well give
    back a little of what they learned.
    """
    logp = history["probe_logp"]
    name = dict(name="probe", title="Likelihood of known answers", unit="nats/token", column="probe_logp")
    if np.isnan(logp).all():
        return nothing(history, **name, why="Not measured: the task has no worked answers, or probe_every is 0.")
    best = best_so_far(logp)
    below = logp - best
    times = np.where(-below >= LEAST_FALL, logp / np.minimum(best, -1e-9), 1.0)
    nats = THRESHOLDS["probe"].levels(below)
    nats = np.where(times < CLEAR_TIMES, np.minimum(nats, Level.WATCH), nats)
    farther = THRESHOLDS["probe_times"].levels(np.where(np.isnan(below), np.nan, times))
    learned = logp >= logp[~np.isnan(logp)][0]
    levels = np.maximum(nats, np.where(learned, np.minimum(farther, Level.WATCH), farther))
    return signal(
        history,
        **name,
        levels=levels,
        values=below,
        missing="Not enough data: the probe set has not been scored yet.",
        says={
            Level.HEALTHY: "The probe set's known answers are about as likely as they have ever been in this run.",
            Level.WATCH: "The probe set's known answers have become a little less likely than they were at their best.",
            Level.UNHEALTHY: "The probe set's known answers lose likelihood, though they are always the same answers.",
            Level.COLLAPSED: "The policy has all but forgotten the probe set's known answers.",
        },
        evidence=(
            worst(history, logp, label="lowest log-prob per token lately", unit="nats/token", lowest=True),
            Evidence(label="answers less likely than before training", value=float(carried(history["probe_fell"])[-1]), unit="share"),
        ),
    )


def change_of_correct(history: History) -> Array:
    """Paired change of correct rollouts' log-prob per token summed over the last WINDOW measured steps, as a share of that log-prob (S,)."""
    lost = trailing(history["delta_correct"], WINDOW, np.sum, least=LEAST)
    return lost / np.maximum(np.abs(trailing(history["logp_correct"], WINDOW, np.mean, least=1)), FLOOR)


def spiralling(delta: Array) -> Array:
    """Measured steps in a row, up to each step, whose change is at most 0 and below the one before: 3 or more is the death spiral (Def. A.3)."""
    count, before, out = 0, np.nan, np.zeros(len(delta), "i8")
    for i, value in enumerate(delta.tolist()):
        if value == value:
            count = count + 1 if value <= 0 and not value >= before else int(value <= 0)
            before = value
        out[i] = count
    return out

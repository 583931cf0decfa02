"""What the completions look like: length, truncation, repetition."""

from __future__ import annotations

import numpy as np

from grpo_core.diagnosis.history import History
from grpo_core.diagnosis.levels import Evidence, Level, Signal
from grpo_core.diagnosis.signals.reading import nothing, signal, worst
from grpo_core.diagnosis.thresholds import THRESHOLDS
from grpo_core.diagnosis.trends import against_start, carried, first_values, trailing_mean

WINDOW = 5
BASELINE = 5


def length(history: History) -> Signal:
    """Mean completion length against the run's first steps. Longer completions that are answered better are no drift."""
    tokens = history["length_mean"]
    name = dict(name="length", title="Length of completions", unit="× start", column="length_mean")
    if np.isnan(tokens).all():
        return nothing(history, **name, why="Not measured: the trace has no lengths.")
    start, times = against_start(tokens, BASELINE)
    right = trailing_mean(history["correct_rate"], WINDOW, least=1)
    better = right > first_values(history["correct_rate"], BASELINE) + 0.05
    levels = THRESHOLDS["length"].levels(times)  # of a run that gets better, longer is no drift
    return signal(
        history, **name, levels=np.where((levels > 0) & better, 0, levels), values=times,
        says={
            Level.HEALTHY: "Completions are not getting longer without getting better.",
            Level.WATCH: "Completions are getting longer without getting better.",
            Level.UNHEALTHY: "Completions have become much longer without getting better.",
        },
        evidence=(
            worst(history, tokens, label="longest mean lately", unit="tokens", lowest=False),
            Evidence(label="mean length at the start", value=start, unit="tokens"),
        ),
    )  # fmt: skip


def truncation(history: History) -> Signal:
    """Share of completions cut at the token limit."""
    cut = history["truncated_rate"]
    name = dict(name="truncation", title="Truncated completions", unit="share", column="truncated_rate")
    if np.isnan(cut).all():
        return nothing(history, **name, why="Not measured: the trace does not say how completions ended.")
    smooth = trailing_mean(cut, WINDOW, least=2)
    return signal(
        history, **name, values=smooth,
        says={
            Level.HEALTHY: "Nearly all completions end by themselves.",
            Level.WATCH: "Some completions run into the token limit.",
            Level.UNHEALTHY: "Most completions run into the token limit.",
            Level.COLLAPSED: "Practically no completion ends by itself.",
        },
        evidence=(worst(history, cut, label="cut, most lately", unit="share", lowest=False),),
    )  # fmt: skip


def repetition(history: History) -> Signal:
    """Share of a completion's 3-grams it has had before, above that of the run's first steps."""
    share = history["repetition"]
    name = dict(name="repetition", title="Repetition", unit="share", column="repetition")
    if np.isnan(share).all():
        return nothing(history, **name, why="Not measured: completions are shorter than three tokens, or were recorded by an older version.")
    above = trailing_mean(share, WINDOW, least=2) - first_values(share, BASELINE)
    return signal(
        history, **name, values=above,
        says={
            Level.HEALTHY: "Completions do not repeat themselves more than at the start.",
            Level.WATCH: "Completions repeat themselves more than at the start.",
            Level.UNHEALTHY: "Completions are stuck in loops.",
        },
        evidence=(
            worst(history, share, label="repeats, most lately", unit="share", lowest=False),
            Evidence(label="completions that loop", value=float(carried(history["loop_rate"])[-1]), unit="share"),
        ),
    )  # fmt: skip

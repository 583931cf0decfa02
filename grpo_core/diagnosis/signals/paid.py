"""What is paid besides being correct: whether the policy is learning that instead, and whether it is length."""

from __future__ import annotations

import numpy as np

from grpo_core.diagnosis.history import History
from grpo_core.diagnosis.levels import Evidence, Level, Signal
from grpo_core.diagnosis.signals.reading import nothing, signal, worst
from grpo_core.diagnosis.thresholds import THRESHOLDS
from grpo_core.diagnosis.trends import carried, risen_since_start, rolling_correlation

Array = np.ndarray

WINDOW = 10
"""Steps at the start and now whose means are compared: the prompts of one step are no measure of what is paid."""


def paid_aside(history: History) -> Signal:
    """Reward beyond correctness now against the run's first steps, in standard errors, while the share of correct rollouts has not risen and
    the reward as a whole has not fallen."""
    aside = _aside(history)
    name = dict(name="paid_aside", title="Reward beside correctness", unit="standard errors", column="reward_mean")
    if not (np.abs(aside) > 1e-9).any():
        return nothing(history, **name, why="Not available: the reward is the accuracy itself, or nothing says what is correct.")
    return signal(
        history,
        **name,
        values=_risen_instead(history),
        says={
            Level.HEALTHY: "What is paid besides being correct has not risen at its expense.",
            Level.WATCH: "What is paid besides being correct has risen, and the share of correct rollouts has not.",
        },
        evidence=(
            worst(history, aside, label="paid besides correctness, highest lately", unit="reward", lowest=False),
            Evidence(label="paid besides correctness now", value=float(carried(aside)[-1]), unit="reward"),
        ),
    )


def paid_by_length(history: History) -> Signal:
    """Correlation, from step to step, of the reward beyond correctness with the mean length, once that reward has risen and correctness has not."""
    aside = _aside(history)
    name = dict(name="paid_by_length", title="Reward that is length itself", unit="correlation", column="length_mean")
    if not (np.abs(aside) > 1e-9).any() or np.isnan(history["length_mean"]).all():
        return nothing(history, **name, why="Not available: the reward is the accuracy itself, or no lengths were recorded.")
    alike = rolling_correlation(aside, history["length_mean"], 2 * WINDOW, least=WINDOW)
    risen = _risen_instead(history) >= THRESHOLDS["paid_aside"].watch
    return signal(
        history,
        **name,
        values=np.where(risen, alike, np.minimum(alike, 0.0)),
        says={
            Level.HEALTHY: "What is paid besides being correct is not length.",
            Level.WATCH: "What is paid besides being correct goes up and down with length alone, and has risen.",
        },
        evidence=(worst(history, history["length_mean"], label="mean length, longest lately", unit="tokens", lowest=False),),
    )


def _aside(history: History) -> Array:
    """Mean reward less the share of correct rollouts (S,): what a step's rollouts earned otherwise, where being correct earns 1."""
    return history["reward_mean"] - history["correct_rate"]


def _risen_instead(history: History) -> Array:
    """Standard errors by which the reward beyond correctness is above its start (S,), 0 where correctness clearly is as well, or where the
    reward as a whole is clearly below: then nothing is being earned instead."""
    bound = THRESHOLDS["paid_aside"].watch
    aside, right, reward = (_clear(x) for x in (_aside(history), history["correct_rate"], history["reward_mean"]))
    return np.where((right >= bound) | (reward <= -bound), np.minimum(aside, 0.0), aside)


def _clear(x: Array) -> Array:
    """How far the last steps' mean is from the first steps', in standard errors (S,)."""
    change, error = risen_since_start(x, WINDOW)
    return change / np.maximum(error, 1e-9)

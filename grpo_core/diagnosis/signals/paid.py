"""What is paid besides being correct: whether it outweighs being correct, whether the policy is learning it instead, and whether it is length."""

from __future__ import annotations

import numpy as np

from grpo_core.diagnosis.history import History
from grpo_core.diagnosis.levels import Evidence, Level, Signal
from grpo_core.diagnosis.signals.reading import nothing, signal, worst
from grpo_core.diagnosis.thresholds import THRESHOLDS
from grpo_core.diagnosis.trends import carried, risen_since_start, trailing_mean

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


def inverted(history: History) -> Signal:
    """Inside groups, of the pairs of a correct and a wrong rollout, the share in which the wrong one earned more, over the last steps: what is paid is not
    what is wanted."""
    share = history["inverted_pairs"]
    name = dict(name="inverted", title="Wrong answers paid above right ones", unit="share of pairs", column="inverted_pairs")
    if not (np.abs(_aside(history)) > 1e-9).any():
        return nothing(history, **name, why="Not available: the reward is the accuracy itself, or nothing says what is correct.")
    if np.isnan(share).all():
        return nothing(history, **name, why="Not measured: no group had both a correct and a wrong rollout, or an earlier version recorded the run.")
    return signal(
        history,
        **name,
        values=_often_inverted(history),
        says={
            Level.HEALTHY: "Inside groups, correct rollouts earn at least as much as wrong ones.",
            Level.WATCH: "Inside groups, some wrong rollouts earn more than correct ones: the updates make them likelier.",
        },
        evidence=(worst(history, share, label="highest lately", unit="share of pairs", lowest=False),),
    )


def paid_by_length(history: History) -> Signal:
    """Correlation, inside groups, of the reward that correctness does not explain with length, over the last steps, once that reward outweighs correctness:
    it has risen and correctness has not, or wrong rollouts earn more than correct ones."""
    alike = history["paid_length_corr"]
    name = dict(name="paid_by_length", title="Reward that is length itself", unit="correlation", column="paid_length_corr")
    if not (np.abs(_aside(history)) > 1e-9).any():
        return nothing(history, **name, why="Not available: the reward is the accuracy itself, or nothing says what is correct.")
    if np.isnan(alike).all():
        return nothing(history, **name, why="Not measured: inside groups nothing else or no length varied, or an earlier version recorded the run.")
    smooth = trailing_mean(alike, WINDOW, least=1)
    outweighs = (_risen_instead(history) >= THRESHOLDS["paid_aside"].watch) | (_often_inverted(history) >= THRESHOLDS["inverted"].watch)
    return signal(
        history,
        **name,
        values=np.where(outweighs, smooth, np.minimum(smooth, 0.0)),
        says={
            Level.HEALTHY: "What is paid besides being correct is not length, or does not outweigh being correct.",
            Level.WATCH: "What is paid besides being correct is length, and it outweighs being correct.",
        },
        evidence=(worst(history, history["length_mean"], label="mean length, longest lately", unit="tokens", lowest=False),),
    )


def _aside(history: History) -> Array:
    """Mean reward less the share of correct rollouts (S,): what a step's rollouts earned otherwise, where being correct earns 1."""
    return history["reward_mean"] - history["correct_rate"]


def _often_inverted(history: History) -> Array:
    return trailing_mean(history["inverted_pairs"], WINDOW, least=1)


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

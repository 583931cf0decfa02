"""What is learned: reward and held-out accuracy against their best, and signs that the reward is not what it should be."""

from __future__ import annotations

import numpy as np

from grpo_core.diagnosis.history import History
from grpo_core.diagnosis.levels import Evidence, Level, Signal
from grpo_core.diagnosis.signals.reading import nothing, signal, worst
from grpo_core.diagnosis.thresholds import THRESHOLDS
from grpo_core.diagnosis.trends import best_so_far, carried, first_values, risen_since_start, trailing_mean

Array = np.ndarray

WINDOW = 5
NEAR_BEST = 0.25
"""Share of its rise by which a reward may be below its best and still count as at its height: rewards are noisy."""
LEAST_RATE = 0.02
"""Below this share of correct answers there is nothing to lose."""
TRIES_WINDOW = 10
"""Steps at the start and now over whose groups pass@k is taken: the prompts of two steps differ, those of ten are alike on average."""
RISEN = 0.02
"""By how much pass@1 must have risen before a falling pass@k is sharpening and not a run that gets worse."""
CLEAR = 2.0
"""Standard errors by which pass@k must have fallen: with few groups per step, pass@k is a handful of coins."""


def reward_fall(history: History) -> Signal:
    """Share of correct rollouts (or the reward, where nothing says what is correct) below the best it has been."""
    right, column = _rate(history)
    name = dict(name="reward_fall", title="Training reward", unit="share of the best lost", column=column)
    if np.isnan(right).all():
        return nothing(history, **name, why="Not measured: no rollout has a score.")
    lost = _lost(trailing_mean(right, WINDOW, least=2))
    return signal(
        history, **name, values=lost,
        says={
            Level.HEALTHY: "Training rollouts are as good as they have been.",
            Level.WATCH: "Training rollouts are worse than they were.",
            Level.UNHEALTHY: "Training rollouts have become much worse than they were.",
            Level.COLLAPSED: "Training rollouts have lost most of what they had.",
        },
        evidence=(
            worst(history, right, label="lowest lately", unit="share", lowest=True),
            Evidence(label="at best", value=float(np.nanmax(right)), unit="share"),
        ),
    )  # fmt: skip


def held_out_fall(history: History) -> Signal:
    """Held-out accuracy below the best it has been: the one figure the reward function cannot flatter."""
    right = history["eval_correct"]
    name = dict(name="held_out_fall", title="Held-out accuracy", unit="share of the best lost", column="eval_correct")
    if np.isnan(right).all():
        return nothing(history, **name, why="Not measured: the run has no held-out prompts, or eval_every is 0.")
    lost = np.where(np.isnan(right) | ~(best_so_far(right) > LEAST_RATE), np.nan, _lost(right))
    return signal(
        history, **name, values=lost, count=1, missing="Not available: hardly a held-out prompt has been answered yet, so there is nothing to lose.",
        says={
            Level.HEALTHY: "Held-out accuracy is as good as it has been.",
            Level.WATCH: "Held-out accuracy is below its best.",
            Level.UNHEALTHY: "Held-out accuracy has lost a large part of its best.",
            Level.COLLAPSED: "Held-out accuracy has lost most of what it had.",
        },
        evidence=(
            worst(history, right, label="lowest lately", unit="share", lowest=True),
            Evidence(label="at best", value=float(np.nanmax(right)), unit="share"),
        ),
    )  # fmt: skip


def hacking(history: History) -> Signal:
    """The reward at its height while what it stands for is below its best: training rollouts that are correct, or held-out accuracy.

    The worse of the two counts: training rollouts show it first, held-out prompts cannot be flattered.
    """
    reward = trailing_mean(history["reward_mean"], WINDOW, least=2)
    right, held_out = trailing_mean(history["correct_rate"], WINDOW, least=2), carried(history["eval_correct"])
    name = dict(name="hacking", title="Reward against truth", unit="share of the best lost", column="reward_mean")
    if (np.isnan(right) & np.isnan(held_out)).all() or np.isnan(reward).all():
        return nothing(history, **name, why="Not measured: nothing besides the reward says whether an answer is right.")
    apart = np.abs(history["reward_mean"] - history["correct_rate"])
    if not (apart > 1e-9).any() and not np.isnan(apart).all():
        return nothing(history, **name, why="Not available: the reward is the accuracy itself.")
    start = carried(np.where(np.cumsum(~np.isnan(reward)) == 1, reward, np.nan))
    best = best_so_far(reward)
    at_height = (reward > start) & (best - reward <= NEAR_BEST * (best - start))
    lost = np.where(at_height, np.fmax(_lost(right), _lost(held_out)), 0.0)
    lost = np.where(np.isnan(reward), np.nan, lost)
    saturated = [part for part, stds in history.part_stds.items() if len(stds) and stds[-1] < 1e-9 and history.parts[part][-1] > 0]
    return signal(
        history, **name, values=lost,
        says={
            Level.HEALTHY: "The reward does not rise at the expense of what it stands for.",
            Level.WATCH: "The reward is at its height while accuracy is below its best.",
            Level.UNHEALTHY: "The reward rises while accuracy falls: the policy earns it in a way it was not meant to."
            + (f" Part {saturated[0]} is the same for every rollout." if saturated else ""),
        },
        evidence=(
            Evidence(label="reward now", value=float(carried(reward)[-1]), unit="reward"),
            Evidence(label="correct training rollouts now", value=float(carried(right)[-1]), unit="share", step=int(history.steps[-1])),
            Evidence(label="held-out accuracy now", value=float(held_out[-1]), unit="share"),
        ),
    )  # fmt: skip


def length_bought(history: History) -> Signal:
    """Correlation of total reward and length inside a step."""
    correlation = history["reward_length_corr"]
    name = dict(name="length_bought", title="Reward for length", unit="correlation", column="reward_length_corr")
    if np.isnan(correlation).all():
        return nothing(history, **name, why="Not available: rewards or lengths did not vary inside any step.")
    smooth = trailing_mean(correlation, WINDOW, least=3)
    return signal(
        history, **name, values=smooth,
        says={
            Level.HEALTHY: "Longer completions do not earn more.",
            Level.WATCH: "Longer completions earn more.",
            Level.UNHEALTHY: "The reward all but measures length.",
        },
        evidence=(worst(history, correlation, label="highest lately", unit="correlation", lowest=False),),
    )  # fmt: skip


def sharpening(history: History) -> Signal:
    """Change of pass@k, k half the group, against the run's first steps while pass@1 has risen: surer of what it can do, and fewer prompts it can solve at all.

    arXiv:2504.13837; pass@k by arXiv:2107.03374 Eq. 1 over the groups of training steps.
    """
    once, tries = history["pass_at_1"], history["pass_at_half"]
    name = dict(name="sharpening", title="Prompts solved in several tries", unit="share of prompts", column="pass_at_half")
    if np.isnan(tries).all():
        return nothing(history, **name, why="Not available: no group has two scored rollouts, so pass@k and pass@1 are the same.")
    surer, _ = risen_since_start(once, TRIES_WINDOW)
    change, error = risen_since_start(tries, TRIES_WINDOW)
    sharper = (surer >= RISEN) & (-change >= CLEAR * error)
    return signal(
        history, **name, levels=THRESHOLDS["sharpening"].levels(np.where(sharper | np.isnan(change), change, 0.0)), values=change,
        missing=f"Not enough data: {int((~np.isnan(tries)).sum())} of {TRIES_WINDOW + 1} steps.",
        says={
            Level.HEALTHY: "The policy solves as many prompts in several tries as at the start, or does not get better at the first try.",
            Level.WATCH: "The first try gets better while fewer prompts are solved in several: exploration is being lost.",
            Level.UNHEALTHY: "The first try gets better at the cost of many prompts that several tries used to solve: exploration is lost.",
        },
        evidence=(
            Evidence(label="pass@k now", value=float(trailing_mean(tries, TRIES_WINDOW, least=1)[-1]), unit="share of prompts"),
            Evidence(label="pass@k at the start", value=first_values(tries, TRIES_WINDOW), unit="share of prompts"),
            Evidence(label="pass@1 now", value=float(trailing_mean(once, TRIES_WINDOW, least=1)[-1]), unit="share of rollouts"),
            Evidence(label="pass@1 at the start", value=first_values(once, TRIES_WINDOW), unit="share of rollouts"),
            worst(history, tries, label="lowest pass@k of a step lately", unit="share of prompts", lowest=True),
        ),
    )  # fmt: skip


def failures(history: History) -> Signal:
    """Rollouts whose reward function raised or gave no number."""
    share = history["rollouts_failed"] / history["rollouts"]
    name = dict(name="failures", title="Failed rewards", unit="share of rollouts", column="rollouts_failed")
    if np.isnan(share).all():
        return nothing(history, **name, why="Not measured: the trace does not count failures.")
    smooth = trailing_mean(share, WINDOW, least=1)
    return signal(
        history, **name, values=smooth, count=1,
        says={
            Level.HEALTHY: "The reward functions score every rollout.",
            Level.WATCH: "The reward functions fail on some rollouts; the group page shows what they raised.",
            Level.UNHEALTHY: "The reward functions fail on a large part of the rollouts.",
        },
        evidence=(worst(history, share, label="highest lately", unit="share of rollouts", lowest=False),),
    )  # fmt: skip


def _rate(history: History) -> tuple[Array, str]:
    right = history["correct_rate"]
    return (history["reward_mean"], "reward_mean") if np.isnan(right).all() else (right, "correct_rate")


def _lost(x: Array) -> Array:
    """How much of the best so far is gone, as a share of it; 0 while the best is still next to nothing."""
    best = best_so_far(x)
    return np.where(best > LEAST_RATE, (best - carried(x)) / np.maximum(best, LEAST_RATE), np.where(np.isnan(best), np.nan, 0.0))

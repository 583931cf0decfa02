"""A run and a step in plain sentences. Facts only; verdicts are the diagnosis's business."""

from __future__ import annotations

import numpy as np
import pandas as pd

from grpo_core.launch.status import RunStatus
from pages.components import series
from pages.components.text import about, ago, counted, duration, fixed, listed, number, percent

WINDOW, BACK = 10, 25
STEADY = 0.01
"""A change of mean reward below this is called steady."""


def run_sentences(status: RunStatus, steps: pd.DataFrame) -> list[str]:
    """Where the run stands, how its reward has moved, and what became of the likelihood of correct rollouts."""
    return [_where(status), *filter(None, [_reward(steps), _likelihood(steps), _held_out(steps)])]


def step_sentence(step: int, groups: pd.DataFrame) -> str:
    """`Step 42: 16 groups, of which 9 mixed, 5 all wrong and 2 all correct; mean reward 0.41; all kept in the loss.`"""
    names = {"mixed": "mixed", "all_fail": "all wrong", "all_pass": "all correct", "tied": "tied", "failed": "not scored", "replayed": "replayed"}
    counts = [f"{n} {names.get(outcome, outcome)}" for outcome, n in groups["outcome"].value_counts().items()]
    dropped = int((~groups["kept"].astype(bool)).sum())
    mean = np.nanmean(np.concatenate([np.asarray(rewards, "f8") for rewards in groups["rewards"]])) if len(groups) else np.nan
    kept = "all kept in the loss" if not dropped else f"{dropped} dropped from the loss"
    return f"Step {step}: {counted(len(groups), 'group')}, of which {listed(counts)}; mean reward {fixed(mean)}; {kept}."


def group_sentence(group, rollouts: pd.DataFrame) -> str:
    """`3 of 8 correct; mean 0.38, std 0.48; advantages +1.29 and −0.77.`"""
    scored = rollouts["reward"].notna().sum()
    replayed, worked = (int(rollouts["source"].eq(source).sum()) for source in ("replay", "reference"))
    sampled = group.size - replayed - worked
    parts = [f"{group.correct} of {sampled} correct"] if sampled > 0 else []
    if replayed:
        parts.append(f"{counted(replayed, 'rollout')} replayed, not sampled in this step")
    if worked:
        parts.append(f"{counted(worked, 'worked answer')} beside them, not sampled")
    if scored < len(rollouts):
        parts.append(f"{len(rollouts) - scored} could not be scored")
    parts.append(f"mean reward {fixed(group.reward_mean)}, std {fixed(group.reward_std)}")
    return "; ".join([*parts, _advantages(rollouts)]) + "."


def _advantages(rollouts: pd.DataFrame) -> str:
    distinct = sorted({round(float(value), 2) + 0.0 for value in rollouts["advantage"].dropna()}, reverse=True)
    if not distinct:
        return "no advantages"
    if distinct == [0.0]:
        return "equal rewards, so every advantage is 0 and the group teaches nothing"
    if len(distinct) > 3:
        return f"advantages from {fixed(distinct[0], sign=True)} to {fixed(distinct[-1], sign=True)}"
    return f"advantages {listed([fixed(value, sign=True) for value in distinct])}"


def _where(status: RunStatus) -> str:
    if status.state == "starting" or (status.alive and not status.step):
        counter = f", {status.phase_done} of {status.phase_total}" if status.phase_total and status.phase != "training" else ""
        return f"{status.phase.capitalize() or 'Starting'}{counter}; the first step follows."
    done = f"step {status.step} of {status.steps}"
    if status.state == "running":
        left = f"{about(status.eta_s)} left" if status.eta_s is not None else ""
        return f"Running, {', '.join(filter(None, [done, status.message or left]))}."
    if status.state == "stopping":
        return f"Stopping after {done}: it finishes the step and writes a checkpoint."
    took = "" if status.ended_at is None or status.started_at is None else f" in {duration(status.ended_at - status.started_at)}"
    if status.state == "finished":
        return f"Finished all {counted(status.steps, 'step')}{took}."
    if status.state == "stopped":
        return f"Stopped at {done}{took}."
    return f"{status.state.capitalize()} at {done}, {ago(status.ended_at)}."


def _reward(steps: pd.DataFrame) -> str:
    reward = series.column(steps, "reward_mean")
    recent, change = series.window_means(reward, WINDOW, BACK)
    if np.isnan(recent):
        return ""
    correct, _ = series.window_means(series.column(steps, "correct_rate"), WINDOW, BACK)
    if np.isnan(change):
        moved = f"Mean reward {fixed(recent)}"
    elif abs(change) < STEADY:
        moved = f"Mean reward steady at {fixed(recent)} over {BACK} steps"
    else:
        moved = f"Mean reward {'up' if change > 0 else 'down'} {fixed(abs(change))} to {fixed(recent)} over {BACK} steps"
    return f"{moved}, {percent(correct)} of rollouts correct."


def _likelihood(steps: pd.DataFrame) -> str:
    recent, change = series.window_means(series.column(steps, "logp_correct"), WINDOW, BACK)
    if np.isnan(change):
        return ""
    direction = "more" if change > 0 else "less"
    return f"Correct rollouts are {number(abs(change), 2)} nats/token {direction} likely than {BACK} steps ago."


def _held_out(steps: pd.DataFrame) -> str:
    known = steps.loc[steps["eval_correct"].notna()] if "eval_correct" in steps else steps.iloc[:0]
    if known.empty:
        return ""
    return f"Held-out: {percent(float(known['eval_correct'].iloc[-1]))} correct at step {int(known['step'].iloc[-1])}."

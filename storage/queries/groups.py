"""Questions about one step's groups and one group's rollouts; each opens only the files that hold the step."""

from __future__ import annotations

import pandas as pd

from storage.reader import Store
from storage.schema import GROUPS, ROLLOUTS


def groups_of_step(store: Store, run_id: str, step: int) -> pd.DataFrame:
    """One row per group of the step, in order; all columns of `groups`."""
    sql = f"select {', '.join(c.name for c in GROUPS.columns)} from groups where step = ? order by group_index"
    return store.frame(run_id, sql, [step], steps=(step, step))


def verdicts_of_step(store: Store, run_id: str, step: int) -> pd.DataFrame:
    """One row per rollout of the step, in order, without text and traces: group_index, rollout_index, reward, correct, source."""
    sql = "select group_index, rollout_index, reward, correct, source from rollouts where step = ? order by group_index, rollout_index"
    return store.frame(run_id, sql, [step], steps=(step, step))


def rollouts_of_group(store: Store, run_id: str, step: int, group_index: int) -> pd.DataFrame:
    """One row per rollout of the group, in order; all columns of `rollouts`, traces as arrays, those not measured None."""
    sql = f"select {', '.join(c.name for c in ROLLOUTS.columns)} from rollouts where step = ? and group_index = ? order by rollout_index"
    return store.frame(run_id, sql, [step, group_index], steps=(step, step))


def vocabulary(store: Store, run_id: str) -> list[str]:
    """The text of every token id, in order; empty if the run never wrote it."""
    return store.frame(run_id, "select piece from vocabulary order by token_id")["piece"].tolist()


def prompt_history(store: Store, run_id: str, prompt_hash: str) -> pd.DataFrame:
    """Every group of one prompt that was sampled, without a hint, in order of step.

    Columns: step, group_index, reward_mean, correct, size (both without replays).
    """
    sql = """select step, group_index, reward_mean, correct, size - coalesce(replayed, 0) as size
             from groups where prompt_hash = ? and outcome <> 'replayed' and coalesce(hint_tokens, 0) = 0 order by step, group_index"""
    return store.frame(run_id, sql, [prompt_hash], skip_damaged=True)

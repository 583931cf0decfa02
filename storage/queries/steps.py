"""Run-level questions: one row per step, update, or bin of token position. Rollups only; no token is read."""

from __future__ import annotations

import pandas as pd

from storage.reader import Store
from storage.schema import POSITION, STEPS, UPDATE

COURSE = ("eval_correct", "reward_mean", "entropy", "logp_correct", "length_mean")
SERIES = tuple(c.name for c in STEPS.columns if c.name not in ("update_rows", "position_rows"))


def step_series(store: Store, run_id: str, after: int = -1) -> pd.DataFrame:
    """One row per step later than `after`, in order; all columns of `steps` but the nested rows.

    A damaged segment leaves a gap; `Store.damaged` names it. reward_parts holds a dict per step.
    """
    sql = f"select {', '.join(SERIES)} from steps where step > ? order by step"
    return store.frame(run_id, sql, [after], steps=(after + 1, None), skip_damaged=True)


def course(store: Store, run_id: str, after: int = -1) -> pd.DataFrame:
    """What runs are compared by, of the steps later than `after`, in order: step, elapsed_s and the columns of COURSE."""
    sql = f"select step, elapsed_s, {', '.join(COURSE)} from steps where step > ? order by step"
    return store.frame(run_id, sql, [after], steps=(after + 1, None), skip_damaged=True)


def update_series(store: Store, run_id: str, after: int = -1) -> pd.DataFrame:
    """One row per optimizer update of the steps later than `after`, in order: step and the fields of schema.UPDATE."""
    sql = f"select step, {', '.join(field.name for field in UPDATE)} from updates where step > ? order by step, update"
    return store.frame(run_id, sql, [after], steps=(after + 1, None), skip_damaged=True)


def position_profile(store: Store, run_id: str, step: int) -> pd.DataFrame:
    """One row per bin of token position of one step, in order: the fields of schema.POSITION."""
    sql = f"select {', '.join(field.name for field in POSITION)} from positions where step = ? order by bin"
    return store.frame(run_id, sql, [step], steps=(step, step))

"""Run-level questions: one row per step, or per bin of token position. Rollups only; no token is read."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa

from storage.frames import frame_of, pivoted
from storage.reader import Store
from storage.schema import POSITION, STEPS

MAPS = ("reward_parts", "reward_part_stds")
QUANTILES = ("delta_q05", "delta_q25", "delta_q50", "delta_q75", "delta_q95")
COURSE = ("eval_correct", "reward_mean", "entropy", "logp_correct", "length_mean")
NUMBERS = tuple(c.name for c in STEPS.columns if not pa.types.is_nested(c.type))


def step_series(store: Store, run_id: str, after: int = -1) -> pd.DataFrame:
    """One row per step later than `after`, in order; numbers only, so that tens of thousands of rows take no longer than their bytes do.

    The columns of `steps` that are numbers, delta_sum_quantiles as QUANTILES, and reward_parts and reward_part_stds as a column for each part, like
    'reward_parts.format', NaN where a step had no such part. A damaged segment leaves a gap; `Store.damaged` names it.
    """
    quantiles = [f"delta_sum_quantiles[{n}] as {name}" for n, name in enumerate(QUANTILES, 1)]
    sql = f"select {', '.join((*NUMBERS, *quantiles, *MAPS))} from steps where step > ? order by step"
    found = store.table(run_id, sql, [after], steps=(after + 1, None), skip_damaged=True)
    parts = {f"{name}.{part}": values for name in MAPS for part, values in pivoted(found[name]).items()}
    return frame_of(found.drop_columns(list(MAPS))).assign(**parts)


def course(store: Store, run_id: str, after: int = -1) -> pd.DataFrame:
    """What runs are compared by, of the steps later than `after`, in order: step, elapsed_s and the columns of COURSE."""
    sql = f"select step, elapsed_s, {', '.join(COURSE)} from steps where step > ? order by step"
    return store.frame(run_id, sql, [after], steps=(after + 1, None), skip_damaged=True)


def position_profile(store: Store, run_id: str, step: int) -> pd.DataFrame:
    """One row per bin of token position of one step, in order: the fields of schema.POSITION."""
    sql = f"select {', '.join(field.name for field in POSITION)} from positions where step = ? order by bin"
    return store.frame(run_id, sql, [step], steps=(step, step))

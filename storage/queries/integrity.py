"""What a check of the recording itself needs: scalars per rollout, no traces."""

from __future__ import annotations

import pandas as pd

from storage.reader import Store

STEPS_CHECKED = 64
ROLLOUTS_CHECKED = 4096
"""Of long completions so many are read in about a second."""


def scored_rollouts(store: Store, run_id: str, steps: int = STEPS_CHECKED) -> pd.DataFrame:
    """One row per rollout of kept groups in the newest steps, in order: up to `steps` of them, fewer where steps are large, at least one.

    Columns: step, group_index, reward, advantage, tokens (of its completion), traced (tokens with an advantage); what was thinned has equal ones.
    """
    last = store.last_step(run_id)
    first = 0 if last is None else max(0, last - _affordable(store, run_id, last, steps) + 1)
    sql = """select step, group_index, reward, advantage, if(thinned, length, len(token_ids)) as tokens, if(thinned, length, len(advantages)) as traced
               from rollouts join (select step, group_index from groups where kept) using (step, group_index)
              order by step, group_index, rollout_index"""
    return store.frame(run_id, sql, steps=(first, None), skip_damaged=True)


def _affordable(store: Store, run_id: str, last: int, steps: int) -> int:
    rollouts = store.frame(run_id, "select max(rollouts) as n from steps", steps=(last, last), skip_damaged=True)["n"].iloc[0]
    return max(1, min(steps, ROLLOUTS_CHECKED // max(int(rollouts) if rollouts == rollouts else 1, 1)))

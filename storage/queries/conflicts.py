"""Questions about conflict tokens: where in the completions they stand, and which tokens they are."""

from __future__ import annotations

import pandas as pd

from storage.reader import Store


def conflict_positions(store: Store, run_id: str, step: int) -> pd.DataFrame:
    """One row per bin of token position of one step, in order. Columns: first, last (positions), tokens, conflicts (tokens in the bin).

    Empty for a step that was recorded before conflicts were.
    """
    sql = """select bin.first as first, bin.last as last, bin.tokens as tokens, conflicts
             from (select unnest(position_rows) as bin, unnest(position_conflicts) as conflicts
                   from steps where step = ? and position_conflicts is not null)
             order by first"""
    return store.frame(run_id, sql, [step], steps=(step, step))


def pushed_rollouts(store: Store, run_id: str, step: int) -> pd.DataFrame:
    """Every rollout of a step that has its tokens still, with those and how hard it was pushed, in order, without its other traces.

    Columns: group_index, rollout_index, length, advantage (mean over its tokens), token_ids.
    """
    sql = """select group_index, rollout_index, length, advantage, token_ids from rollouts where step = ? and thinned is not true
              order by group_index, rollout_index"""
    return store.frame(run_id, sql, [step], steps=(step, step))

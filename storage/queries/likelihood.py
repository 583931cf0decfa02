"""Questions about lost likelihood: which tokens of correct rollouts a step's updates pushed down."""

from __future__ import annotations

import pandas as pd

from storage.reader import Store


def worst_tokens(store: Store, run_id: str, step: int, count: int = 20) -> pd.DataFrame:
    """The `count` tokens of correct rollouts that lost most log-prob over the step's updates, the worst first; only those that lost some.

    The same token at the same place of several rollouts of a group is one row if it lost the same to 0.01 nats: `alike` counts them,
    rollout_index is the first. Columns: group_index, rollout_index, alike, position (from 0), token_id, logp_before, logp_delta (nats).
    Empty where no correct rollout was scored again.
    """
    sql = """with tokens as (select group_index, rollout_index,
                                    generate_subscripts(token_ids, 1) - 1 as position,
                                    unnest(token_ids) as token_id,
                                    unnest(list_transform(list_zip(logp_sampling, logp_gap), lambda pair: pair[1] + pair[2])) as logp_before,
                                    unnest(logp_delta) as logp_delta
                               from rollouts where step = ? and correct and rescored and coalesce(source, 'policy') = 'policy')
             select group_index, min(rollout_index) as rollout_index, count(*) as alike, position, token_id,
                    avg(logp_before) as logp_before, min(logp_delta) as logp_delta
               from tokens where logp_delta < 0
              group by group_index, position, token_id, round(logp_delta, 2)
              order by min(logp_delta), group_index, min(rollout_index), position limit ?"""
    return store.frame(run_id, sql, [step, count], steps=(step, step))

"""Questions about lost likelihood: which tokens of correct rollouts a step's updates pushed down."""

from __future__ import annotations

import pandas as pd

from storage.reader import Store


def worst_tokens(store: Store, run_id: str, step: int, count: int = 20) -> pd.DataFrame:
    """The `count` tokens of correct rollouts that lost most log-prob over the step's updates, the worst first; only those that lost some.

    Columns: group_index, rollout_index, position (from 0), length (tokens), token_id, logp_before, logp_delta (nats), advantage.
    Empty where no correct rollout was scored again.
    """
    sql = """with correct_rollouts as (select * from rollouts where step = ? and correct and rescored),
                  tokens as (select group_index, rollout_index, length,
                                    generate_subscripts(token_ids, 1) - 1 as position,
                                    unnest(token_ids) as token_id,
                                    unnest(list_transform(list_zip(logp_sampling, logp_gap), lambda pair: pair[1] + pair[2])) as logp_before,
                                    unnest(logp_delta) as logp_delta,
                                    unnest(advantages) as advantage
                               from correct_rollouts)
             select group_index, rollout_index, position, length, token_id, logp_before, logp_delta, advantage
               from tokens where logp_delta < 0
              order by logp_delta, group_index, rollout_index, position limit ?"""
    return store.frame(run_id, sql, [step, count], steps=(step, step))

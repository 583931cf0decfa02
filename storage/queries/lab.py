"""What the laboratory weighs: one step with all it needs of its tokens."""

from __future__ import annotations

import pandas as pd

from storage.reader import Store


def rollouts_of_step(store: Store, run_id: str, step: int) -> pd.DataFrame:
    """One row per rollout of the step that has its tokens still, dropped groups included, in order.

    Columns: group_index, rollout_index, reference (a worked answer), reward, reward_parts, correct, length, sampling_round, reason, greedy_reward,
    hint_tokens, baseline and prompt_state (of the group), text, token_ids, and the traces logp_sampling, logp_gap, logp_delta, logp_ref, logp_old, entropy,
    items, None where not recorded.
    """
    sql = """select group_index, rollout_index, coalesce(source = 'reference', false) as reference, reward, reward_parts, correct,
                    length, sampling_round, reason, greedy_reward, hint_tokens, baseline, prompt_state, text, token_ids, logp_sampling, logp_gap,
                    logp_delta, logp_ref, logp_old, entropy, items
               from rollouts
               join (select step, group_index, sampling_round, reason, greedy_reward, hint_tokens, baseline, prompt_state from groups where step = ?)
              using (step, group_index)
              where step = ? and thinned is not true order by group_index, rollout_index"""
    return store.frame(run_id, sql, [step, step], steps=(step, step))


def part_weights(store: Store, run_id: str, step: int) -> dict[str, float]:
    """What every reward part weighed in the total of the step's rewards; empty where it was not recorded."""
    found = store.frame(run_id, "select reward_weights from steps where step = ?", [step], steps=(step, step))["reward_weights"]
    return dict(found.iloc[0]) if len(found) and found.iloc[0] is not None else {}


def first_entropy(store: Store, run_id: str) -> float:
    """Mean over the kept rollouts of the first recorded step of their mean token entropy, in nats; NaN where it was not recorded."""
    first = store.frame(run_id, "select min(step) as step from steps", skip_damaged=True)["step"].iloc[0]
    if pd.isna(first):
        return float("nan")
    sql = """select avg(list_avg(entropy)) as entropy
               from rollouts join (select step, group_index from groups where kept) using (step, group_index) where step = ?"""
    value = store.frame(run_id, sql, [int(first)], steps=(int(first), int(first)))["entropy"].iloc[0]
    return float("nan") if pd.isna(value) else float(value)

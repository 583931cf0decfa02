"""Where to look for what a signal says: the groups of one step that show it most. Each question opens that step's files only, and what cannot
be read any more gives no rows rather than an error."""

from __future__ import annotations

import pandas as pd

from storage.reader import Store

GROUP_FIGURES = {
    "delta_correct": "delta_correct",
    "conflict_net": "conflict_net",
    "correct_share": "correct / nullif(list_count(rewards) - coalesce(replayed, 0), 0)",
    "failed_share": "1 - list_count(rewards) / size",
    "unearned": "case when coalesce(replayed, 0) = 0 then reward_mean - correct / nullif(list_count(rewards), 0) end",
    "length": "tokens / size",
}
"""Figures of a group that `groups` holds; `unearned` is the mean reward beyond the share of correct rollouts."""
ROLLOUT_FIGURES = {
    "truncated": "avg((finish = 'length')::int)",
    "repetition": "avg(repetition)",
    "length_corr": "case when stddev_pop(reward) > 0 and stddev_pop(length) > 0 then corr(reward, length) end",
    "entropy": "sum(list_sum(entropy)) / sum(length)",
    "clipped": "sum(len(list_filter(clipped, lambda side: side <> 0))) / sum(length)",
    "moved": "sum(list_sum(list_transform(logp_delta, lambda d: exp(d) - 1 - d))) / sum(len(logp_delta))",
    "mismatch": "sum(list_sum(list_transform(list_zip(logp_sampling, logp_gap), lambda p: abs(exp(p[1] + p[2]) - exp(p[1]))))) / sum(length)",
}
"""Figures of a group made of its rollouts: shares, nats per token (`entropy`, and `moved`, a k3 estimate), a correlation, a probability."""


def worst_groups(store: Store, run_id: str, step: int, figure: str, *, lowest: bool, count: int = 3) -> pd.DataFrame:
    """The `count` groups of a step with the largest figure, the smallest where `lowest`, of those that have it and no hint. Columns: group_index, value."""
    source = (
        f"select group_index, {GROUP_FIGURES[figure]} as value from groups where step = $1 and coalesce(hint_tokens, 0) = 0"
        if figure in GROUP_FIGURES
        else f"select group_index, {ROLLOUT_FIGURES[figure]} as value from rollouts where step = $1 and coalesce(source, 'policy') = 'policy' "
        "group by group_index"
    )
    sql = f"select * from ({source}) where value is not null and not isnan(value) order by value {'asc' if lowest else 'desc'}, group_index limit $2"
    return store.frame(run_id, sql, [step, count], steps=(step, step), skip_damaged=True)


def pushed_rollouts_of_group(store: Store, run_id: str, step: int, group_index: int) -> pd.DataFrame:
    """The rollouts of a group, in order, as measures.conflicts reads them; none where its tokens were thinned.

    Columns: length, advantage (mean over its tokens), token_ids.
    """
    sql = "select length, advantage, token_ids from rollouts where step = ? and group_index = ? and thinned is not true order by rollout_index"
    return store.frame(run_id, sql, [step, group_index], steps=(step, step), skip_damaged=True)


def lost_token(store: Store, run_id: str, step: int) -> pd.DataFrame:
    """The token of a correct rollout that lost most log-prob over the step's updates, one row or none.

    Columns: group_index, rollout_index, token_id, value (nats).
    """
    sql = """with least as (select group_index, rollout_index, token_ids, logp_delta, list_min(logp_delta) as value
                              from rollouts where step = ? and correct and rescored and coalesce(source, 'policy') = 'policy')
             select group_index, rollout_index, token_ids[list_position(logp_delta, value)] as token_id, value
               from least where value < 0 order by value, group_index, rollout_index limit 1"""
    return store.frame(run_id, sql, [step], steps=(step, step), skip_damaged=True)


def piece(store: Store, run_id: str, token_id: int) -> str:
    """The token as text, `⟨id⟩` where the run has not written it. Raises SegmentDamaged."""
    found = store.frame(run_id, "select piece from vocabulary where token_id = ?", [token_id])["piece"]
    return found.iloc[0] if len(found) else f"⟨{token_id}⟩"

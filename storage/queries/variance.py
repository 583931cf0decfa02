"""Questions about prompts over a whole run: what their groups came to, and how much they still teach. Reads groups only."""

from __future__ import annotations

import pandas as pd

from storage.reader import Store

_SCORED = "list_count(rewards) - coalesce(replayed, 0)"
"""Rollouts of a group that were sampled in its step and could be scored; those that are replayed always could."""
_SAMPLED = "outcome <> 'replayed' and coalesce(hint_tokens, 0) = 0"


def outcome_counts(store: Store, run_id: str, after: int = -1) -> pd.DataFrame:
    """How many groups of each step later than `after` came out how, in order of step. Columns: step, outcome, correct, scored, groups.

    `scored` counts the rollouts whose scoring did not fail, `groups` the groups with the same four other values. What was replayed
    or sampled behind a hint counts nowhere.
    """
    sql = f"""select step, outcome, correct, {_SCORED} as scored, count(*) as groups
              from groups where step > ? and {_SAMPLED} group by all order by step, outcome, correct, scored"""
    return store.frame(run_id, sql, [after], steps=(after + 1, None), skip_damaged=True)


def prompt_scores(store: Store, run_id: str) -> pd.DataFrame:
    """One row per prompt the run has sampled, the most recently sampled first.

    Columns: prompt_hash, prompt and answer (as last seen), seen (groups), last_step, last_group, correct and scored (rollouts, added
    up), mixed, all_fail, all_pass, tied and failed (groups of each outcome), diversity (mean over its groups, NaN unless measured),
    sampler_score and sampler_probability (the last recorded ones, NaN unless the run's sampler keeps them).
    """
    outcomes = ", ".join(f"count(*) filter (outcome = '{name}') as {name}" for name in ("mixed", "all_fail", "all_pass", "tied", "failed"))
    last = "arg_max({0}, (step, group_index)) as {1}"
    newest = ", ".join(last.format(*names) for names in (("prompt", "prompt"), ("answer", "answer"), ("step", "last_step"), ("group_index", "last_group")))
    sampler = ", ".join(last.format(name, name) for name in ("sampler_score", "sampler_probability"))
    sql = f"""select prompt_hash, {newest}, count(*) as seen, sum(correct)::bigint as correct, sum({_SCORED})::bigint as scored,
                     {outcomes}, avg(diversity) as diversity, {sampler}
              from groups where {_SAMPLED} group by prompt_hash order by last_step desc, last_group"""
    return store.frame(run_id, sql, skip_damaged=True)


def prompt_groups(store: Store, run_id: str, prompt_hash: str) -> pd.DataFrame:
    """Every group of one prompt but those behind a hint, in order.

    Columns: step, group_index, outcome, correct and scored (of those sampled in the step), size, replayed, reward_mean,
    reward_std, diversity, distinct_3, sampler_score, sampler_probability.
    """
    sql = f"""select step, group_index, outcome, correct, {_SCORED} as scored, size, replayed, reward_mean, reward_std, diversity, distinct_3,
                     sampler_score, sampler_probability
              from groups where prompt_hash = ? and coalesce(hint_tokens, 0) = 0 order by step, group_index"""
    return store.frame(run_id, sql, [prompt_hash], skip_damaged=True)


def prompt_states(store: Store, run_id: str, prompt_hash: str) -> pd.DataFrame:
    """What the run remembered of one prompt after each step that had it, in order. Columns: step, name, value; empty where nothing was."""
    sql = """select step, entry.key as name, entry.value as value
             from (select step, max(group_index) as group_index, unnest(map_entries(arg_max(prompt_state, group_index))) as entry
                   from groups where prompt_hash = ? and prompt_state is not null group by step)
             order by step, name"""
    return store.frame(run_id, sql, [prompt_hash], skip_damaged=True)

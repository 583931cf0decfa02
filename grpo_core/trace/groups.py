"""The figures of every group of a step, made in one pass over its tokens; numpy only. Each means what storage/schema.py says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grpo_core.measures.conflicts import Conflicts, conflicts
from grpo_core.measures.diversity import diversity
from grpo_core.records import Array
from grpo_core.trace.flat import FlatStep


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFigures:
    """Per group (P,) and rollout (R,), NaN for not available; `conflicts` is per token.

    Conflicts are of all that is trained on; changes of log-prob and diversity of what the step's own policy wrote, behind hints too, replays and worked
    answers left out.
    `divided_P` says which groups have advantages of both signs, `pushed_tokens_P` counts tokens of rollouts with A ≠ 0.
    """

    conflicts: Conflicts
    divided_P: Array
    tokens_P: Array
    pushed_tokens_P: Array
    conflict_run_P: Array
    conflict_mid_P: Array
    conflict_shared_P: Array
    conflict_net_P: Array
    delta_correct_P: Array
    delta_wrong_P: Array
    diversity_P: Array
    distinct_P: Array
    repetition_R: Array


def group_figures(flat: FlatStep) -> GroupFigures:
    """The figures of all groups of a step."""
    groups = len(flat.groups)
    advantage_R, group_R, group_N = flat.advantage_R, flat.group_R, flat.group_R[flat.rollout_N]
    found = conflicts(flat.token_ids.values, flat.length_R, group_R, advantage_R)
    alike, sampled = diversity(flat.token_ids.values, flat.length_R, group_R, groups), flat.sampled()
    own = alike if sampled is flat else diversity(sampled.token_ids.values, sampled.length_R, sampled.group_R, groups)
    up, down = (np.bincount(group_R[side], minlength=groups) > 0 for side in (advantage_R > 0, advantage_R < 0))

    def tokens(where_N: Array) -> Array:
        return np.bincount(group_N[where_N], minlength=groups)

    any_conflict = found.run | found.mid
    with np.errstate(invalid="ignore"):
        net_P = np.bincount(group_N[any_conflict], weights=found.net[any_conflict], minlength=groups) / tokens(any_conflict)
    return GroupFigures(
        conflicts=found,
        divided_P=up & down,
        tokens_P=np.bincount(group_N, minlength=groups),
        pushed_tokens_P=tokens((advantage_R != 0)[flat.rollout_N]),
        conflict_run_P=tokens(found.run),
        conflict_mid_P=tokens(found.mid),
        conflict_shared_P=tokens(found.shared),
        conflict_net_P=net_P,
        delta_correct_P=_delta(sampled, groups, 1),
        delta_wrong_P=_delta(sampled, groups, 0),
        diversity_P=1 - own.self_bleu_P,
        distinct_P=own.distinct_P,
        repetition_R=alike.repetition_R,
    )


def _delta(flat: FlatStep, groups: int, verdict: int) -> Array:
    """Mean paired change of log-prob per token over each group's rescored rollouts with this verdict (P,)."""
    of_verdict = flat.per_token(flat.correct_R, flat.logp_delta) == verdict
    group_D, delta_D = flat.per_token(flat.group_R, flat.logp_delta)[of_verdict], flat.logp_delta.values[of_verdict]
    with np.errstate(invalid="ignore"):
        return np.bincount(group_D, weights=delta_D, minlength=groups) / np.bincount(group_D, minlength=groups)

"""StepTrace → FlatStep → one Arrow table per stored table; names, types and meanings are those of storage/schema.py."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa

from grpo_core.records import Array, StepTrace
from grpo_core.trace.flat import FlatStep, Lists, flatten
from grpo_core.trace.groups import GroupFigures, group_figures
from grpo_core.trace.rollups import group_std, steps_row
from storage.schema import TABLES

SCHEMAS = {name: table.arrow for name, table in TABLES.items()}
STEP = pa.struct(list(SCHEMAS["steps"]))
LISTS = ("token_ids", "logp_sampling", "logp_delta", "logp_ref", "logp_old", "entropy", "advantages", "weights", "nthr", "clipped", "items")


def to_tables(trace: StepTrace, *, missing_before: int = 0) -> dict[str, pa.Table]:
    """The step as Arrow tables `steps` (one row), `groups` and `rollouts`, unrounded.

    `missing_before` counts the steps just before this one that were not recorded.
    Raises ValueError if a trace of a rollout is not as long as its completion.
    """
    return flat_tables(flatten(trace), missing_before=missing_before)


def flat_tables(flat: FlatStep, *, missing_before: int = 0) -> dict[str, pa.Table]:
    """The same of a step that is flat already."""
    figures = group_figures(flat)
    return {
        "steps": _one_row(steps_row(flat, figures, missing_before=missing_before)),
        "groups": _table(SCHEMAS["groups"], _groups(flat, figures)),
        "rollouts": _table(SCHEMAS["rollouts"], _rollouts(flat, figures)),
    }


def _one_row(row: Mapping[str, object]) -> pa.Table:
    """The row through one struct: its 60 columns one by one would hold the interpreter for a millisecond."""
    return pa.Table.from_struct_array(pa.array([row], STEP))


def _table(schema: pa.Schema, columns: Mapping[str, object]) -> pa.Table:
    return pa.Table.from_arrays([_array(columns[field.name], field.type) for field in schema], schema=schema)


def _array(values: object, kind: pa.DataType) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:  # a lone surrogate, which JSON can bring and UTF-8 cannot hold
        return pa.array([v.encode("utf-8", "replace").decode() for v in values], kind)


def _groups(flat: FlatStep, figures: GroupFigures) -> dict[str, object]:
    groups, step, group_R = flat.groups, flat.step.step, flat.group_R
    size_P = np.bincount(group_R, minlength=len(groups))
    known_P, scored_P = (np.bincount(group_R[which], minlength=len(groups)) for which in (flat.correct_R >= 0, flat.scored_R))
    unsampled_R = flat.unsampled_R
    correct_R = (flat.correct_R == 1) & ~unsampled_R
    with np.errstate(invalid="ignore"):
        mean_P = np.bincount(group_R[flat.scored_R], weights=flat.reward_R[flat.scored_R], minlength=len(groups)) / scored_P
    return {
        "step": np.full(len(groups), step, "i4"),
        "group_index": np.arange(len(groups), dtype="i4"),
        "group_id": [f"s{step}.g{i}" for i in range(len(groups))],
        "prompt_id": [g.prompt.prompt_id for g in groups],
        "prompt_hash": [g.prompt.hash for g in groups],
        "prompt": [g.prompt.text + g.prompt.hint for g in groups],
        "prompt_ids": [np.asarray(g.prompt.given_ids, "i4") for g in groups],
        "hint_tokens": np.array([len(g.prompt.hint_ids) for g in groups], "i4"),
        "answer": [g.prompt.answer for g in groups],
        "rewards": pa.ListArray.from_arrays(pa.array(_offsets(size_P)), _nan_as_null(flat.reward_R)),
        "reward_mean": _nan_as_null(mean_P),
        "reward_std": _nan_as_null(group_std(flat.reward_R, group_R, len(groups))),
        "baseline": _nan_as_null([g.baseline for g in groups]),
        "correct": pa.array(np.bincount(group_R[correct_R], minlength=len(groups)).astype("i4"), mask=known_P == 0),
        "size": size_P.astype("i4"),
        "replayed": np.bincount(group_R[unsampled_R], minlength=len(groups)).astype("i4"),
        "outcome": [g.outcome for g in groups],
        "kept": [g.kept for g in groups],
        "reason": [g.reason for g in groups],
        "sampling_round": [g.sampling_round for g in groups],
        "tokens": figures.tokens_P.astype("i4"),
        "delta_correct": _nan_as_null(figures.delta_correct_P),
        "delta_wrong": _nan_as_null(figures.delta_wrong_P),
        "diversity": _nan_as_null(figures.diversity_P),
        "distinct_3": _nan_as_null(figures.distinct_P),
        "conflict_run": figures.conflict_run_P.astype("i4"),
        "conflict_mid": figures.conflict_mid_P.astype("i4"),
        "conflict_shared": figures.conflict_shared_P.astype("i4"),
        "conflict_net": _nan_as_null(figures.conflict_net_P),
        "sampler_score": [g.sampler_score for g in groups],
        "sampler_probability": [g.sampler_probability for g in groups],
        "greedy_reward": _nan_as_null([math.nan if g.greedy_reward is None else g.greedy_reward for g in groups]),
        "prompt_state": [list(g.prompt_state.items()) or None for g in groups],
    }


def _rollouts(flat: FlatStep, figures: GroupFigures) -> dict[str, object]:
    length_R = flat.length_R
    with np.errstate(invalid="ignore"):  # 0/0: a completion without tokens has no mean
        advantage_R = flat.sums_R(flat.advantages) / length_R
    return {
        "step": np.full(len(length_R), flat.step.step, "i4"),
        "group_index": flat.group_R.astype("i4"),
        "rollout_index": flat.index_R.astype("i4"),
        "text": flat.texts,
        "reward": _nan_as_null(flat.reward_R),
        "reward_parts": [[(name, _known(value)) for name, value in parts.items()] for parts in flat.parts],
        "correct": pa.array(flat.correct_R == 1, mask=flat.correct_R < 0),
        "failure": flat.failures,
        "advantage": pa.array(advantage_R, pa.float64(), mask=length_R == 0),
        "length": length_R.astype("i4"),
        "finish": flat.finishes,
        "source": flat.sources,
        "age": flat.age_R.astype("i4"),
        "delta_sum": pa.array(flat.sums_R(flat.logp_delta), pa.float64(), mask=~flat.logp_delta.present_R),
        "repetition": _nan_as_null(figures.repetition_R),
        "gwhes": _nan_as_null(flat.gwhes_R),
        "rescored": flat.logp_delta.present_R,
        "thinned": pa.nulls(len(length_R), pa.bool_()),
        **{name: _list_array(getattr(flat, name), length_R) for name in LISTS},
        "logp_gap": _list_array(Lists(flat.logp_gap_N, flat.logp.present_R), length_R),
    }


def _list_array(trace: Lists, length_R: Array) -> pa.ListArray:
    """One list per rollout over the flat values, without copying them; null where the rollout has no such trace."""
    offsets = _offsets(length_R * trace.present_R)
    nulls = None if trace.present_R.all() else pa.array(~trace.present_R)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(trace.values), mask=nulls)


def _offsets(sizes: Array) -> Array:
    """Where each of some pieces that lie one after another begins, and where the last one ends (n + 1,), int32."""
    return np.concatenate(([0], np.cumsum(sizes))).astype("i4")


def _nan_as_null(values: Array | Iterable[float]) -> pa.Array:
    return pa.array(values, pa.float64(), from_pandas=True)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value

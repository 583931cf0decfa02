"""StepTrace → one Arrow table per stored table; names, types and meanings are those of storage/schema.py."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa

from grpo_core.records import Array, GroupTrace, StepTrace
from grpo_core.trace.flat import FlatStep, Lists, flatten
from grpo_core.trace.groups import GroupFigures, group_figures
from grpo_core.trace.rollups import group_std, steps_row
from storage.schema import TABLES

SCHEMAS = {name: table.arrow for name, table in TABLES.items()}
STEP = pa.struct(list(SCHEMAS["steps"]))
LISTS = ("token_ids", "logp_sampling", "logp_delta", "logp_ref", "entropy", "advantages", "weights", "nthr", "clipped")


def to_tables(trace: StepTrace, *, missing_before: int = 0) -> dict[str, pa.Table]:
    """The step as Arrow tables `steps` (one row), `groups` and `rollouts`, unrounded.

    `missing_before` counts the steps just before this one that were not recorded.
    Raises ValueError if a trace of a rollout is not as long as its completion.
    """
    flat = flatten(trace)
    figures = group_figures(flat, len(trace.groups))
    return {
        "steps": _one_row(steps_row(trace, flat, figures, missing_before=missing_before)),
        "groups": _table(SCHEMAS["groups"], _groups(trace, flat, figures)),
        "rollouts": _table(SCHEMAS["rollouts"], _rollouts(trace, flat, figures)),
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


def _groups(trace: StepTrace, flat: FlatStep, figures: GroupFigures) -> dict[str, object]:
    groups = trace.groups
    std = group_std(flat.reward_R, flat.group_R, len(groups))
    prompt_ids = [np.asarray(g.prompt.token_ids, "i4") for g in groups]
    return {
        "step": np.full(len(groups), trace.step, "i4"),
        "group_index": np.arange(len(groups), dtype="i4"),
        "group_id": [f"s{trace.step}.g{i}" for i in range(len(groups))],
        "prompt_id": [g.prompt.prompt_id for g in groups],
        "prompt_hash": [g.prompt.hash for g in groups],
        "prompt": [g.prompt.text for g in groups],
        "prompt_ids": prompt_ids,
        "answer": [g.prompt.answer for g in groups],
        "rewards": [[_known(r.reward.total) for r in g.rollouts] for g in groups],
        "reward_mean": [_scored_mean(g) for g in groups],
        "reward_std": _nan_as_null(std),
        "baseline": [_known(g.baseline) for g in groups],
        "correct": [_correct(g) for g in groups],
        "size": [len(g.rollouts) for g in groups],
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
    }


def _scored_mean(group: GroupTrace) -> float | None:
    totals = [r.reward.total for r in group.rollouts if not r.reward.failed]
    return math.fsum(totals) / len(totals) if totals else None


def _correct(group: GroupTrace) -> int | None:
    """Correct rollouts; None if of no rollout it is known whether it is correct."""
    verdicts = [r.reward.correct for r in group.rollouts if r.reward.correct is not None]
    return sum(verdicts) if verdicts else None


def _rollouts(trace: StepTrace, flat: FlatStep, figures: GroupFigures) -> dict[str, object]:
    rollouts, length_R = flat.rollouts, flat.length_R
    with np.errstate(invalid="ignore"):  # 0/0: a completion without tokens has no mean
        advantage_R = flat.sums_R(flat.advantages) / length_R
    return {
        "step": np.full(len(rollouts), trace.step, "i4"),
        "group_index": flat.group_R.astype("i4"),
        "rollout_index": np.array([i for g in trace.groups for i in range(len(g.rollouts))], "i4"),
        "text": [r.completion.text for r in rollouts],
        "reward": _nan_as_null(flat.reward_R),
        "reward_parts": [[(name, _known(value)) for name, value in r.reward.parts.items()] for r in rollouts],
        "correct": [r.reward.correct for r in rollouts],
        "failure": [r.reward.failure or "" for r in rollouts],
        "advantage": pa.array(advantage_R, pa.float64(), mask=length_R == 0),
        "length": length_R.astype("i4"),
        "finish": [r.completion.finish for r in rollouts],
        "delta_sum": pa.array(flat.sums_R(flat.logp_delta), pa.float64(), mask=~flat.logp_delta.present_R),
        "repetition": _nan_as_null(figures.repetition_R),
        "gwhes": [r.gwhes for r in rollouts],
        "rescored": flat.logp_delta.present_R,
        **{name: _list_array(getattr(flat, name), length_R) for name in LISTS},
        "logp_gap": _list_array(Lists(flat.logp_gap_N, flat.logp.present_R), length_R),
    }


def _list_array(trace: Lists, length_R: Array) -> pa.ListArray:
    """One list per rollout over the flat values, without copying them; null where the rollout has no such trace."""
    offsets = np.zeros(len(length_R) + 1, "i4")
    np.cumsum(length_R * trace.present_R, out=offsets[1:])
    nulls = None if trace.present_R.all() else pa.array(~trace.present_R)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(trace.values), mask=nulls)


def _nan_as_null(values: Array | Iterable[float]) -> pa.Array:
    return pa.array(values, pa.float64(), from_pandas=True)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value

"""Tensors of a step back into one record per group and rollout."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from grpo_core.records import REFERENCE, Completion, GroupTrace, Reward, RolloutTrace
from grpo_core.trainer.batch import TrainBatch
from grpo_core.trainer.collect import Judged
from grpo_core.trainer.rescore import Rescored
from grpo_core.trainer.update import Updated


def group_traces(
    judged: Sequence[Judged],
    batch: TrainBatch | None,
    updated: Updated | None,
    after: Rescored | None,
    remembered: Sequence[Mapping[str, float]],
) -> tuple[GroupTrace, ...]:
    """All groups of the step in sampling order, replayed ones last; dropped ones have advantage and weight 0 and were not rescored."""
    trained = iter(_trained_rollouts(judged, batch, updated, after) if batch and updated and after else ())
    baselines = iter(batch.baseline_B.tolist() if batch else ())
    traces = []
    for j, prompt_state in zip(judged, remembered, strict=True):
        pairs = list(zip(j.scored.group.completions, j.scored.rewards, strict=True))
        rollouts = tuple(next(trained) for _ in pairs) if j.kept else tuple(_untrained(c, r) for c, r in pairs)
        baseline = [next(baselines) for _ in pairs][0] if j.kept else float("nan")
        traces.append(
            GroupTrace(
                prompt=j.scored.group.prompt,
                rollouts=rollouts,
                outcome=j.scored.outcome,
                baseline=baseline,
                kept=j.kept,
                reason=j.reason,
                sampling_round=j.scored.sampling_round,
                sampler_score=j.draw.score,
                sampler_probability=j.draw.probability,
                greedy_reward=j.scored.greedy,
                prompt_state=prompt_state,
            )
        )
    return tuple(traces)


def _trained_rollouts(judged: Sequence[Judged], batch: TrainBatch, updated: Updated, after: Rescored):
    """One RolloutTrace per row of the batch, in order."""
    pairs = [pair for j in judged if j.kept for pair in zip(j.scored.group.completions, j.scored.rewards, strict=True)]
    before, old, advantages = batch.unpad(batch.policy_BT), batch.unpad(batch.before_BT), batch.unpad(batch.advantages_BT)
    foreign = batch.foreign_B.tolist()
    items = [None] * len(pairs) if batch.item_BT is None else batch.unpad(batch.item_BT, "i2")
    weights, sides = batch.unpad(updated.weight_BT), batch.unpad(updated.side_BT, "i1")
    deltas, measured = batch.unpad(after.delta_BT), after.measured_B.tolist()
    nthr, gwhes = ([None] * len(pairs),) * 2 if batch.pressure is None else (batch.pressure.nthr, batch.pressure.gwhes)
    refs = [None] * len(pairs) if batch.ref_BT is None else batch.unpad(batch.ref_BT)
    for b, (completion, reward) in enumerate(pairs):
        yield RolloutTrace(
            completion=_as_read(completion, before[b]),
            reward=reward,
            advantages=advantages[b],
            weights=weights[b],
            clipped=sides[b],
            logp_delta=deltas[b] if measured[b] else None,
            logp_ref=refs[b],
            nthr=nthr[b],
            gwhes=gwhes[b],
            logp_old=old[b] if foreign[b] else None,
            items=items[b],
        )


def _as_read(completion: Completion, logp: np.ndarray) -> Completion:
    """The completion with its log-prob before the step; of a worked answer nothing that sampling would have brought."""
    if completion.source == REFERENCE:
        return dataclasses.replace(completion, logp_sampling=None, logp=None, entropy=None)
    return dataclasses.replace(completion, logp=logp)


def _untrained(completion: Completion, reward: Reward) -> RolloutTrace:
    zeros = np.zeros(len(completion.token_ids), "f4")
    return RolloutTrace(completion=_as_read(completion, completion.logp), reward=reward, advantages=zeros, weights=zeros, clipped=zeros.astype("i1"))

"""A recorded step under another group-aware reward, by the very function that shapes the trainer's rewards; no torch."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from grpo_core.config import RunConfig
from grpo_core.errors import GroupscopeError
from grpo_core.lab.batch import Array, RecordedBatch
from grpo_core.records import Completion, Group, Prompt, Reward, ScoredGroup
from grpo_core.tasks.shaping import ADDS, shape

UNRECORDED = {
    "e_grpo": "the entities of every prompt, which are not recorded",
    "ps_grpo": "which prompts ask the same question in other forms, which is not recorded",
}
"""What a rule reads that no record has, as the end of a sentence."""
_NONE = np.empty(0)


class NotShaped(GroupscopeError):
    """The step lacks what the group-aware reward reads; the message says what."""


def shaped(batch: RecordedBatch, was: RunConfig, asked: RunConfig) -> RecordedBatch:
    """The batch with the rewards that `asked` makes of the task's own, where it was recorded with `was`; with its group_reward itself, as recorded.

    Worked answers and rollouts behind a hint keep their reward: the trainer shapes neither. Raises NotShaped.
    """
    if rule_of(was) == rule_of(asked):
        return batch
    if missing := _missing(batch, asked):
        raise NotShaped(f"group_reward={asked.group_reward} needs {missing}")
    own = batch if was.group_reward == "none" else _own(batch, was.group_reward)
    if asked.group_reward == "none":
        return own
    sampled_R = own.unmarked(own.reference_R, own.hinted_R)
    of_groups = [np.flatnonzero(sampled_R & (own.group_R == group)) for group in np.unique(own.group_R[sampled_R])]
    made = shape([_scored(own, members) for members in of_groups], asked, own.step or 0)
    reward_R, added = own.reward_R.copy(), {name: np.full(len(own.reward_R), np.nan) for name in ADDS[asked.group_reward]}
    for members, group in zip(of_groups, made, strict=True):
        reward_R[members] = group.totals
        for name, added_R in added.items():
            added_R[members] = [one.parts.get(name, math.nan) for one in group.rewards]
    return replace(own, reward_R=reward_R, parts={**own.parts, **added})


def rule_of(config: RunConfig) -> tuple[str, float, str]:
    """The group-aware reward with all its settings."""
    return config.group_reward, config.group_reward_weight, config.mark_pattern


def _missing(batch: RecordedBatch, asked: RunConfig) -> str:
    rule, scored_R = asked.group_reward, ~np.isnan(batch.reward_R)
    if batch.old_N is not None and not np.isnan(batch.old_N).all() and not _only_references(batch):
        return "groups of one step, and this one has replayed rollouts, whose rewards were made when they were written"
    if rule in UNRECORDED:
        return UNRECORDED[rule]
    if rule != "none" and batch.texts is None:
        return "the completions as text, which were not recorded"
    if rule == "datarus" and batch.step is None:
        return "the number of the step, from which its weight follows"
    if rule in ("otc", "gcpo") and (batch.verdict_R[scored_R] == 0).any():
        return "whether each rollout is correct, which was not recorded"
    return ""


def _only_references(batch: RecordedBatch) -> bool:
    """Whether worked answers alone were written by no policy of this step."""
    replayed_N = ~np.isnan(batch.old_N)
    return batch.reference_R is not None and not (replayed_N & ~batch.reference_R[batch.rollout_N]).any()


def _own(batch: RecordedBatch, rule: str) -> RecordedBatch:
    """The batch with the task's own rewards, from their parts."""
    parts = {name: values_R for name, values_R in batch.parts.items() if name not in ADDS[rule]}
    if not parts or any(name not in batch.part_weights for name in parts):
        raise NotShaped(f"the run was trained with group_reward={rule}, and the parts of the task's own rewards, or their weights, were not recorded")
    total_R = sum(batch.part_weights[name] * np.nan_to_num(values_R) for name, values_R in parts.items())
    return replace(batch, reward_R=np.where(np.isnan(batch.reward_R), np.nan, total_R), parts=parts)


def _scored(batch: RecordedBatch, members: Array) -> ScoredGroup:
    """A group as shaping looks at it: texts, verdicts and totals."""
    prompt = Prompt(prompt_id="", text="", token_ids=(), answer="")
    completions = tuple(Completion(token_ids=_NONE, text=batch.texts[n], logp_sampling=None, logp=None, entropy=None, finish="") for n in members)
    rewards = tuple(Reward(parts={}, total=float(batch.reward_R[n]), correct=bool(batch.verdict_R[n] > 0)) for n in members)
    return ScoredGroup(group=Group(prompt=prompt, completions=completions), rewards=rewards)

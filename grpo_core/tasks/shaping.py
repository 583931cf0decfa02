"""The rewards of a step after each rollout was judged: what a group-aware rule (GROUP_REWARDS) makes of them.

Only training rollouts are shaped; evaluation and prompt samplers see the task's own rewards, and `correct` stays what the task says.
A rollout whose scoring failed is left as it is, and takes no part in its group's figures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from grpo_core.config import RunConfig
from grpo_core.errors import TaskError
from grpo_core.records import Completion, Prompt, Reward, ScoredGroup
from grpo_core.tasks import group_rewards

Scored = tuple[Prompt, Completion, Reward]
NO_OTHER_FORM = 0.0
"""Consistency of a rollout whose question has no scored rollout in another form in this step."""

ARITHMETIC_MARKS = {"otc": "=", "gcpo": "=", "datarus": r"^\d\+\d=\d+,\d\+\d\+\d=\d+:\d+$"}
"""What a call, an auxiliary step and the wanted structure are in the arithmetic task: a worked sum, one of them, and the whole column sum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a rule reads besides the rollouts: its pattern, its weight (0: its own), and how far the run is."""

    mark: re.Pattern[str]
    weight: float
    step: int
    steps: int


CUT = "cut"
"""The part that is 1 for a rollout which its rule keeps in its group's figures and out of the loss, as it ran into the token limit."""

ADDS = {"otc": ("calls",), "e_grpo": ("entities", CUT), "gcpo": ("auxiliary",), "datarus": ("structure",), "ps_grpo": ("consistency",)}
"""The parts that each rule puts beside the task's own parts of a reward, to show where its total comes from."""

Shaped = tuple[Sequence[float], dict[str, Sequence[float]]]
"""Total rewards, and the parts that show where they come from."""


def shape(groups: Sequence[ScoredGroup], config: RunConfig, step: int) -> list[ScoredGroup]:
    """The groups with the rewards that the config's rule makes of them; as they are without one. Raises TaskError for data that a rule cannot read."""
    if config.group_reward == "none":
        return list(groups)
    setting = Setting(
        mark=re.compile(config.mark_pattern or ARITHMETIC_MARKS.get(config.group_reward, "")),
        weight=config.group_reward_weight,
        step=step,
        steps=config.steps,
    )
    shared = ACROSS.get(config.group_reward)
    if shared:
        return _across(groups, shared, setting)
    rule = WITHIN[config.group_reward]
    return [_shaped(group, rule(known, setting)) if (known := _known(group)) else group for group in groups]


def _known(group: ScoredGroup) -> list[Scored]:
    pairs = zip(group.group.completions, group.rewards, strict=True)
    return [(group.group.prompt, completion, reward) for completion, reward in pairs if not reward.failed]


def _shaped(group: ScoredGroup, shaped: Shaped) -> ScoredGroup:
    totals, parts = iter(shaped[0]), {name: iter(values) for name, values in shaped[1].items()}

    def made(reward: Reward) -> Reward:
        added = {name: float(next(values)) for name, values in parts.items()}
        return replace(reward, total=float(next(totals)), parts={**reward.parts, **added}, in_loss=not added.get(CUT))

    return replace(group, rewards=tuple(reward if reward.failed else made(reward) for reward in group.rewards))


def _otc(known: Sequence[Scored], setting: Setting) -> Shaped:
    calls = [len(setting.mark.findall(completion.text)) for _, completion, _ in known]
    correct = [bool(reward.correct) for _, _, reward in known]
    return group_rewards.otc(calls, correct, alpha=setting.weight or 1.0), {"calls": calls}


def _e_grpo(known: Sequence[Scored], setting: Setting) -> Shaped:
    entities = known[0][0].row.get("entities")
    if not isinstance(entities, Sequence) or isinstance(entities, str) or not len(entities):
        raise TaskError(
            f"group_reward=e_grpo needs a list of entities with every prompt, and {known[0][0].prompt_id} has {entities!r}; add a column `entities` to the data"
        )
    matched = [sum(str(one) in completion.text for one in entities) / len(entities) for _, completion, _ in known]
    correct, void = [bool(reward.correct) for _, _, reward in known], [completion.finish == "length" for _, completion, _ in known]
    totals = group_rewards.e_grpo(matched, correct, void, alpha=setting.weight or group_rewards.ENTITY_SHARE)
    return totals, {"entities": matched, CUT: void}


def _gcpo(known: Sequence[Scored], setting: Setting) -> Shaped:
    used = [setting.mark.search(completion.text) is not None for _, completion, _ in known]
    correct = [bool(reward.correct) for _, _, reward in known]
    return group_rewards.gcpo([reward.total for *_, reward in known], used, correct, weight=setting.weight or 1.0), {"auxiliary": used}


def _datarus(known: Sequence[Scored], setting: Setting) -> Shaped:
    structure = [float(setting.mark.search(completion.text) is not None) for _, completion, _ in known]
    weight = group_rewards.cosine_weight(setting.step, setting.steps)
    return group_rewards.scheduled(structure, [reward.total for *_, reward in known], weight), {"structure": structure}


WITHIN: dict[str, Callable[[Sequence[Scored], Setting], Shaped]] = {"otc": _otc, "e_grpo": _e_grpo, "gcpo": _gcpo, "datarus": _datarus}
"""Rules that look at one group, by their name in GROUP_REWARDS."""


def _ps_grpo(groups: Sequence[ScoredGroup], setting: Setting) -> list[Shaped]:
    """Groups of one question in different forms: α · consistency with the other forms + the task's own reward; both weights assumed 1."""
    known = [_known(group) for group in groups]
    rows = [(form, completion) for form, of_form in enumerate(known) for _, completion, _ in of_form]
    alike = np.array([[group_rewards.bleu_2(a.token_ids, b.token_ids) for _, b in rows] for _, a in rows]).reshape(len(rows), len(rows))
    values = group_rewards.consistency(alike, [form for form, _ in rows]) if rows else np.empty(0)
    found = iter(np.nan_to_num(values, nan=NO_OTHER_FORM).tolist())
    consistent = [[next(found) for _ in of_form] for of_form in known]
    weight = setting.weight or 1.0
    return [
        ([weight * c + reward.total for c, (*_, reward) in zip(one, of_form, strict=True)], {"consistency": one})
        for one, of_form in zip(consistent, known, strict=True)
    ]


ACROSS: dict[str, Callable[[Sequence[ScoredGroup], Setting], list[Shaped]]] = {"ps_grpo": _ps_grpo}
"""Rules that look at all groups of a step that ask the same question (`row["question"]`)."""


def _across(groups: Sequence[ScoredGroup], rule: Callable[[Sequence[ScoredGroup], Setting], list[Shaped]], setting: Setting) -> list[ScoredGroup]:
    questions: dict[object, list[int]] = {}
    for place, group in enumerate(groups):
        questions.setdefault(group.group.prompt.row.get("question", group.group.prompt.hash), []).append(place)
    shaped = list(groups)
    for places in questions.values():
        for place, made in zip(places, rule([groups[place] for place in places], setting), strict=True):
            shaped[place] = _shaped(groups[place], made)
    return shaped

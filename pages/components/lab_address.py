"""What is typed on the page Lab as it stands in the address, so that a link opens the same view.

    set=METHOD.OPTION:VALUE,…        group_reward=RULE        group_reward_weight=NUMBER        mark_pattern=EXPRESSION
    rewards=STEP.GROUP.ROLLOUT:NUMBER,…        correct=STEP.GROUP.ROLLOUT:yes,…

A reward of `none` leaves the rollout out, a rollout not correct is `no`. What was typed over another group stays in the address unread until
something is typed over the one shown. What cannot be read is named and left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar, get_args

import numpy as np
import streamlit as st

from grpo_core.config import RunConfig
from grpo_core.lab.batch import RecordedBatch
from grpo_core.methods import METHODS
from grpo_core.rules import GROUP_REWARDS
from pages.components import url

Value = TypeVar("Value")
NONE, YES, NO = "none", "yes", "no"
RULE = ("group_reward", "group_reward_weight", "mark_pattern")
RULES = ("none", *(rule.name for rule in GROUP_REWARDS.values() if not rule.lacks))
LONGEST = 40
"""Characters of a value that a sentence about it repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """What was typed over a group, by rollout: its reward (NaN leaves it out), and whether it counts as correct."""

    rewards: Mapping[int, float]
    correct: Mapping[int, bool]

    @property
    def before_shaping(self) -> Edits:
        """What a group-aware reward has to know: which rollouts are left out, and which count as correct."""
        return replace(self, rewards={n: value for n, value in self.rewards.items() if math.isnan(value)})

    def over(self, batch: RecordedBatch, inside: np.ndarray) -> RecordedBatch:
        """The batch with this in place of what was recorded of the rollouts `inside` it."""
        reward_R, verdict_R = batch.reward_R.copy(), batch.verdict_R.copy()
        for n in inside:
            rollout = int(batch.index_R[n])
            reward_R[n] = self.rewards.get(rollout, reward_R[n])
            verdict_R[n] = {True: 1.0, False: -1.0}[self.correct[rollout]] if rollout in self.correct else verdict_R[n]
        return replace(batch, reward_R=reward_R, verdict_R=verdict_R)

    def but_for(self, batch: RecordedBatch, inside: np.ndarray, *, reward_R: np.ndarray) -> Edits:
        """Without rewards that are as in `reward_R`, and verdicts as recorded."""
        was = {int(batch.index_R[n]): (float(reward_R[n]), float(batch.verdict_R[n])) for n in inside}
        return Edits(
            rewards={n: value for n, value in self.rewards.items() if not _same(value, was[n][0])},
            correct={n: value for n, value in self.correct.items() if (1.0 if value else -1.0) != was[n][1]},
        )


def read_edits(step: int, group: int, rollouts: np.ndarray) -> tuple[Edits, list[str]]:
    """What the address types over this group, whose rollouts have these numbers, and what of it cannot be taken."""
    known, wrong = {int(n) for n in rollouts}, []

    def entries(name: str, value_of: Callable[[str], Value | None]) -> dict[int, Value]:
        found = {}
        for word in _words(name):
            place, _, text = word.partition(":")
            numbers = [int(part) for part in place.split(".") if part.isascii() and part.isdigit() and len(part) < 10]
            value = value_of(text)
            if len(numbers) != 3 or place.count(".") != 2 or value is None or (numbers[:2] == [step, group] and numbers[2] not in known):
                wrong.append(f"{name} {_short(word)}")
            elif numbers[:2] == [step, group]:
                found[numbers[2]] = value
        return found

    return Edits(rewards=entries("rewards", _reward), correct=entries("correct", {YES: True, NO: False}.get)), wrong


def put_edits(step: int, group: int, edits: Edits) -> None:
    """Write what is typed over this group to the address, in place of what was typed over any."""
    of = f"{step}.{group}"
    url.put(
        rewards=[f"{of}.{n}:{NONE if math.isnan(value) else _spelled(value)}" for n, value in sorted(edits.rewards.items())],
        correct=[f"{of}.{n}:{YES if value else NO}" for n, value in sorted(edits.correct.items())],
    )


def choices(method: str) -> dict[str, tuple[str, ...]]:
    """The options of a method that are one of some words, and these words."""
    literals = {knob: get_args(RunConfig.model_fields[knob].annotation) for knob in sorted(METHODS[method].knobs) if knob not in METHODS[method].own_values}
    return {knob: words for knob, words in literals.items() if words and all(isinstance(word, str) for word in words)}


def read_settings() -> tuple[dict[tuple[str, str], float | str], list[str]]:
    """The numbers and words that the address sets, by method and option, and what of it cannot be taken."""
    found, wrong = {}, []
    for word in _words("set"):
        place, _, text = word.partition(":")
        method, _, knob = place.partition(".")
        words = choices(method).get(knob, ()) if method in METHODS else ()
        value = text if text in words else _number(text)
        if method not in METHODS or knob not in (*METHODS[method].own_values, *choices(method)) or value is None or (words and value not in words):
            wrong.append(f"set {_short(word)}")
        else:
            found[method, knob] = value
    return found, wrong


def put_settings(settings: Mapping[tuple[str, str], float | str]) -> None:
    """Write numbers and words by method and option to the address."""
    url.put(set=[f"{method}.{knob}:{value if isinstance(value, str) else _spelled(value)}" for (method, knob), value in settings.items()])


def read_rule(was: RunConfig) -> tuple[dict[str, object], list[str]]:
    """The options of the group-aware reward that the address sets, by name, and what of it cannot be taken; nothing for the one the run has."""
    asked, wrong = {name: st.query_params[name] for name in RULE if name in st.query_params}, []
    if asked.get("group_reward", "none") not in RULES:
        wrong.append(f"group_reward {_short(str(asked.pop('group_reward')))}")
    if "group_reward_weight" in asked and (weight := _number(str(asked.pop("group_reward_weight")))) is not None:
        asked["group_reward_weight"] = weight
    elif "group_reward_weight" in st.query_params:
        wrong.append(f"group_reward_weight {_short(st.query_params['group_reward_weight'])}")
    kept = asked.get("group_reward", was.group_reward) == was.group_reward
    rule = {name: getattr(was, name) if kept else RunConfig.model_fields[name].default for name in RULE} | asked
    return {} if all(rule[name] == getattr(was, name) for name in RULE) else rule, wrong


def put_rule(was: RunConfig, rule: Mapping[str, object]) -> None:
    """Write the options of a group-aware reward to the address, where they are otherwise than the run has them."""
    same = rule["group_reward"] == was.group_reward
    usual = {name: getattr(was, name) if same else RunConfig.model_fields[name].default for name in RULE}
    words = {name: _spelled(value) if isinstance(value, float) else str(value) for name, value in rule.items()}
    url.put(**{name: words[name] if rule[name] != usual[name] or (name == "group_reward" and not same) else None for name in RULE})


def read_methods(most: int) -> tuple[list[str], list[str]]:
    """At most so many methods of the address, and what of it cannot be taken."""
    asked = list(dict.fromkeys(_words("methods")))
    known = [word for word in asked if word in METHODS]
    return known[:most], [f"method {_short(word)}" for word in asked if word not in METHODS] + [f"method {word} beyond {most}" for word in known[most:]]


def _words(name: str) -> list[str]:
    return [word for word in st.query_params.get(name, "").split(",") if word]


def _reward(text: str) -> float | None:
    return math.nan if text == NONE else _number(text)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _spelled(value: float) -> str:
    return f"{value:.12g}"


def _short(word: str) -> str:
    return word if len(word) <= LONGEST else f"{word[:LONGEST]}…"


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))

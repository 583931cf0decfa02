"""What is asked of the laboratory: which methods, at which policy, with which settings and rewards; all of it in the address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from grpo_core.config import RunConfig, make_config
from grpo_core.errors import ConfigError
from grpo_core.lab.batch import RecordedBatch
from grpo_core.lab.shaped import NotShaped, rule_of, shaped
from grpo_core.methods import METHODS
from grpo_core.rules import GROUP_REWARDS
from pages.components import lab_address, url
from pages.components.data import Run
from pages.components.text import escape, fixed

FIRST, AGAIN = "First update", "One more update"
POLICIES = (FIRST, AGAIN)
AT = (
    "First update: the policy that sampled, every ratio is 1. One more update: the policy after all of the step's own updates, "
    "where ratios have moved and bounds hold."
)
MOST = 5
DEFAULTS = ("grpo", "dr_grpo", "gtpo")
NAMED = 5
"""So many wrong values of an address are named."""
TYPE = "Total reward. Type another to see what it would change; empty leaves the rollout out. The record stays as it is."

REWARDS = "As recorded, or as the group reward of the settings makes them. Type another to see what it would change; nothing recorded changes."
SHAPES = (
    "A rule that looks at all rollouts of a group and shapes their rewards, by the function that the trainer uses, on the rewards that the task gave. "
    "e_grpo reads the entities of every prompt and ps_grpo other forms of its question, which no run records."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the controls ask for: a config per method, at least one, whether of one more update, the group-aware reward in place of the run's, what is
    set otherwise than the run or the method has it, and what in the address cannot be taken; the last two in words."""

    configs: list[RunConfig]
    was: RunConfig
    rule: RunConfig
    after: bool
    changed: list[str]
    wrong: list[str]

    def shaped(self, batch: RecordedBatch) -> RecordedBatch:
        """The batch with the rewards of the group-aware reward that is asked for."""
        return shaped(batch, self.was, self.rule)


def controls(run: Run, batch: RecordedBatch) -> Asked:
    """Which methods, with which settings, at which policy: the methods in the address, else the run's own and a few that differ from it."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        methods, wrong = lab_address.read_methods(MOST)
        methods = methods or list(dict.fromkeys((run.config.method, *DEFAULTS)))[:3]
        st.multiselect(
            f"Methods, up to {MOST}", list(METHODS), key="lab.methods", on_change=url.sync("methods", "lab.methods", methods), max_selections=MOST,
            format_func=_title, width=520,
        )  # fmt: skip
        rescored = batch.rescored
        policies = POLICIES if rescored else POLICIES[:1]
        policy = url.choice("policy", policies, FIRST)
        if (asked := st.query_params.get("policy", FIRST)) != policy:
            wrong.append(f"policy {asked[:40]}" + (", which this step does not have" if asked in POLICIES else ""))
        changed = url.sync("policy", "lab.policy", policy, default=FIRST)
        st.segmented_control(
            "At the policy of the", policies, required=True, key="lab.policy", on_change=changed,
            help=AT + ("" if rescored else " Not available for this step: not every rollout was scored again after the update."),
        )  # fmt: skip
        settings, unread = lab_address.read_settings()
        bases = {name: _base(run, name) for name in methods}
        configs, refused = _with_settings(bases, settings)
        rule, configs, unfit = _with_rule(run, batch, configs)
        with st.popover("Settings", icon=":material/tune:"):
            _rule(run, rule)
            for config in configs:
                _settings(run, bases[config.method], config)
    moved = [*_ruled(run.config, rule), *(said for config in configs for said in _moved(bases[config.method], config))]
    return Asked(configs=configs, was=run.config, rule=rule, after=policy == AGAIN, changed=moved, wrong=[*wrong, *unread, *refused, *unfit])


def _base(run: Run, name: str) -> RunConfig:
    """The method as this run would have it: the run's own settings where the method is its own."""
    shape = {key: getattr(run.config, key) for key in ("group_size", "max_new_tokens", "prompts_per_step", "seed")}
    return run.config if name == run.config.method else make_config({**shape, **METHODS[name].asks, "method": name})


def _with_settings(bases: Mapping[str, RunConfig], settings: Mapping[tuple[str, str], float | str]) -> tuple[list[RunConfig], list[str]]:
    """Every base with what is set of its method, and what is refused of that."""
    configs, refused = [], []
    for name, config in bases.items():
        for knob, value in ((knob, value) for (method, knob), value in settings.items() if method == name):
            try:
                config = config.with_changes(**{knob: value})
            except ConfigError as error:
                refused.append(f"set {name}.{knob} ({error})")
        configs.append(config)
    return configs, refused


def _with_rule(run: Run, batch: RecordedBatch, configs: Sequence[RunConfig]) -> tuple[RunConfig, list[RunConfig], list[str]]:
    """The config whose group-aware reward shapes the step, the methods that can be trained with it, and what is refused of the address."""
    asked, refused = lab_address.read_rule(run.config)
    if not asked:
        return run.config, list(configs), refused
    try:
        task = {name: getattr(run.config, name) for name, field in RunConfig.model_fields.items() if field.json_schema_extra["section"] == "task"}
        rule = make_config({**task, **{name: getattr(run.config, name) for name in ("steps", "group_size", "prompts_per_step", "max_new_tokens")}, **asked})
        shaped(batch, run.config, rule)
    except (ConfigError, NotShaped) as error:
        return run.config, list(configs), [*refused, f"group_reward {asked['group_reward']} ({error})"]
    able = []
    for config in configs:
        try:
            config.with_changes(**asked)
            able.append(config)
        except ConfigError as error:
            refused.append(f"{_title(config.method)} ({error})")
    return (rule, able, refused) if able else (run.config, list(configs), refused)


def _rule(run: Run, rule: RunConfig) -> None:
    """The group-aware reward, to choose another."""
    shown = {name: getattr(rule, name) for name in lab_address.RULE}
    keys = {name: f"lab.{name}.{run.run_id}" for name in shown}
    means = {name: RunConfig.model_fields[name].description for name in shown}

    def write() -> None:
        typed = {name: st.session_state.get(keys[name], value) for name, value in shown.items()}
        if typed["group_reward"] != shown["group_reward"]:
            typed = {name: RunConfig.model_fields[name].default for name in shown} | {"group_reward": typed["group_reward"]}
        lab_address.put_rule(run.config, {name: RunConfig.model_fields[name].default if value is None else value for name, value in typed.items()})

    for name, value in shown.items():
        url.show(keys[name], value)
    st.markdown("**Group reward**", help=SHAPES)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox("group_reward", lab_address.RULES, key=keys["group_reward"], on_change=write, format_func=_rule_title, help=means["group_reward"])
        if rule.group_reward not in ("none", "datarus"):
            st.number_input(
                "group_reward_weight", min_value=0.0, step=None, format="%g", key=keys["group_reward_weight"], on_change=write,
                help=means["group_reward_weight"],
            )  # fmt: skip
        if rule.group_reward in ("otc", "gcpo", "datarus"):
            st.text_input("mark_pattern", key=keys["mark_pattern"], on_change=write, help=means["mark_pattern"])


def _ruled(was: RunConfig, rule: RunConfig) -> list[str]:
    """What of the group-aware reward is otherwise than the run has it, in words."""
    if rule_of(was) == rule_of(rule):
        return []
    weight, mark = f" with weight {rule.group_reward_weight:g}" * bool(rule.group_reward_weight), f" looking for {rule.mark_pattern}" * bool(rule.mark_pattern)
    instead = "" if was.group_reward == rule.group_reward else f" instead of {_rule_title(was.group_reward)}"
    return [f"the group reward is {_rule_title(rule.group_reward)}{weight}{mark}{instead}"]


def _rule_title(name: str) -> str:
    return GROUP_REWARDS[name].title if name in GROUP_REWARDS else "none"


def _settings(run: Run, base: RunConfig, config: RunConfig) -> None:
    """Every number and choice of the method, to set another."""
    method = METHODS[config.method]
    choices = lab_address.choices(config.method)
    if not method.own_values and not choices:
        st.caption(f"{escape(method.title)} has nothing to set.")
        return
    st.markdown(f"**{escape(method.title)}**")
    columns = st.columns(len(method.own_values) + len(choices))
    for column, (knob, words) in zip(columns[len(method.own_values) :], choices.items(), strict=True):
        key = f"lab.set.{run.run_id}.{method.name}.{knob}"
        url.show(key, getattr(config, knob))
        meant = RunConfig.model_fields[knob].description
        column.selectbox(knob, words, key=key, help=meant, on_change=_set, args=(key, method.name, knob, getattr(base, knob)))
    for column, (knob, own) in zip(columns, method.own_values.items(), strict=False):
        field, key = RunConfig.model_fields[knob], f"lab.set.{run.run_id}.{method.name}.{knob}"
        limits = {name: getattr(bound, name) for bound in field.metadata for name in ("ge", "le") if hasattr(bound, name)}
        url.show(key, float(config.strength(knob, own)))
        column.number_input(
            knob, value=None, min_value=limits.get("ge"), max_value=limits.get("le"), step=None, format="%g", key=key, help=field.description,
            on_change=_set, args=(key, method.name, knob, float(base.strength(knob, own))),
        )  # fmt: skip


def _set(key: str, method: str, knob: str, base: float | str) -> None:
    typed = st.session_state[key]
    others = {place: value for place, value in lab_address.read_settings()[0].items() if place != (method, knob)}
    lab_address.put_settings(others if typed in (None, base) else {**others, (method, knob): typed})


def _moved(base: RunConfig, config: RunConfig) -> list[str]:
    """What is set otherwise than the base has it, in words."""
    method = METHODS[config.method]
    pairs = {knob: (config.strength(knob, own), base.strength(knob, own)) for knob, own in method.own_values.items()}
    numbers = [f"{method.title} has {knob} {now:g} instead of {was:g}" for knob, (now, was) in pairs.items() if now != was]
    words = {knob: (getattr(config, knob), getattr(base, knob)) for knob in lab_address.choices(config.method)}
    return numbers + [f"{method.title} has {knob} {now} instead of {was}" for knob, (now, was) in words.items() if now != was]


def edited(batch: RecordedBatch, run: Run, asked: Asked, rollouts: pd.DataFrame, step: int, group: int) -> tuple[RecordedBatch, list[str]]:
    """An editor of the group's rewards, the batch with what the address types there, and what of that cannot be taken."""
    inside = np.flatnonzero(batch.group_R == group)
    edits, wrong = lab_address.read_edits(step, group, batch.index_R[inside])
    typed = edits.over(asked.shaped(edits.before_shaping.over(batch, inside)), inside)
    place = f"lab.rewards.{run.run_id}.{run.status.attempt}.{step}.{group}"
    key = f"{place}.{_version(place, edits)}"

    def write() -> None:
        rewards, correct = dict(edits.rewards), dict(edits.correct)
        for row, cells in st.session_state[key]["edited_rows"].items():
            rollout = int(batch.index_R[inside[row]])
            if "reward" in cells:
                rewards[rollout] = np.nan if cells["reward"] is None else float(cells["reward"])
            if "correct" in cells:
                correct[rollout] = bool(cells["correct"])
        judged = asked.shaped(lab_address.Edits(rewards={}, correct=correct).over(batch, inside))
        now = lab_address.Edits(rewards=rewards, correct=correct).but_for(batch, inside, reward_R=judged.reward_R)
        st.session_state[place] = (now, st.session_state[place][1])
        lab_address.put_edits(step, group, now)

    st.data_editor(
        pd.DataFrame(
            {
                "rollout": typed.index_R[inside],
                "text": [text.strip().replace("\n", " ⏎ ") for text in rollouts["text"]],
                "reward": typed.reward_R[inside],
                "correct": typed.verdict_R[inside] > 0,
            }
        ),
        key=key,
        on_change=write,
        hide_index=True,
        disabled=["rollout", "text"],
        column_config={
            "rollout": st.column_config.NumberColumn("#", width=40, help="Position of the rollout in the group, from 0."),
            "text": st.column_config.TextColumn("Completion", help="What the rollout says, on one line."),
            "reward": st.column_config.NumberColumn("Reward", format="%.3g", width=80, help=TYPE),
            "correct": st.column_config.CheckboxColumn("Correct", width=70, help="Read by methods that weigh right against wrong."),
        },
    )
    return typed, wrong


def _version(place: str, edits: lab_address.Edits) -> int:
    """Counts up when the address says something else than was typed last, so that the editor forgets what was typed."""
    said, version = st.session_state.get(place, (edits, 0))
    st.session_state[place] = (edits, version + (str(said) != str(edits)))
    return st.session_state[place][1]


def left_out(wrong: Sequence[str]) -> str:
    """What the address asks for in vain, in one sentence."""
    more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
    return f"The address asks for what cannot be shown, which is left out: {'; '.join(wrong[:NAMED])}{more}."


def as_recorded() -> None:
    """Take back everything typed, settings too."""
    url.put(rewards=None, correct=None, set=None, **dict.fromkeys(lab_address.RULE))


def changes(before: RecordedBatch, after: RecordedBatch) -> list[str]:
    """What was typed over the record, rollout by rollout, in words."""
    said = []
    for n, (was, now) in enumerate(zip(before.reward_R, after.reward_R, strict=True)):
        if was != now and not (np.isnan(was) and np.isnan(now)):
            said.append(f"rollout {before.index_R[n]} has reward {fixed(float(now))} instead of {fixed(float(was))}")
        if before.verdict_R[n] != after.verdict_R[n]:
            said.append(f"rollout {before.index_R[n]} counts as {'correct' if after.verdict_R[n] > 0 else 'wrong'}")
    return said


def _title(name: str) -> str:
    return METHODS[name].title

"""The laboratory in words, bars and text: what each chosen method would do with a recorded step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from grpo_core.config import RunConfig, make_config
from grpo_core.errors import ConfigError
from grpo_core.lab.batch import Push, RecordedBatch
from grpo_core.lab.figures import Summary, opposed, relative, shared_tokens, summary, widest
from grpo_core.methods import METHODS
from pages.components import data, lab_address, plots, url
from pages.components.data import Run
from pages.components.group_view import TOKENS_AT_ONCE, parts
from pages.components.rank_table import Column, rank_table
from pages.components.text import UNKNOWN, counted, escape, fixed, listed, number, percent, token_text
from pages.components.token_strip import Marked, Quantity, strip_data, token_strip

Array = np.ndarray
MEANS = (
    "Any method on a batch that is already recorded: its advantages, and the gradient −∂loss/∂logp that it would give every token, "
    "by the functions that train it."
)
EXACT = (
    "Exact: advantages, weights and gradients on this batch, the step taken as one update; the trainer's own first update has the very "
    "same ones. Not in them: how the push on one token moves others through the weights they share, what the optimizer makes of the sizes, "
    "and what the policy would have sampled had the method trained it from the start. That only training shows: "
    "`python -m grpo_core compare --methods …`."
)
FIRST, AGAIN = "First update", "One more update"
POLICIES = (FIRST, AGAIN)
AT = (
    "First update: the policy that sampled, every ratio is 1. One more update: the policy after all of the step's own updates, "
    "where ratios have moved and bounds hold."
)
MOST = 5
DEFAULTS = ("grpo", "dr_grpo", "gtpo")
COLOURS = ("c0", "c1", "c2", "c3", "c4")
LONG = 80
"""Above so many tokens on average, every rollout gets the full width."""
LISTED = 25
NOTED = 0.05
"""Shares of the push that lie this far apart are worth a sentence."""
WEIGHED = "lab.weighed"
PLACE = "Group of the step, rollout of the group, tokens of the completion, each from 0."
NAMED = 5
"""So many wrong values of an address are named."""
TYPE = "Total reward. Type another to see what it would change; empty leaves the rollout out. The record stays as it is."


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """One method beside the others: its config, what it does with the step, relative to its own average, and in figures."""

    config: RunConfig
    push: Push
    relative_N: Array
    summary: Summary

    @property
    def name(self) -> str:
        return self.config.method

    @property
    def title(self) -> str:
        return METHODS[self.name].title


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One figure of Summary as bars: its name, how it reads, and what it means."""

    name: str
    title: str
    share: bool
    means: str


MEASURES = (
    Measure(
        name="down_correct",
        title="Push-down, correct",
        share=True,
        means="Share of the method's whole push, Σ|−∂loss/∂logp|, that makes tokens of correct rollouts less likely. What a method that rewards only "
        "correctness has as 0.",
    ),
    Measure(
        name="down_shared",
        title="Push-down, shared",
        share=True,
        means="Share of the method's whole push that makes tokens less likely which stand at the same place, counted from the start or the "
        "end, of a correct and a wrong rollout of the group: pushing them down also takes likelihood from the correct one.",
    ),
    Measure(
        name="groups",
        title="Effective groups",
        share=False,
        means="(Σm)² / Σm² over the groups' shares m of the push: how many groups would teach as much if all taught alike.",
    ),
    Measure(
        name="tokens",
        title="Effective tokens",
        share=False,
        means="(Σm)² / Σm² over the tokens' |push| m: how many tokens would carry as much if all weighed alike.",
    ),
    Measure(
        name="clipped",
        title="Held at a bound",
        share=True,
        means="Share of the loss tokens that the method's clip bounds hold, so that they get no gradient. Nothing can be held at the first "
        "update: every ratio is 1.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the controls ask for: a config per method, at least one, whether of one more update, what is set otherwise than the run or the method has
    it, and what in the address cannot be taken; the last two in words."""

    configs: list[RunConfig]
    after: bool
    changed: list[str]
    wrong: list[str]


def controls(run: Run, *, rescored: bool) -> Asked:
    """Which methods, with which settings, at which policy: the methods in the address, else the run's own and a few that differ from it."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        methods, wrong = lab_address.read_methods(MOST)
        methods = methods or list(dict.fromkeys((run.config.method, *DEFAULTS)))[:3]
        st.multiselect(
            f"Methods, up to {MOST}", list(METHODS), key="lab.methods", on_change=url.sync("methods", "lab.methods", methods), max_selections=MOST,
            format_func=_title, width=520,
        )  # fmt: skip
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
        with st.popover("Settings", icon=":material/tune:"):
            for name, config in zip(methods, configs, strict=True):
                _settings(run, bases[name], config)
    moved = [said for name, config in zip(methods, configs, strict=True) for said in _moved(bases[name], config)]
    return Asked(configs=configs, after=policy == AGAIN, changed=moved, wrong=[*wrong, *unread, *refused])


def _base(run: Run, name: str) -> RunConfig:
    """The method as this run would have it: the run's own settings where the method is its own."""
    shape = {key: getattr(run.config, key) for key in ("group_size", "max_new_tokens", "prompts_per_step", "seed")}
    return run.config if name == run.config.method else make_config({**shape, **METHODS[name].asks, "method": name})


def _with_settings(bases: Mapping[str, RunConfig], settings: Mapping[tuple[str, str], float]) -> tuple[list[RunConfig], list[str]]:
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


def _settings(run: Run, base: RunConfig, config: RunConfig) -> None:
    """Every number of the method, to type another."""
    method = METHODS[config.method]
    if not method.own_values:
        st.caption(f"{escape(method.title)} has no numbers to set.")
        return
    st.markdown(f"**{escape(method.title)}**")
    for column, (knob, own) in zip(st.columns(len(method.own_values)), method.own_values.items(), strict=True):
        field, key = RunConfig.model_fields[knob], f"lab.set.{run.run_id}.{method.name}.{knob}"
        limits = {name: getattr(bound, name) for bound in field.metadata for name in ("ge", "le") if hasattr(bound, name)}
        url.show(key, float(config.strength(knob, own)))
        column.number_input(
            knob, value=None, min_value=limits.get("ge"), max_value=limits.get("le"), step=None, format="%g", key=key, help=field.description,
            on_change=_set, args=(key, method.name, knob, float(base.strength(knob, own))),
        )  # fmt: skip


def _set(key: str, method: str, knob: str, base: float) -> None:
    typed = st.session_state[key]
    others = {place: value for place, value in lab_address.read_settings()[0].items() if place != (method, knob)}
    lab_address.put_settings(others if typed in (None, base) else {**others, (method, knob): typed})


def _moved(base: RunConfig, config: RunConfig) -> list[str]:
    """What is set otherwise than the base has it, in words."""
    method = METHODS[config.method]
    pairs = {knob: (config.strength(knob, own), base.strength(knob, own)) for knob, own in method.own_values.items()}
    return [f"{method.title} has {knob} {now:g} instead of {was:g}" for knob, (now, was) in pairs.items() if now != was]


def weigh(batch: RecordedBatch, asked: Asked, run: Run) -> list[Weighed]:
    """Every config's method on a step of the run, in order; what was weighed before is not weighed again. Raises LabDown."""
    place = (run.run_id, run.status.attempt, batch.step, asked.after, batch.reward_R.tobytes(), batch.verdict_R.tobytes())
    last, known = st.session_state.get(WEIGHED, (None, {}))
    known = known if last == place else {}
    new = [config for config in asked.configs if config not in known]
    if new:
        known = {**known, **dict(zip(new, data.laboratory().pushes(batch, new, after=asked.after), strict=True))}
    st.session_state[WEIGHED] = (place, {config: known[config] for config in asked.configs})
    shared_N = shared_tokens(batch)
    weighed = []
    for config, push in st.session_state[WEIGHED][1].items():
        figures = summary(batch, push, shared_N, clips=asked.after and METHODS[config.method].clip is not None)
        weighed.append(Weighed(config=config, push=push, relative_N=relative(push), summary=figures))
    return weighed


def sentences(batch: RecordedBatch, weighed: Sequence[Weighed]) -> list[str]:
    """How far the methods agree on this step, and what they cannot say."""
    able = [one for one in weighed if not one.push.missing]
    said = [_agreement(batch, able), *_on_shared(able)] if len(able) > 1 else []
    said += [f"{one.title} pushes nothing: every advantage is 0." for one in able if one.summary.groups is None]
    said += [f"{one.title} is not available: it needs {one.push.missing}." for one in weighed if one.push.missing]
    said += [f"{one.title} is shown without {listed(list(one.push.left_out))}." for one in able if one.push.left_out]
    return said


def _agreement(batch: RecordedBatch, able: Sequence[Weighed]) -> str:
    tokens = len(batch.token_ids_N)
    share = opposed([one.push for one in able])
    head = f"{percent(share)} of the step's {counted(tokens, 'token')} would be made likelier by one of these methods and less likely by another."
    if share:
        return head
    found = widest(batch, [one.relative_N for one in able])
    if not len(found.first):
        return "These methods do the same with this step, but for the size of the loss, which the optimizer mostly takes away."
    return (
        "No token of this step would be pushed up by one of these methods and down by another; "
        f"{counted(int((found.last - found.first + 1).sum()), 'token')} of {tokens} would be pushed harder by one than by another."
    )


def _on_shared(able: Sequence[Weighed]) -> list[str]:
    """Which of the methods presses shared tokens down most and which least, where that differs."""
    ranked = sorted((one for one in able if one.summary.down_shared is not None), key=lambda one: one.summary.down_shared)
    if len(ranked) < 2 or ranked[-1].summary.down_shared - ranked[0].summary.down_shared < NOTED:
        return []
    least, most = ranked[0], ranked[-1]
    return [
        f"Of {most.title}'s push {percent(most.summary.down_shared)} presses down tokens that a correct rollout has at the same place, "
        f"of {least.title}'s {percent(least.summary.down_shared)}."
    ]


def bars(weighed: Sequence[Weighed]) -> None:
    """The figures of the whole step, one small chart each."""
    able = [one for one in weighed if not one.push.missing]
    with st.grid(len(MEASURES), min_column_width=190, gap="small"):
        for measure in MEASURES:
            with st.container(border=True, gap="xsmall"):
                st.markdown(f"**{measure.title}**", help=measure.means)
                values = [getattr(one.summary, measure.name) for one in able]
                shown = [UNKNOWN if value is None else percent(value) if measure.share else number(value, 3) for value in values]
                plots.draw(
                    plots.named_bars(
                        [one.title for one in able], [value or 0.0 for value in values], shown, [colour_of(weighed, one) for one in able],
                        least=0.05 if measure.share else 1.0,
                    ),  # fmt: skip
                    key=f"plot.lab.{measure.name}",
                    alt=f"{measure.title}: {listed([f'{one.title} {text}' for one, text in zip(able, shown, strict=True)])}.",
                )


def colour_of(weighed: Sequence[Weighed], one: Weighed) -> str:
    return COLOURS[next(n for n, other in enumerate(weighed) if other is one)]


def edited(batch: RecordedBatch, run: Run, rollouts: pd.DataFrame, step: int, group: int) -> tuple[RecordedBatch, list[str]]:
    """An editor of the group's rewards, the batch with what the address types there, and what of that cannot be taken."""
    inside = np.flatnonzero(batch.group_R == group)
    edits, wrong = lab_address.read_edits(step, group, batch.index_R[inside])
    typed = edits.over(batch, inside)
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
        now = lab_address.Edits(rewards=rewards, correct=correct).but_for(batch, inside)
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
    url.put(rewards=None, correct=None, set=None)


def advantages(batch: RecordedBatch, weighed: Sequence[Weighed], group: int) -> None:
    """The group's advantages under every method, rollout by rollout."""
    inside = np.flatnonzero(batch.group_R == group)
    able = [one for one in weighed if not one.push.missing]
    st.markdown("**Advantages**", help="Advantage of each rollout of this group under each method, before token weights and clipping.")
    curves = {one.title: (one.push.advantage_R[inside], colour_of(weighed, one)) for one in able}
    figure = plots.grouped_bars([str(n) for n in batch.index_R[inside]], curves, "Rollout of the group")
    plots.draw(figure, key="plot.lab.advantages", alt="Advantages of the group's rollouts under each method.")


def strip(run: Run, batch: RecordedBatch, weighed: Sequence[Weighed], rollouts: pd.DataFrame, step: int, group: int) -> None:
    """The group's text coloured by one method's push, and beside it by another's."""
    able = {one.name: one for one in weighed if not one.push.missing}
    if not able:
        return
    names = list(able)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        left = url.choice("left", names, names[0])
        changed = url.sync("left", "lab.left", left, default=names[0])
        st.segmented_control("Colour tokens by the push of", names, required=True, key="lab.left", on_change=changed, format_func=_title)
        others = [name for name in names if name != left]
        right = url.choice("right", others, others[0]) if others else None
        if len(others) > 1:
            changed = url.sync("right", "lab.right", right, default=others[0])
            st.segmented_control("And beside it by that of", others, required=True, key="lab.right", on_change=changed, format_func=_title)
    first = parts(rollouts["length"].to_numpy(), TOKENS_AT_ONCE // 2)[0][1]
    if first < len(rollouts):
        st.caption(f"The first {first} of {counted(len(rollouts), 'rollout')}.")
    inside = batch.group_R == group
    inside_N = np.flatnonzero(inside[batch.rollout_N])[: int(rollouts["length"].iloc[:first].sum())]
    verdicts = [None if verdict == 0 else bool(verdict > 0) for verdict in batch.verdict_R[inside]]
    advantage_R = able[left].push.advantage_R[inside]
    rollouts = rollouts.assign(reward=batch.reward_R[inside], correct=pd.array(verdicts, "boolean"), advantage=advantage_R)
    marked = Marked(
        quantities={name: _quantity(one) for name, one in able.items()},
        traces={f"push_{name}": one.relative_N[inside_N] for name, one in able.items()} | {"clipped": able[left].push.clipped_N[inside_N].astype("f8")},
        told={f"push, {one.title}": f"push_{name}" for name, one in able.items()},
        facts=[()] * first,
        beside=right,
    )
    typed = [batch.reward_R[inside].tolist(), verdicts, advantage_R.tolist()]
    identity = f"{run.run_id} {run.status.attempt} {step} {group} {left} {right} {typed}"
    long = bool(rollouts["length"].mean() > LONG)
    drawn = strip_data(rollouts.iloc[:first], data.vocabulary(run), left, identity=identity, chosen=url.whole("rollout"), stacked=long, marked=marked)
    token_strip(drawn, key="lab.strip", on_rollout=lambda: None, on_move=lambda: None)


def _quantity(one: Weighed) -> Quantity:
    return Quantity(
        key=one.name,
        label=one.title,
        unit="× its average",
        kind="diverging",
        trace=f"push_{one.name}",
        means=f"−∂loss/∂logp under {one.title} over its mean size on the step's tokens: blue would be made likelier, red less likely, "
        "by so many times the average push",
    )


def disagreements(run: Run, batch: RecordedBatch, weighed: Sequence[Weighed], step: int) -> None:
    """The stretches of the step on which the methods lie farthest apart; a click opens their group."""
    able = [one for one in weighed if not one.push.missing]
    st.markdown(
        "**Where they disagree most**",
        help="Stretches of the whole step by how far the methods' pushes lie apart, each as a multiple of the method's own average. A click shows the group.",
    )
    if len(able) < 2:
        st.caption("Appears when two methods are chosen.")
        return
    found = widest(batch, [one.relative_N for one in able])
    first, last = found.first[:LISTED], found.last[:LISTED]
    if not len(first):
        st.caption("Nowhere: up to the size of the loss they push every token alike.")
        return
    rollout, place = batch.rollout_N[first], batch.position_N
    group, index, pieces = batch.group_R[rollout], batch.index_R[rollout], data.vocabulary(run)
    rows = pd.DataFrame(
        {
            "text": [_text(batch.token_ids_N[a : b + 1], pieces) for a, b in zip(first, last, strict=True)],
            "where": [f"group {g} · rollout {r} · {_places(place[a], place[b])}" for g, r, a, b in zip(group, index, first, last, strict=True)],
            "right": [{1: "correct", -1: "wrong"}.get(int(v), "unknown") for v in batch.verdict_R[rollout]],
        }
        | {one.name: one.relative_N[first] for one in able}
    )
    columns = (
        Column(name="text", title="Tokens", kind="code", means="Neighbouring tokens that each method pushes alike, as text."),
        Column(name="where", title="Where", kind="phrase", leaves=800 if len(able) > 3 else 440, means=PLACE),
        Column(name="right", title="Rollout is", kind="phrase", leaves=800 if len(able) > 2 else 560, means="Whether the rollout counts as correct."),
        *(Column(name=one.name, title=one.title, kind="balance", means=f"Push under {one.title}, × its average over the step's tokens.") for one in able),
    )
    ids = [f"{g}-{r}-{n}" for n, (g, r) in enumerate(zip(group, index, strict=True))]
    rank_table(rows, columns, key="lab.apart", label=f"Tokens of step {step} on which the methods disagree", ids=ids, on_row=_open)


def _open(row: str) -> None:
    group, rollout, _ = row.split("-")
    url.put(group=int(group), rollout=int(rollout))


def _text(token_ids: Array, pieces: Sequence[str]) -> str:
    """The first tokens of a stretch as text."""
    text = "".join(token_text(pieces, token) for token in token_ids[:LONG])
    return text + "…" * (len(token_ids) > LONG)


def _places(first: int, last: int) -> str:
    return f"token {first}" if first == last else f"tokens {first} to {last}"


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

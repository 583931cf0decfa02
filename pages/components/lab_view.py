"""The laboratory in words, bars and text: what each chosen method would do with a recorded step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import pandas as pd
import streamlit as st

from grpo_core.config import RunConfig
from grpo_core.lab.batch import Push, RecordedBatch
from grpo_core.lab.figures import Summary, mean_push, opposed, relative, shared_tokens, summary, widest
from grpo_core.methods import METHODS
from pages.components import data, plots, url
from pages.components.data import Run
from pages.components.group_view import TOKENS_AT_ONCE, parts
from pages.components.lab_controls import Asked
from pages.components.rank_table import Column, rank_table
from pages.components.text import UNKNOWN, counted, listed, number, percent, token_text
from pages.components.token_strip import Marked, Quantity, limit, strip_data, token_strip

Array = np.ndarray
MEANS = (
    "Any method on a batch that is already recorded: its advantages, its token weights, and the gradient −∂loss/∂logp that it would give every "
    "token, by the functions that train it."
)
EXACT = (
    "Exact: advantages, weights and gradients on this batch, the step taken as one update; the trainer's own first update has the very "
    "same ones. Not in them: how the push on one token moves others through the weights they share, what the optimizer makes of the sizes, "
    "and what the policy would have sampled had the method trained it from the start. That only training shows: "
    "`python -m grpo_core compare --methods …`."
)
COLOURS = ("c0", "c1", "c2", "c3", "c4")
LONG = 80
"""Above so many tokens on average, every rollout gets the full width."""
SHADES = {
    "push": "−∂loss/∂logp of the token, per nat: above 0 the method makes the token likelier, below 0 less likely.",
    "advantage": "A, how much better than its baseline the method takes the rollout to be, or the token where it gives credit to tokens; no unit.",
    "weight": "W, what the method multiplies the token's part of the policy loss by, before it averages over tokens; 1 where it has no weights of its own, "
    "0 where the token is left out.",
}
"""What tokens may be coloured by, and what each is."""
DARKEST_WEIGHT = 2.0
"""The end of the scale of weights, unless larger ones are shown."""
LISTED = 25
NOTED = 0.05
"""Shares of the push that lie this far apart are worth a sentence."""
WEIGHED = "lab.weighed"
PLACE = "Group of the step, rollout of the group, tokens of the completion, each from 0."


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


def weigh(batch: RecordedBatch, asked: Asked, run: Run) -> list[Weighed]:
    """Every config's method on a step of the run, in order; what was weighed before is not weighed again. Raises LabDown."""
    place = (run.run_id, run.status.attempt, batch.step, asked.after, tuple(batch.parts), batch.reward_R.tobytes(), batch.verdict_R.tobytes())
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

    def title(name: str) -> str:
        return able[name].title

    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        shade = url.choice("shade", SHADES, "push")
        changed = url.sync("shade", "lab.shade", shade, default="push")
        st.segmented_control("Colour tokens by the", list(SHADES), required=True, key="lab.shade", on_change=changed, format_func=str.capitalize)
        left = url.choice("left", names, names[0])
        changed = url.sync("left", "lab.left", left, default=names[0])
        st.segmented_control("of", names, required=True, key="lab.left", on_change=changed, format_func=title)
        others = [name for name in names if name != left]
        right = url.choice("right", others, others[0]) if others else None
        if len(others) > 1:
            changed = url.sync("right", "lab.right", right, default=others[0])
            st.segmented_control("and beside it of", others, required=True, key="lab.right", on_change=changed, format_func=title)
    st.caption(SHADES[shade])
    first = parts(rollouts["length"].to_numpy(), TOKENS_AT_ONCE // 2)[0][1]
    if first < len(rollouts):
        st.caption(f"The first {first} of {counted(len(rollouts), 'rollout')}.")
    inside = batch.group_R == group
    inside_N = np.flatnonzero(inside[batch.rollout_N])[: int(rollouts["length"].iloc[:first].sum())]
    verdicts = [None if verdict == 0 else bool(verdict > 0) for verdict in batch.verdict_R[inside]]
    advantage_R = able[left].push.advantage_R[inside]
    rollouts = rollouts.assign(reward=batch.reward_R[inside], correct=pd.array(verdicts, "boolean"), advantage=advantage_R)
    traces = {f"{name_of}_{name}": values[inside_N] for name, one in able.items() for name_of, values in _traces(one).items()}
    traces["clipped"] = able[left].push.clipped_N[inside_N].astype("f8")
    marked = Marked(
        quantities=_quantities(able, shade, inside_N),
        traces=traces,
        table=[["", "advantage", "weight", "push, 1/nat"], *([one.title, f"advantage_{name}", f"weight_{name}", f"push_{name}"] for name, one in able.items())],
        facts=[()] * first,
        beside=right,
    )
    typed = [batch.reward_R[inside].tolist(), verdicts, advantage_R.tolist()]
    weighed_here = crc32(b"".join(values.tobytes() for values in traces.values()))  # a setting may move the pushes and nothing else
    identity = f"{run.run_id} {run.status.attempt} {step} {group} {left} {right} {typed} {weighed_here}"
    long = bool(rollouts["length"].mean() > LONG)
    drawn = strip_data(rollouts.iloc[:first], data.vocabulary(run), left, identity=identity, chosen=url.whole("rollout"), stacked=long, marked=marked)
    token_strip(drawn, key="lab.strip", on_rollout=lambda: None, on_move=lambda: None)


def _traces(one: Weighed) -> dict[str, Array]:
    """What is told of every token of the step, by its name in SHADES."""
    return {"push": one.push.push_N, "advantage": one.push.advantage_N, "weight": one.push.weight_N}


def _quantities(able: Mapping[str, Weighed], shade: str, inside_N: Array) -> dict[str, Quantity]:
    """What the tokens shown are coloured by, for every method: on one scale for all, but pushes, which end at the same multiple of each method's average."""
    shown = [_traces(one)[shade][inside_N] for one in able.values()]
    if shade == "push":
        multiple = limit(np.concatenate([one.relative_N[inside_N] for one in able.values()]))
        return {name: _quantity(one, shade, scale=multiple * (mean_push(one.push) or 1.0)) for name, one in able.items()}
    end = limit(np.concatenate(shown))
    return {name: _quantity(one, shade, scale=max(end, DARKEST_WEIGHT) if shade == "weight" else end) for name, one in able.items()}


def _quantity(one: Weighed, shade: str, *, scale: float) -> Quantity:
    return Quantity(
        key=one.name,
        label=one.title,
        unit={"push": f"push per nat, {number(mean_push(one.push), 2)} on average", "advantage": "advantage", "weight": "weight"}[shade],
        kind="weight" if shade == "weight" else "diverging",
        trace=f"{shade}_{one.name}",
        scale=scale,
        means=SHADES[shade],
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

"""The rollouts of a group as text coloured by token, with every value of a token under the pointer.

The browser gets all traces at once, so choosing another quantity only recolours. Text enters the page as text only.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import streamlit as st

from grpo_core.measures.flat import end_to_end
from pages.components.assets import script
from pages.components.text import fixed, number, token_text

Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """What tokens may be coloured by. `kind` is diverging (around 0), ratio (around 1), weight (from 0, around 1) or sequential (from 0); `scale`
    fixes the end, which a weight has to say.

    `hue` names the colour of large values: more (green), up (blue, as diverging ones have it unless told), down (red).
    """

    key: str
    label: str
    unit: str
    kind: str
    trace: str
    means: str
    hue: str = ""
    scale: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """More than the stored traces: further `traces` over all tokens (N,) with the words for them under the pointer (`told`),
    further facts per rollout, the quantity that a second copy of every text is coloured by (`beside`), and a `marks` bit set per
    token (1 head run, 2 tail run, 4 middle, 8 identical beginning); the last two may be None. `table` stands under the pointer as well: the names of
    its columns, then a row each of a name and the traces of its cells."""

    quantities: dict[str, Quantity]
    traces: dict[str, Array]
    facts: Sequence[Sequence[tuple[str, str]]]
    beside: str | None
    told: Mapping[str, str] = field(default_factory=dict)
    marks: Array | None = None
    table: Sequence[Sequence[str]] = ()


QUANTITIES: dict[str, Quantity] = {
    quantity.key: quantity
    for quantity in (
        Quantity(
            key="advantage",
            label="Advantage",
            unit="",
            kind="diverging",
            trace="advantages",
            means="advantage of the token used in the loss: blue is pushed up, red down",
        ),
        Quantity(
            key="entropy",
            label="Entropy",
            unit="nats",
            kind="sequential",
            trace="entropy",
            hue="more",
            means="how undecided the policy was here, over the full distribution",
        ),
        Quantity(
            key="logp",
            label="Log-prob",
            unit="nats",
            kind="sequential",
            trace="logp_before",
            hue="down",
            means="log-prob before the update: the redder, the less likely the token was",
        ),
        Quantity(
            key="delta",
            label="Δ log-prob",
            unit="nats",
            kind="diverging",
            trace="logp_delta",
            means="log-prob after the step's last update minus before its first: blue became more likely, red less",
        ),
        Quantity(
            key="ratio",
            label="Ratio",
            unit="after / before",
            kind="ratio",
            trace="ratio",
            means="probability after the step's updates over before: exp of Δ log-prob",
        ),
        Quantity(
            key="weight",
            label="Weight",
            unit="× average token",
            kind="sequential",
            trace="weights",
            hue="up",
            means="weight in the loss relative to an average loss token; 0 is left out",
        ),
        Quantity(
            key="nthr",
            label="NTHR",
            unit="score, wrong rollouts only",
            kind="diverging",
            trace="nthr",
            hue="down",
            means="negative token hidden reward of a wrong rollout's token (arXiv:2505.18830), before the first update: pushing a red one down also takes "
            "likelihood from the group's correct rollouts, pushing a blue one down gives them some",
        ),
    )
}
GWHES = (
    "Group weighted hidden embedding score (arXiv:2505.18830): how strongly the group's wrong rollouts, pushed down, work against this correct one, less "
    "how strongly the correct ones, pushed up, work for it. The larger, the smaller the gain in its log-prob, or the larger the fall."
)
REPLAYED = (
    "An older policy wrote this completion and the run replayed it: it is no sample of this step's policy, and figures of the step leave it out. Its ratios "
    "are taken against the policy that wrote it."
)
REFERENCE = (
    "The task's worked answer, a row of the group beside the rollouts: no policy sampled it, so it has no sampling log-prob or entropy, and figures of "
    "what the policy writes leave it out."
)
HINTED = (
    "The policy wrote this behind a hint, the beginning of the worked answer at the end of the prompt. It was judged as the whole answer, hint included; "
    "figures of what the policy writes leave it out."
)
FINISHES = {"stop_string": "ended at a stop string", "length": "cut at the token limit"}
"""Ways to end that are worth a word; a rollout usually ends with its end-of-sequence token."""
_STORED = {
    "logp_sampling": "logp_sampling", "logp_delta": "logp_delta", "logp_ref": "logp_ref",
    "entropy": "entropy", "advantages": "advantages", "weights": "weights", "clipped": "clipped",
}  # fmt: skip
_HTML = """
<div class="bar"></div>
<div class="rollouts" role="region" aria-label="Rollouts of the group, coloured by token"></div>
<div class="tip" role="tooltip"></div>
"""
_mount = st.components.v2.component(
    "token_strip", html=_HTML, css=script("base.css") + script("token_strip.css"), js=script("dom.js") + script("token_strip.js")
)


def token_strip(data: dict, *, key: str, on_rollout: Callable[[], None], on_move: Callable[[], None]) -> None:
    """Draw `data` (see `strip_data`). `on_rollout` runs with the chosen rollout in `st.session_state[key].rollout`,
    `on_move` with +1 or -1 steps in `st.session_state[key].move`."""
    _mount(key=key, data=data, on_rollout_change=on_rollout, on_move_change=on_move)


def strip_data(
    rollouts: pd.DataFrame, pieces: Sequence[str], quantity: str, *, identity: str, chosen: int | None, stacked: bool, marked: Marked | None = None
) -> dict:
    """The component's data for rows of storage.schema.ROLLOUTS; `pieces` is the text of every token id.

    `identity` changes when the rollouts do; with an equal one the browser only recolours. Thinned rollouts are shown as plain text.
    """
    whole = rollouts[rollouts["thinned"].ne(True)]
    traces = token_traces(whole) | (marked.traces if marked else {})
    facts = marked.facts if marked else [()] * len(rollouts)
    return {
        "id": identity,
        "rollouts": [_card(row, pieces, more) for row, more in zip(rollouts.itertuples(), facts, strict=True)],
        "ids": _coded(end_to_end(whole["token_ids"], whole["length"]), "<i4"),
        "traces": {name: None if np.isnan(values).all() else _coded(values, "<f4") for name, values in traces.items()},
        "quantities": [_scaled(one, traces) for one in (marked.quantities if marked else QUANTITIES).values() if one.trace in (*traces, "ratio")],
        "marks": _coded(marked.marks, "u1") if marked and marked.marks is not None else None,
        "told": list(marked.told.items()) if marked else [],
        "table": marked.table if marked else (),
        "beside": marked.beside if marked else None,
        "quantity": quantity,
        "chosen": chosen,
        "stacked": stacked,
    }


def token_traces(rollouts: pd.DataFrame) -> dict[str, Array]:
    """Every stored trace over all tokens of the rollouts in order (N,), NaN where a rollout lacks it; `nthr` only where it was measured."""
    traces = {name: end_to_end(rollouts[column], rollouts["length"]) for name, column in _STORED.items()}
    if rollouts["nthr"].notna().any():
        traces["nthr"] = end_to_end(rollouts["nthr"], rollouts["length"])
    traces["logp_before"] = traces["logp_sampling"] + end_to_end(rollouts["logp_gap"], rollouts["length"])
    return traces


def measured(rollouts: pd.DataFrame) -> list[str]:
    """The QUANTITIES these rollouts may be coloured by: all, but NTHR only where it was measured."""
    return [key for key in QUANTITIES if key != "nthr" or rollouts["nthr"].notna().any()]


def limit(values: Array) -> float:
    """Where a colour scale ends: the 98th percentile of |value|, rounded up to a round number; 1 without values."""
    known = np.abs(values[~np.isnan(values)])
    top = float(np.quantile(known, 0.98)) if len(known) else 0.0
    if top < 1e-12:
        return 1.0
    power = 10.0 ** np.floor(np.log10(top))
    return float(next(step * power for step in (1, 1.5, 2, 3, 5, 7, 10) if step * power >= top * (1 - 1e-9)))


def _scaled(quantity: Quantity, traces: dict[str, Array]) -> dict:
    """The quantity with its scale and the words at its ends."""
    described = {"key": quantity.key, "label": quantity.label, "unit": quantity.unit, "kind": quantity.kind, "trace": quantity.trace, "hue": quantity.hue}
    if quantity.kind == "weight":
        return described | {"scale": quantity.scale, "low": "0", "middle": "1", "high": number(quantity.scale, 1), "means": quantity.means}
    if quantity.kind == "ratio":
        scale = float(np.exp(limit(traces["logp_delta"])))
        return described | {"scale": scale, "low": number(1 / scale, 2), "middle": "1", "high": number(scale, 2), "means": quantity.means}
    scale = quantity.scale or limit(traces[quantity.trace])
    digits = 1 if np.isclose(scale, float(f"{scale:.0e}")) else 2
    if quantity.kind == "diverging":
        ends = {"low": number(-scale, digits), "middle": "0", "high": number(scale, digits, sign=True)}
    else:
        ends = {"low": "0", "middle": "", "high": number(-scale if quantity.key == "logp" else scale, digits)}
    return described | {"scale": scale, "means": quantity.means} | ends


def _card(row, pieces: Sequence[str], more: Sequence[tuple[str, str]]) -> dict:
    return {
        "index": int(row.rollout_index),
        "title": f"Rollout {row.rollout_index}",
        "chip": _verdict(row.correct),
        "facts": [*_facts(row), *more],
        "notes": _notes(row),
        "pieces": [] if row.thinned else [token_text(pieces, token) for token in row.token_ids],
        "text": row.text if row.thinned else None,
    }


def _verdict(correct: bool | None) -> dict:
    if correct is None or pd.isna(correct):
        return {"text": "not scored", "tone": "gray", "icon": "?"}
    return {"text": "correct", "tone": "blue", "icon": "✓"} if correct else {"text": "wrong", "tone": "orange", "icon": "✗"}


def _facts(row) -> list[tuple[str, ...]]:
    """(number, what it is) for the head of a card, and what that means where the name does not say it."""
    parts = dict(row.reward_parts or {})
    detail = f" ({', '.join(f'{name} {fixed(value)}' for name, value in parts.items())})" if len(parts) > 1 else ""
    facts = [
        (fixed(row.reward), f"reward{detail}"),
        (fixed(row.advantage, sign=True), "advantage"),
        (str(row.length), "token" if row.length == 1 else "tokens"),
    ]
    if row.logp_delta is not None or (row.thinned and not pd.isna(row.delta_sum)):
        facts.append((fixed(float(row.delta_sum if row.thinned else np.sum(row.logp_delta)), sign=True), "Δ log-prob"))
    if not pd.isna(row.gwhes):
        facts.append((number(row.gwhes, 3, sign=True), "GWHES", GWHES))
    if row.source == "replay":
        facts.append((str(int(row.age)), "step old, replayed" if row.age == 1 else "steps old, replayed", REPLAYED))
    if row.source == "hinted":
        facts.append(("", "behind a hint", HINTED))
    if row.source == "reference":
        facts.append(("", "worked answer, not sampled", REFERENCE))
    return facts + [("", FINISHES[row.finish])] if row.finish in FINISHES else facts


def _notes(row) -> list[dict]:
    notes = []
    if row.source == "replay":
        notes.append({"text": REPLAYED, "tone": ""})
    if row.source == "reference":
        notes.append({"text": REFERENCE, "tone": ""})
    if row.failure:
        notes.append({"text": f"Scoring failed: {row.failure}", "tone": "red"})
    if row.logp_delta is None and not row.thinned:
        notes.append({"text": "Δ log-prob and ratio not available: this group was not rescored after the update.", "tone": ""})
    return notes


def _coded(values: Array, dtype: str) -> str:
    return base64.b64encode(values.astype(dtype).tobytes()).decode()

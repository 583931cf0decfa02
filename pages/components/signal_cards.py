"""Every signal as a card: level, value, what it says, where to look, and the curve it is read from with its thresholds.

`signal` in the address is the name of one: its card is marked and scrolled to.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
import pandas as pd
import streamlit as st

from grpo_core.diagnosis.levels import Evidence, Level, Signal
from grpo_core.diagnosis.report import Report
from grpo_core.diagnosis.signals.rewards import TRIES_WINDOW
from grpo_core.diagnosis.thresholds import THRESHOLDS, Threshold
from pages.components import levels, nav, series, url
from pages.components.assets import script
from pages.components.data import Run
from pages.components.text import counted, escape, number
from storage.schema import STEPS

Array = np.ndarray

POINTS = 90
CELLS = 400
"""Pieces of a card's strip of levels at most; it is about as many pixels wide."""
REACH = 1.5
"""A threshold is drawn where it is at most so many heights of the curve away from it; further off it would flatten the curve."""
SHARES = {"groups_all_fail": "share_all_fail", "groups_all_pass": "share_all_pass"}
"""Counts of groups are judged, and drawn, as shares."""
SCALES = {
    "entropy_rise": "start", "length": "start",
    "probe": "below", "reward_fall": "lost", "held_out_fall": "lost", "sharpening": "since",
    **dict.fromkeys(("step_kl", "ess", "mismatch", "reference_kl", "truncation", "length_bought", "starvation", "mastery"), "plain"),
}  # fmt: skip
"""How a threshold reads on the signal's column: as it is, times the first steps' mean, as a difference from that or from the best, or as a
share of the best that is lost. Signals that are not here are judged on figures that no column holds, so no line is drawn for them."""
FIRST = 5
QUANTITIES = {
    "displacement": "delta", "step_kl": "delta", "conflicts": "advantage", "clipping": "ratio",
    "entropy_rise": "entropy", "entropy_fall": "entropy",
}  # fmt: skip
"""What a signal's groups are coloured by when they are opened; the others by what the group page shows first."""
_HTML = """
<div class="cards" role="list"></div>
"""
_mount = st.components.v2.component(
    "signal_cards", html=_HTML, css=script("base.css") + script("signal_cards.css"), js=script("dom.js") + script("levels.js") + script("signal_cards.js")
)


def signal_cards(run: Run, report: Report, steps: pd.DataFrame) -> None:
    """Cards of what is off, from the worst on, then of what is healthy, then a list of what has no answer and why; nothing before the first step."""
    if report.step is None:
        return
    measured = [signal for signal in report.signals if signal.level > Level.NOT_AVAILABLE]
    off = sorted((signal for signal in measured if signal.level >= Level.WATCH), key=lambda signal: (-signal.level, signal.since_step or 0))
    healthy = [signal for signal in measured if signal.level == Level.HEALTHY]
    _cards("Signals that are off", off, run, steps, key="diagnosis.off")
    _cards("Healthy signals", healthy, run, steps, key="diagnosis.healthy")
    missing = [signal for signal in report.signals if signal.level == Level.NOT_AVAILABLE]
    if missing:
        asked = [signal for signal in missing if signal.name == st.query_params.get("signal")]
        with st.expander(f"Not measured: {counted(len(missing), 'signal')}", icon=":material/help:", expanded=bool(asked) or not measured):
            shown = [*asked, *(signal for signal in missing if signal not in asked)]
            st.markdown("\n".join(f"- **{escape(signal.title)}**: {escape(_reason(signal.sentence))}" for signal in shown))


def _cards(title: str, signals: Sequence[Signal], run: Run, steps: pd.DataFrame, *, key: str) -> None:
    if not signals:
        return
    st.markdown(f"**{title}** :gray[{len(signals)}]")
    cards = [_card(signal, run, steps) for signal in signals]
    clicked = _mount(key=key, data={"cards": cards, "fills": levels.FILLS, "chosen": st.query_params.get("signal")}, on_go_change=lambda: None)
    nav.follow(clicked.go)


def _card(signal: Signal, run: Run, steps: pd.DataFrame) -> dict:
    value, unit = levels.measured(signal.value, signal.unit)
    since = signal.since_step
    return {
        "name": signal.name,
        "title": signal.title,
        "chip": levels.chip(signal.level),
        "value": value,
        "unit": unit,
        "help": meaning(signal),
        "since": None if since is None else {"text": f"since step {since}", "href": url.link("run", run=run.run_id, step=since)},
        "sentence": signal.sentence,
        "evidence": [_evidence(one, run) for one in signal.evidence if one.group is None and not np.isnan(one.value)],
        "looks": looks(signal, run),
        "curve": curve(signal, steps),
    }


def meaning(signal: Signal) -> str:
    """What the figure is read from, in which unit, and from where on it is bad."""
    column = next((column for column in STEPS.columns if column.name == signal.column), None)
    read = f"Read from {column.name}: {column.means} ({column.unit})." if column else ""
    bounds = THRESHOLDS.get(signal.name)
    return " ".join(filter(None, [f"{signal.title}, in {signal.unit}.", read, _limits(bounds) if bounds else ""]))


def _limits(bounds: Threshold) -> str:
    known = [
        f"{word} from {number(value, 2)}"
        for word, value in (("watch", bounds.watch), ("unhealthy", bounds.unhealthy), ("collapsed", bounds.collapsed))
        if value is not None
    ]
    direction = " downwards" if bounds.falling else ""
    return f"{', '.join(known)} {bounds.unit}{direction} ({bounds.source}).".capitalize()


def _evidence(one: Evidence, run: Run) -> dict:
    value, unit = levels.measured(one.value, one.unit)
    place = None if one.step is None else {"text": f"step {one.step}", "href": url.link("run", run=run.run_id, step=one.step)}
    return {"label": one.label, "value": value, "unit": unit, "place": place}


def looks(signal: Signal, run: Run) -> list[dict]:
    """The groups to look at, one row per figure, step and token: `correct rollouts of a group, step 40: group 3 0 %, group 5 12 %`."""
    located = [one for one in signal.evidence if one.group is not None]
    rows = groupby(located, key=lambda one: (one.label, one.step, one.token))
    return [
        {"label": label, "step": step, "token": token, "places": [_place(one, run, QUANTITIES.get(signal.name)) for one in some]}
        for (label, step, token), some in rows
    ]


def _place(one: Evidence, run: Run, quantity: str | None) -> dict[str, str]:
    value, unit = levels.measured(one.value, one.unit)
    text = f"group {one.group}" + ("" if one.rollout is None else f", rollout {one.rollout}")
    href = url.link("group", run=run.run_id, step=one.step, group=one.group, rollout=one.rollout, quantity=quantity)
    return {"text": text, "href": href, "value": value, "unit": unit}


def curve(signal: Signal, steps: pd.DataFrame) -> dict | None:
    """The signal's column as points (x from 0 to 1, y), its levels as stretches, and those thresholds that can be told on it."""
    values = series.column(steps, SHARES.get(signal.column, signal.column))[: len(signal.levels)]
    known = np.flatnonzero(~np.isnan(values))
    if len(known) < 2:
        return None
    width = max(len(values) - 1, 1)
    parts = np.array_split(known, min(len(known), POINTS))
    ys = [float(values[part].mean()) for part in parts]
    column = next((column for column in STEPS.columns if column.name == signal.column), None)
    unit = "share of groups" if signal.column in SHARES else column.unit if column else signal.unit
    return {
        "points": [[round(float(part.mean()) / width, 4), y] for part, y in zip(parts, ys, strict=True)],
        "levels": _stretches(signal.levels, width),
        "bounds": bounds_on(signal.name, values[known], ys),
        "range": _range(min(ys), max(ys), unit),
        "first": int(steps["step"].iloc[0]),
        "last": int(steps["step"].iloc[len(values) - 1]),
    }


def bounds_on(name: str, values: Array, drawn: Sequence[float]) -> list[dict]:
    """The thresholds of a signal as heights on its column, near ones only."""
    bounds, scale = THRESHOLDS.get(name), SCALES.get(name)
    if bounds is None or scale is None:
        return []
    at = {
        "plain": lambda bound: bound,
        "start": lambda bound: bound * float(values[:FIRST].mean()),
        "since": lambda bound: bound + float(values[:TRIES_WINDOW].mean()),
        "below": lambda bound: float(values.max()) + bound,
        "lost": lambda bound: float(values.max()) * (1 - bound),
    }[scale]
    reach = REACH * (max(drawn) - min(drawn))
    heights = [(Level(k + 1), at(bound)) for k, bound in enumerate((bounds.watch, bounds.unhealthy, bounds.collapsed)) if bound is not None]
    return [{"y": y, "level": int(level), "text": f"{level.word} from {number(y, 2)}"} for level, y in heights if min(drawn) - reach <= y <= max(drawn) + reach]


def _stretches(levels_: Array, width: int) -> list[list[float]]:
    """Runs of equal level as [from, to, level], from 0 to 1; where there are more steps than CELLS, of the worst level in each of so many."""
    starts = np.linspace(0, len(levels_), min(len(levels_), CELLS), endpoint=False).astype("i8")
    worst = np.maximum.reduceat(levels_, starts)
    edges = np.flatnonzero(np.diff(worst, prepend=worst[:1] + 1))
    firsts, ends = starts[edges], np.append(starts[edges[1:]], len(levels_))
    return [
        [round(max(first - 0.5, 0) / width, 4), round(min(end - 0.5, width) / width, 4), level]
        for first, end, level in zip(firsts.tolist(), ends.tolist(), worst[edges].tolist(), strict=True)
    ]


def _range(low: float, high: float, unit: str) -> str:
    """`0 % to 58 %`, `0.011 to 0.13 nats/token`, `18 to 24 tokens`."""
    (least, word), (most, _) = levels.measured(low, unit, 2), levels.measured(high, unit, 2)
    return f"{least} to {most} {word}".strip()


def _reason(sentence: str) -> str:
    """The sentence without the words that the list's title has said."""
    for start in ("Not measured: ", "Not available: "):
        if sentence.startswith(start):
            rest = sentence.removeprefix(start)
            return rest[0].upper() + rest[1:]
    return sentence

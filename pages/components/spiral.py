"""The spiral chart: the likelihood of known and of correct answers over the run, its phases, and what reward and entropy did meanwhile."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from grpo_core.config import RunConfig
from grpo_core.diagnosis.phases import LEAST_POINTS, Phase, Phases
from pages.components import charts, series, url
from pages.components.cards import Card, Line, Panel, missing_columns, why_missing
from pages.components.charts import Options
from pages.components.data import Run
from pages.components.live_plot import live_plot
from pages.components.text import counted, escape, fixed, number

NUMERALS = {1: "I", 2: "II", 3: "III"}
TONES = {1: "gray", 2: "orange", 3: "red"}
LABELS = 22
"""Pixels above the chart for the names of the phases."""
WORTH_A_NAME = 0.22
"""A phase over a smaller share of the steps is labelled with its numeral alone."""
SMOOTHING = 0.6

SPIRAL = Card(
    key="spiral",
    title="Likelihood over the run",
    height=620,
    means="The probe set's known answers are always the same, so no change of what is sampled can hide a fall. Below, how much the updates changed the "
    "log-prob of each step's own rollouts, added up over the run; then reward and entropy. A healthy run's reward and likelihood rise together; "
    "in the spiral, likelihood falls first and reward follows.",
    panels=(
        Panel(
            title="Known answers of the probe set",
            unit="nats/token",
            share=1.4,
            lines=(Line(column="probe_logp", label="Probe set", colour="c3", sparse=True),),
        ),
        Panel(
            title="Paired change, added up over the steps",
            short="added up",
            unit="nats/token",
            share=1.4,
            lines=(
                Line(column="delta_correct_total", label="Correct", colour="c0", exact=True),
                Line(column="delta_wrong_total", label="Wrong", colour="c1", dash="dash", exact=True),
            ),
        ),
        Panel(title="Mean reward", unit="reward", lines=(Line(column="reward_mean", label="Reward", colour="c2"),)),
        Panel(title="Token entropy", unit="nats/token", zero=True, lines=(Line(column="entropy", label="Entropy", colour="c4"),)),
    ),
)
CHANGE = Card(
    key="change",
    title="What each step's updates did",
    height=560,
    means="Change of log-prob over a step's own updates, after minus before, on the very same rollouts. First the change of whole correct rollouts: "
    "median, and the range of the middle half and of 90 % of them. Then the share that lost. Last the mean per token, for correct and wrong rollouts and "
    "for those with an advantage of 0, which no gradient pushes by itself.",
    panels=(
        Panel(
            title="Change of a correct rollout, median, 25 to 75 % and 5 to 95 %",
            unit="nats/rollout",
            share=1.5,
            lines=(Line(column="delta_q50", label="Median", colour="c0", between=(("delta_q05", "delta_q95"), ("delta_q25", "delta_q75")), exact=True),),
        ),
        Panel(title="Correct rollouts that became less likely", unit="share", zero=True, lines=(Line(column="displaced_correct", label="Fell", colour="c1"),)),
        Panel(
            title="Mean change per token",
            short="per token",
            unit="nats/token",
            share=1.3,
            lines=(
                Line(column="delta_correct", label="Correct", colour="c0"),
                Line(column="delta_wrong", label="Wrong", colour="c1", dash="dash"),
                Line(column="delta_zero", label="A = 0", colour="c4", dash="dot"),
            ),
        ),
    ),
)


def with_changes(steps: pd.DataFrame) -> pd.DataFrame:
    """The steps table with the paired changes added up over the steps."""
    totals = {f"{name}_total": _added_up(series.column(steps, name)) for name in ("delta_correct", "delta_wrong")}
    return steps.assign(**totals)


def draw(card: Card, run: Run, figure: dict, steps: pd.DataFrame, *, reveal: str) -> None:
    """A card's title, its figure, and why parts of it are missing; a click on a point chooses its step."""
    key = f"plot.{card.key}"
    alt = f"{card.title} over {counted(len(steps), 'step')}"
    st.markdown(f"**{card.title}**", help=card.means)
    live_plot(
        charts.figure_json(figure),
        key=key,
        height=figure["layout"]["height"],
        alt=alt,
        link=f"{run.run_id} likelihood",
        reveal=reveal,
        on_step=lambda: _choose(key),
    )
    for reason in missing(card, steps, run.config):
        st.caption(escape(reason))


def spiral(steps: pd.DataFrame, phases: Phases, marked: int | None) -> dict:
    """The spiral chart with shaded phases, their names above, the interval of each boundary as a bar, and the fitted line."""
    card = charts.filled(SPIRAL, steps)
    card = replace(card, height=card.height - 130 * (len(SPIRAL.panels) - len(card.panels)))
    figure = charts.figure(card, steps, Options(smoothing=SMOOTHING, marked=marked))
    layout = figure["layout"]
    layout["height"] += LABELS
    layout["margin"]["t"] += LABELS
    span = max(float(steps["step"].iloc[-1] - steps["step"].iloc[0]), 1.0)
    for before, phase in zip([None, *phases.phases], phases.phases, strict=False):
        layout["shapes"] += _shades(phase, first=before is None)
        layout["annotations"].append(_name(phase, wide=(phase.last - phase.first) / span >= WORTH_A_NAME))
    axis = _axis_of(card, phases.column)
    if phases.phases and axis:
        figure["data"].append(_fitted(phases, axis))
    return figure


def change(steps: pd.DataFrame, marked: int | None) -> dict:
    """The figure of CHANGE."""
    card = charts.filled(CHANGE, steps)
    return charts.figure(replace(card, height=card.height - 150 * (len(CHANGE.panels) - len(card.panels))), steps, Options(smoothing=SMOOTHING, marked=marked))


def measured(card: Card, steps: pd.DataFrame) -> bool:
    """Whether any of the card's curves has a value."""
    return len(missing_columns(card, steps)) < len(card.columns)


def missing(card: Card, steps: pd.DataFrame, config: RunConfig) -> list[str]:
    """A sentence for every curve without a value: why, and how to get it."""
    return [
        f"{line.label} ({panel.title[0].lower()}{panel.title[1:]}) not available: {how_to_get(line.column, config)}."
        for panel in card.panels
        for line in panel.lines
        if np.isnan(series.column(steps, line.column)).all()
    ]


def how_to_get(column: str, config: RunConfig) -> str:
    """Why the run has no such figure, and the option that measures it."""
    if column == "probe_logp":
        if config.probe_every == 0:
            return "the probe set was never scored, because probe_every is 0; with 5 it is scored on every fifth step"
        if config.task == "dataset" and not config.gold_column:
            return "the dataset has no worked answers to score; name their column in gold_column"
        return "the probe set has not been scored yet, or the run was recorded by an older version"
    reason = why_missing(column.removesuffix("_total"), config)
    return f"{reason}; with rescore 1 every rollout is scored again after the updates" if config.rescore == 0 and column.startswith("d") else reason


def in_words(phases: Phases, config: RunConfig) -> list[str]:
    """Each phase as a Markdown line with the figures that place it; or why there are none, and how to get them."""
    if not phases.phases:
        return [escape(_no_phases(phases, config))]
    lines = [_phase_in_words(phase, phases, first=n == 0) for n, phase in enumerate(phases.phases)]
    return [*lines, f":gray[{escape(_source(phases))}]"]


def headline(phases: Phases) -> str:
    """The present phase in one sentence, unescaped."""
    now = phases.now
    if now is None:
        return (
            "The phases of the likelihood cannot be told yet."
            if phases.reason.startswith("not enough")
            else "The likelihood of correct answers was not measured."
        )
    if now.number == 1:
        return (
            "Correct answers are not losing likelihood."
            if now.slope >= 0
            else "Correct answers are not losing likelihood in a way that can be told from noise."
        )
    fall = next(phase for phase in phases.phases if phase.number > 1)
    since = "from the start" if fall is phases.phases[0] else f"since about step {fall.first}"
    return f"Phase {NUMERALS[now.number]}, {now.name}: correct answers have been losing likelihood {since}."


def _phase_in_words(phase: Phase, phases: Phases, *, first: bool) -> str:
    begun = f"from step {phase.first}" if first else f"from step {phase.first} (with 90 % confidence between {phase.from_low} and {phase.from_high})"
    slope = f"{number(phase.slope, 2, sign=True)} {phases.unit} per step"
    return f":{TONES[phase.number]}-badge[{NUMERALS[phase.number]}  {phase.name}] {escape(f'{begun} to step {phase.last}: {slope}')}"


def _source(phases: Phases) -> str:
    read = "the probe set's known answers" if phases.column == "probe_logp" else "the paired changes of correct rollouts, added up"
    lost = fixed(float(phases.fitted[-1] - phases.fitted.max()), 2, sign=True)
    intervals = "The bars on top of the chart are the intervals." if len(phases.phases) > 1 else "No bend parts it into phases."
    return f"Placed by a line with up to three bends (dashed) fitted to {read}; at its end {lost} {phases.unit} from its highest point. {intervals}"


def _no_phases(phases: Phases, config: RunConfig) -> str:
    if phases.reason.startswith("not enough"):
        every = f" The probe set is scored every {counted(config.probe_every, 'step')}." if config.probe_every else ""
        return f"Phases: {phases.reason}; a bend cannot be told from noise on fewer than {LEAST_POINTS}.{every}"
    return f"Phases: not measured. {how_to_get('probe_logp', config)[0].upper()}{how_to_get('probe_logp', config)[1:]}. {_also(config)}"


def _also(config: RunConfig) -> str:
    return (
        "Or set rescore above 0, which measures paired changes of correct rollouts."
        if config.rescore == 0
        else "Paired changes need correct rollouts, of which there are none yet."
    )


def _shades(phase: Phase, *, first: bool) -> list[dict]:
    colour = f"@{TONES[phase.number]}"
    area = {"type": "rect", "xref": "x", "yref": "paper", "layer": "below", "line": {"width": 0}, "y0": 0, "y1": 1}
    shapes = [area | {"x0": phase.first, "x1": phase.last, "fillcolor": f"{colour}/0.09"}]
    if not first:
        shapes.append(
            {
                "type": "line",
                "xref": "x",
                "yref": "paper",
                "x0": phase.first,
                "x1": phase.first,
                "y0": 0,
                "y1": 1,
                "line": {"width": 1.3, "dash": "dot", "color": colour},
            }
        )
        shapes.append(
            {"type": "line", "xref": "x", "yref": "paper", "x0": phase.from_low, "x1": phase.from_high, "y0": 1, "y1": 1, "line": {"width": 5, "color": colour}}
        )
    return shapes


def _name(phase: Phase, *, wide: bool) -> dict:
    return {
        "x": (phase.first + phase.last) / 2, "xref": "x", "y": 1, "yref": "paper", "yanchor": "bottom", "yshift": 24, "showarrow": False,
        "text": f"<b>{NUMERALS[phase.number]}</b> {phase.name}" if wide else f"<b>{NUMERALS[phase.number]}</b>",
        "font": {"size": 12, "color": f"@{TONES[phase.number]}"},
    }  # fmt: skip


def _axis_of(card: Card, column: str) -> str:
    """The y axis on which the phases were read; empty if it is not drawn."""
    name = "delta_correct_total" if column == "delta_correct" else column
    at = next((n for n, panel in enumerate(card.panels) if any(line.column == name for line in panel.lines)), None)
    return "" if at is None else "y" if at == 0 else f"y{at + 1}"


def _fitted(phases: Phases, axis: str) -> dict:
    return {
        "type": "scatter", "mode": "lines", "x": phases.at.astype("f8"), "y": phases.fitted.astype("f8"), "yaxis": axis, "showlegend": False, "name": "Fit",
        "hovertemplate": "%{y:.3~g}", "line": {"width": 1.6, "dash": "dash", "color": "@text/0.75"},
    }  # fmt: skip


def _added_up(values: np.ndarray) -> np.ndarray:
    """Running sum over the measured steps, NaN on the others."""
    return np.where(np.isnan(values), np.nan, np.nancumsum(values))


def _choose(key: str) -> None:
    url.put(step=int(st.session_state[key].step))

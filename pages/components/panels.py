"""The chart cards of a run page, each a title, a live plot, and a word on what is not available."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pandas as pd
import streamlit as st

from pages.components import charts, series, url
from pages.components.cards import CARDS, Card, missing_columns, why_missing
from pages.components.charts import AXES, Options
from pages.components.data import Run, root
from pages.components.live_plot import live_plot
from pages.components.text import counted, escape, fixed, listed

SMOOTHING = 0.6
SMOOTHING_HELP = "Weight of an exponential mean, debiased so that it starts at the first value, as in TensorBoard. Raw values stay visible behind."
AXES_HELP = "; ".join(f"{name}: {means}" for name, means in AXES.items())
GROUPS_SELECTOR = ".st-key-groups"


def toolbar(steps: pd.DataFrame, *, may_be_log: bool = True) -> Options:
    """The controls above the charts, kept in the address; returns what they say."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        smoothing = url.decimal("smooth", SMOOTHING, 0.0, 0.99)
        changed = url.sync("smooth", "run.smooth", smoothing, default=SMOOTHING)
        st.slider("Smoothing", 0.0, 0.99, step=0.01, key="run.smooth", on_change=changed, width=200, help=SMOOTHING_HELP)
        axis = url.choice("axis", AXES, "Step")
        changed = url.sync("axis", "run.axis", axis, default="Step")
        st.segmented_control("Horizontal axis", list(AXES), required=True, key="run.axis", on_change=changed, help=AXES_HELP)
        log = may_be_log and url.choice("log", ("1",), "") == "1"
        if may_be_log:
            url.show("run.log", log)
            st.toggle("Log scale", key="run.log", on_change=_put_log, help="For gradient norm and KL.")
    for note in notes(steps):
        st.caption(escape(note))
    return Options(smoothing=smoothing, axis=axis, log=log, marked=url.whole("step"))


def notes(steps: pd.DataFrame) -> list[str]:
    """What every chart of the run shares: steps that are missing, and how many steps one point stands for."""
    lost = int(series.column(steps, "missing_before").sum())
    resumed = int((steps["attempt"].diff() > 0).sum())
    told = []
    if lost:
        told.append(f"Grey: {counted(lost, 'step')} trained but not recorded, because the recorder had to keep up with training.")
    if resumed:
        told.append(f"Dotted lines: the run was resumed {counted(resumed, 'time')}.")
    return told


def grid(
    run: Run, steps: pd.DataFrame, options: Options, *, on_step, cards: Iterable[Card] = tuple(CARDS.values()), also: Iterable[Callable[[], None]] = ()
) -> None:
    """The cards and what `also` draws, two beside each other where there is room. A click on a point calls `on_step` with the plot's key."""
    with st.grid(2, min_column_width=430, gap="small"):
        for card in cards:
            with st.container(border=True, gap="xsmall", height="stretch"):
                _card(card, run, steps, options, on_step)
        for draw in also:
            with st.container(border=True, gap="xsmall", height="stretch"):
                draw()


def _card(card: Card, run: Run, steps: pd.DataFrame, options: Options, on_step) -> None:
    st.markdown(f"**{card.title}**", help=card.means)
    missing = missing_columns(card, steps)
    if len(missing) < len(card.columns):
        figure = _figure(root(), run.run_id, run.status.attempt, len(steps), int(steps["step"].iloc[-1]), card, options, steps)
        key, link = f"plot.{card.key}", f"{run.run_id} {options.axis}"
        live_plot(figure, key=key, height=card.height, alt=_alt(card, steps), link=link, reveal=GROUPS_SELECTOR, on_step=lambda: on_step(key))
    for why, labels in _reasons(card, missing, run).items():
        st.caption(f"{escape(listed(labels))} not available: {escape(why)}.")


@st.cache_data(show_spinner=False, max_entries=64)
def _figure(path, run_id: str, attempt: int, rows: int, last: int, card: Card, options: Options, _steps: pd.DataFrame) -> str:
    return charts.figure_json(charts.figure(card, _steps, options))


def _reasons(card: Card, missing: list[str], run: Run) -> dict[str, list[str]]:
    """Why columns are missing, each reason once: {reason: labels of the lines}."""
    reasons: dict[str, list[str]] = {}
    for panel in card.panels:
        for line in panel.lines:
            if line.column in missing:
                label = f"{line.label} ({panel.title[0].lower()}{panel.title[1:]})" if panel.short else line.label
                reasons.setdefault(why_missing(line.column, run.config), []).append(label)
    return reasons


def _alt(card: Card, steps: pd.DataFrame) -> str:
    values = [f"{line.label} {fixed(series.column(steps, line.column)[-1], 3)}" for panel in card.panels for line in panel.lines]
    return f"{card.title} over {counted(len(steps), 'step')}. Last: {', '.join(values)}."


def _put_log() -> None:
    url.put(log="1" if st.session_state["run.log"] else None)

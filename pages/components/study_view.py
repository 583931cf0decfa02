"""What the page Study shows: curves of the mean over seeds, where every seed ended, and the figures by method and by run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from grpo_core import study
from grpo_core.diagnosis.levels import Level
from grpo_core.methods import METHODS
from grpo_core.study import Outcome, by_method, spread
from pages.components import data, diagnosing, levels, nav, plots, states, url
from pages.components.data import Run
from pages.components.rank_table import Column, rank_table
from pages.components.series import column, ema
from pages.components.text import MINUS, counted
from storage.errors import StoreError

Array = np.ndarray
COLOURS, DASHES = ("c0", "c1", "c2", "c3", "c4"), ("solid", "dot", "dash", "dashdot", "longdash")
SMOOTHING = 0.8
KNOWN = "study.known"
WORST = (Level.COLLAPSED, Level.UNHEALTHY, Level.WATCH, Level.HEALTHY, Level.NOT_AVAILABLE)


@dataclass(frozen=True, slots=True)
class Measure:
    """What the curves may show: a column of the course, its unit, whether it is there on few steps only, and its definition."""

    column: str
    title: str
    unit: str
    sparse: bool
    means: str


MEASURES = {
    one.column: one
    for one in (
        Measure("eval_correct", "Held-out accuracy", "share correct", True, "share of held-out prompts answered correctly with greedy decoding"),
        Measure("reward_mean", "Reward", "reward", False, "mean total reward of the step's rollouts"),
        Measure("entropy", "Entropy", "nats/token", False, "mean entropy of the next-token distribution over the step's completion tokens"),
        Measure("logp_correct", "Correct log-prob", "nats/token", False, "mean log-prob, before the update, of the tokens of correct rollouts"),
        Measure("length_mean", "Length", "tokens", False, "mean completion length"),
    )
}
AXES = {"step": "Step", "elapsed_s": "Training time"}


def studies() -> dict[str, list[Run]]:
    """The runs of every tag that two or more share, by method and seed; studies of `compare` before other tags, the newest first."""
    found: dict[str, list[Run]] = {}
    for run in sorted(data.runs()[0], key=lambda run: (run.config.method, run.config.seed, run.run_id)):
        for tag in run.tags:
            found.setdefault(tag, []).append(run)
    shared = {tag: runs for tag, runs in found.items() if len(runs) > 1}
    begun = {tag: max(run.status.started_at or 0.0 for run in runs) for tag, runs in shared.items()}
    return dict(sorted(shared.items(), key=lambda item: (study.is_tag(item[0]), begun[item[0]]), reverse=True))


def outcomes(runs: Sequence[Run]) -> tuple[list[Outcome], dict[str, pd.DataFrame]]:
    """What became of each run so far, and its course by run id; a run that cannot be read has neither figures nor verdict."""
    reports, courses, found = diagnosing.reports(runs), {}, []
    for run in runs:
        try:
            courses[run.run_id] = data.course(run)
        except StoreError:  # the run's own pages say what is wrong with it
            courses[run.run_id] = pd.DataFrame()
        course = courses[run.run_id]
        figures = dict(reward=column(course, "reward_mean"), held_out=column(course, "eval_correct"))
        found.append(study.outcome(run.config, run.status, report=reports.get(run.run_id), **figures))
    return found, courses


def more_verdicts(tag: str, runs: Sequence[Run], found: Sequence[Outcome]) -> bool:
    """Whether this refresh of the page found verdicts that the one before had not, so that another may find the rest."""
    known = sum(one.verdict != Level.NOT_AVAILABLE.word for one in found)
    last = st.session_state.get(KNOWN)
    st.session_state[KNOWN] = (tag, known)
    return known > (last[1] if last and last[0] == tag else 0) and known < sum(run.status.step > 0 for run in runs)


def curves(runs: Sequence[Run], courses: dict[str, pd.DataFrame]) -> None:
    """One line per method, the mean over its seeds, with the range between the lowest and highest seed behind it."""
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        name = url.choice("measure", MEASURES, "eval_correct")
        changed = url.sync("measure", "study.measure", name, default="eval_correct")
        st.selectbox("Measure", list(MEASURES), key="study.measure", on_change=changed, format_func=lambda one: MEASURES[one].title, width=200)
        axis = url.choice("x", AXES, "step")
        changed = url.sync("x", "study.x", axis, default="step")
        st.segmented_control("Over", list(AXES), required=True, key="study.x", on_change=changed, format_func=AXES.get, label_visibility="collapsed")
    measure = MEASURES[name]
    smooth = "" if measure.sparse else f" Smoothed (EMA, weight {SMOOTHING})."
    st.markdown(
        f"**{measure.title}**",
        help=f"{measure.means[0].upper()}{measure.means[1:]}: mean over seeds, between the lowest and the highest seed.{smooth}",
    )
    lines = {method: _line([courses[run.run_id] for run in runs if run.config.method == method], measure, axis) for method in _methods(runs)}
    known = {method: line for method, line in lines.items() if len(line)}
    if not known:
        st.caption(f"No run has recorded its {measure.title.lower()} yet." if measure.sparse else "Appears with the first steps.")
        return
    figure = plots.bands({METHODS[m].title: (line, *_look(runs, m)) for m, line in known.items()}, _axis_title(axis), f"{measure.title}, {measure.unit}")
    plots.draw(figure, key="plot.study", alt=f"{measure.title} of each method over training.")


def _line(courses: Sequence[pd.DataFrame], measure: Measure, axis: str) -> pd.DataFrame:
    """Mean, lowest and highest over seeds by step: columns x, mean, low, high, seeds. On the time axis x is the mean time at that step."""
    parts = []
    for course in courses:
        values = column(course, measure.column)
        known = ~np.isnan(values)
        shown = values[known] if measure.sparse else ema(values, SMOOTHING)[known]
        parts.append(pd.DataFrame({"step": column(course, "step")[known], "x": column(course, axis)[known], "y": shown}))
    together = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["step", "x", "y"])
    line = together.groupby("step").agg(x=("x", "mean"), mean=("y", "mean"), low=("y", "min"), high=("y", "max"), seeds=("y", "size")).reset_index()
    line["x"] = line["x"] / 60 if axis == "elapsed_s" else line["x"]
    return line


def _axis_title(axis: str) -> str:
    return "Training time, min (mean over seeds)" if axis == "elapsed_s" else "Training step"


def ends(found: Sequence[Outcome]) -> None:
    """Where every seed of each method ended, highest mean first."""
    st.markdown("**Where each seed ended**", help="Held-out accuracy at the last evaluation, one point per run; the bar is the mean over seeds.")
    grouped = {name: [one.held_out_last for one in group if one.held_out_last is not None] for name, group in by_method(found).items()}
    known = dict(sorted(((name, values) for name, values in grouped.items() if values), key=lambda item: -float(np.mean(item[1]))))
    if not known:
        st.caption("Appears with the first evaluation on held-out prompts.")
        return
    titles = [METHODS[name].title for name in known]
    colours = [COLOURS[list(grouped).index(name) % len(COLOURS)] for name in known]
    figure = plots.points_by_name(titles, list(known.values()), colours, "Held-out accuracy, share correct")
    plots.draw(figure, key="plot.study.ends", alt="Held-out accuracy at the end, one point per run and method.")


def methods_table(found: Sequence[Outcome]) -> None:
    """One row per method: means with spread."""
    grouped = by_method(found)
    rows = pd.DataFrame({
        "method": [METHODS[name].title for name in grouped],
        "seeds": [len(group) for group in grouped.values()],
        "reward": [spread([one.reward for one in group]) for group in grouped.values()],
        "first": [spread([one.held_out_first for one in group]) for group in grouped.values()],
        "best": [spread([one.held_out_best for one in group]) for group in grouped.values()],
        "last": [spread([one.held_out_last for one in group]) for group in grouped.values()],
        "verdict": [_worst(group) for group in grouped.values()],
        "wall": [spread([one.wall_s for one in group], digits=0) for group in grouped.values()],
    })  # fmt: skip
    over = "mean ± standard deviation (n − 1) over its seeds"
    columns = [
        Column(name="method", title="Method", means="A click opens it on the page Methods.", kind="phrase"),
        Column(name="seeds", title="Seeds", means="Runs of the method in this study.", kind="whole"),
        Column(name="last", title="Held-out: end", means=f"Share of held-out prompts correct at the last evaluation, {over}.", kind="phrase"),
        Column(name="best", title="best", means=f"The same at its best evaluation, {over}.", kind="phrase", leaves=560),
        Column(name="first", title="start", means=f"The same at the first evaluation, {over}.", kind="phrase", leaves=560),
        Column(name="reward", title="Reward", means=f"Mean reward of a run's last {study.LAST} steps, {over}.", kind="phrase", leaves=440),
        Column(name="verdict", title="Verdicts", means="The worst verdict among its runs, and how many have it.", kind="chip"),
        Column(name="wall", title="Wall time, s", means=f"Seconds from start to end of a run, {over}.", kind="phrase", leaves=800),
    ]
    clicked = rank_table(rows, columns, key="study.methods", label="The study by method", ids=list(grouped), height=60 + 34 * len(grouped))
    if clicked:
        nav.goto(nav.METHODS_PAGE, method=clicked)


def _worst(group: Sequence[Outcome]) -> dict:
    said = Counter(one.verdict for one in group)
    worst = next(level for level in WORST if said[level.word])
    return levels.chip(worst, f"{said[worst.word]} of {len(group)} {worst.word}")


def runs_table(runs: Sequence[Run], found: Sequence[Outcome]) -> None:
    """One row per run; a click opens its diagnosis."""
    st.markdown(f"**{counted(len(runs), 'run')}**", help="A click opens a run's diagnosis.")
    rows = pd.DataFrame({
        "name": [run.name for run in runs],
        "method": [METHODS[run.config.method].title for run in runs],
        "seed": [run.config.seed for run in runs],
        "state": [states.chip(run.status) for run in runs],
        "verdict": [levels.chip(next(level for level in Level if level.word == one.verdict)) for one in found],
        "gain": [None if one.held_out_last is None else one.held_out_last - one.held_out_first for one in found],
        "last": [one.held_out_last for one in found],
        "steps": [one.steps for one in found],
    })  # fmt: skip
    columns = [
        Column(name="name", title="Run", means="Its name; a click opens its diagnosis.", kind="phrase"),
        Column(name="method", title="Method", means="What it was trained with.", kind="phrase", leaves=560),
        Column(name="seed", title="Seed", means="Seed of its prompts, sampling and data order.", kind="whole", leaves=560),
        Column(name="last", title="Held-out", means="Share of held-out prompts correct at the last evaluation.", kind="share"),
        Column(name="gain", title="Gain", means=f"Held-out accuracy at the last evaluation {MINUS} at the first.", kind="signed"),
        Column(name="verdict", title="Verdict", means="How bad the diagnosis finds it, as far as it was recorded.", kind="chip"),
        Column(name="state", title="State", means="Whether its process lives, and how it ended.", kind="chip", leaves=440),
        Column(name="steps", title="Steps", means="Steps finished.", kind="whole", leaves=560),
    ]
    hrefs = [url.link("diagnosis", run=run.run_id) for run in runs]
    clicked = rank_table(rows, columns, key="study.runs", label="The study's runs", ids=[run.run_id for run in runs], hrefs=hrefs, height=360)
    if clicked:
        nav.goto(nav.DIAGNOSIS, run=clicked)


def _methods(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(run.config.method for run in runs))


def _look(runs: Sequence[Run], method: str) -> tuple[str, str]:
    """Colour and dash of a method: five colours, then the same again dotted."""
    place = _methods(runs).index(method)
    return COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)]

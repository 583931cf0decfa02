"""Likelihood: whether correct answers lose likelihood, in which phase the run is, and which groups and tokens of a step lost most."""

import pandas as pd
import streamlit as st

from pages.components import data, diagnosing, empty, pick, spiral, step_groups, unreadable, url, verdict
from pages.components.frames import LIVE_S, part
from pages.components.heading import heading
from pages.components.spiral import CHANGE, SPIRAL
from pages.components.text import escape
from pages.components.worst import worst_groups, worst_tokens

STEP = ".st-key-likelihood-step"

run = pick.run()
heading(
    run, "Likelihood", "Lazy likelihood displacement (arXiv:2512.04220): updates that make correct answers less likely, until the policy no longer writes them."
)


@part(key="likelihood.body", every_s=LIVE_S if run.status.alive else None)
def body() -> None:
    now = data.run(run.run_id)
    if now.status.state != run.status.state:
        st.rerun()
    steps = data.steps(now)
    if steps.empty:
        empty.nothing("No step recorded yet", "The first point appears once the first step has been trained.")
        return
    report = diagnosing.report(now)
    known, marked = spiral.with_changes(steps), url.whole("step")
    st.markdown(f"### {escape(spiral.headline(report.phases))}")
    verdict.line(now, report)
    unreadable.show(now)
    with st.container(border=True, gap="xsmall"):
        spiral.draw(SPIRAL, now, spiral.spiral(known, report.phases, marked), steps=known, reveal=STEP)
        for line in spiral.in_words(report.phases, now.config):
            st.markdown(line)
    with st.container(border=True, gap="xsmall"):
        if spiral.measured(CHANGE, known):
            spiral.draw(CHANGE, now, spiral.change(known, marked), steps=known, reveal=STEP)
        else:
            st.markdown(f"**{CHANGE.title}**", help=CHANGE.means)
            st.markdown(escape(f"Not measured: {spiral.how_to_get('delta_correct', now.config)}."))
    one_step(now, steps)


def one_step(now: data.Run, steps: pd.DataFrame) -> None:
    step = step_groups.chosen_step(steps, telling=steps["delta_correct"].notna())
    with st.container(border=True, key="likelihood-step"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown(f"**Where step {step} lost likelihood**", help="Click a point of a chart, or choose a step.", width="content")
            step_groups.step_picker(steps, step)
        if step not in steps["step"].to_numpy():
            step_groups.nothing_of(now, step, steps)
            return
        with st.grid(2, min_column_width=420, gap="medium") as grid:
            with grid.cell():
                worst_groups(now, step)
            with grid.cell():
                worst_tokens(now, step)


body()

"""Diagnosis: how bad, why, since when, what would help; then every signal over the run, and each with its evidence."""

import streamlit as st

from pages.components import data, diagnosing, pick, timeline, unreadable, verdict
from pages.components.frames import LIVE_S, part
from pages.components.heading import heading
from pages.components.signal_cards import signal_cards

run = pick.run()

heading(run, "Diagnosis", "Whether the run collapses, why, since which step, and what would help: the same as `python -m grpo_core diagnose`.")


@part(key="diagnosis.body", every_s=LIVE_S if run.status.alive else None)
def body() -> None:
    now = data.run(run.run_id)
    if now.status.state != run.status.state:
        st.rerun()
    report, steps = diagnosing.report(now), diagnosing.steps(now)
    verdict.headline(now, report)
    unreadable.show(now)
    reasons, remedy = st.columns(2, gap="small")
    with reasons, st.container(border=True, height="stretch"):
        verdict.why(report)
    with remedy, st.container(border=True, height="stretch"):
        verdict.what_helps(now, report)
    with st.container(border=True, gap="xsmall"):
        timeline.timeline(now, report, steps)
    signal_cards(now, diagnosing.located(now, report), steps)


body()

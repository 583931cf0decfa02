"""Run: where it stands in a sentence, its key figures, its curves, and the groups of any step."""

import streamlit as st

from pages.components import actions, data, diagnosing, empty, panels, pick, states, step_groups, unreadable, url, verdict
from pages.components.frames import LIVE_S, part
from pages.components.nav import LAUNCH, goto
from pages.components.run_details import details, ending, facts
from pages.components.summary import run_sentences
from pages.components.text import ago, escape
from pages.components.tiles import tiles

run = pick.run()
actions.dialogs()

with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
    with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content", key="title"):
        st.subheader(escape(run.name), anchor=False, width="content")
        states.badge(run.status)
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", width="content"):
        if run.status.alive:
            st.segmented_control("Refresh", ["Live", "Paused"], default="Live", required=True, key="run.live", label_visibility="collapsed")
            st.button("Stop", icon=":material/stop_circle:", key="run.stop", on_click=actions.ask_to_stop, args=(run.run_id,), help="Asks for confirmation")
        elif run.status.state != "finished":
            st.button(
                "Resume", icon=":material/resume:", key="run.resume", on_click=actions.resume, args=(run.run_id,), help="Go on from the newest checkpoint"
            )
        st.button("Edit", icon=":material/edit:", key="run.edit", on_click=actions.ask_to_edit, args=(run.run_id,), help="Name, tags and note")
        if st.button("Clone", icon=":material/content_copy:", key="run.clone", help="Fill the launch form with this run's settings"):
            goto(LAUNCH, **{"from": run.run_id})

every_s = LIVE_S if run.status.alive and st.session_state.get("run.live", "Live") == "Live" else None
ending(run)


@part(key="run.overview", every_s=every_s)
def overview() -> None:
    now = data.run(run.run_id)
    if now.status.state != run.status.state and not actions.asking():
        st.rerun()
    steps = data.steps(now)
    first, *others = run_sentences(now.status, steps)
    st.markdown(f"**{escape(first)}** {escape(' '.join(others))}")
    st.caption(f"{facts(now)} · updated {ago(now.status.updated_at)}")
    if len(steps):
        verdict.line(now, diagnosing.report(now))
    unreadable.show(now)
    tiles(now.status, steps)


@part(key="run.body", every_s=every_s)
def curves_and_groups() -> None:
    """One part, not two: a click on a curve changes both, and a callback that reruns another part can break the connection."""
    steps = data.steps(data.run(run.run_id))
    if steps.empty:
        empty.nothing("No step recorded yet", "The first curve point appears once the first step has been trained.")
        return
    panels.grid(run, steps, panels.toolbar(steps), on_step=lambda plot: url.put(step=int(st.session_state[plot].step)))
    step = step_groups.chosen_step(steps)
    with st.container(border=True, key="groups"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown("**Groups of a step**", help="A group is the rollouts of one prompt. Click a point of any chart to come here.", width="content")
            step_groups.step_picker(steps, step)
        step_groups.groups_of_step(run, steps, step)


overview()
curves_and_groups()
details(run)

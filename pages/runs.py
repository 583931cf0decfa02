"""Runs: what is training, what has been trained, and how it went."""

import streamlit as st

from pages.components import actions, data, diagnosing, empty, states, url
from pages.components.frames import LIVE_S, part
from pages.components.nav import DIAGNOSIS, RUN, goto
from pages.components.run_table import matches, run_table
from pages.components.text import counted, escape

st.title("Runs", anchor=False)
if not data.run_ids():
    empty.no_runs()
    st.stop()
actions.dialogs()

with st.container(horizontal=True, vertical_alignment="bottom"):
    search = url.sync("q", "runs.search", st.query_params.get("q", ""), default="")
    st.text_input("Search", key="runs.search", type="search", live=True, on_change=search, placeholder="Name, method, model, tag or note", width=320)
    chosen = url.sync("state", "runs.state", url.words("state", states.STATES), default=[])
    st.pills("State", states.STATES, selection_mode="multi", key="runs.state", on_change=chosen)


@part(key="runs.table", every_s=LIVE_S)
def table() -> None:
    runs, unreadable = data.runs()
    wanted = [run for run in runs if matches(run, st.session_state["runs.search"])]
    wanted = [run for run in wanted if not st.session_state["runs.state"] or run.status.state in st.session_state["runs.state"]]
    if wanted:
        clicked = run_table([(run, data.reward_curve(run), data.size(run)) for run in wanted], diagnosing.reports(wanted), key="runs.rows")
    else:
        clicked = None
        st.info(f"None of the {counted(len(runs), 'run')} fits the filter.", icon=":material/filter_alt_off:")
    for run in unreadable:
        st.warning(f"{escape(run.run_id)}: {escape(run.why)}", icon=":material/warning:")
    if clicked:
        act_on(clicked["act"], clicked["run_id"])


def act_on(act: str, run_id: str) -> None:
    if act in ("open", "diagnose"):
        goto(RUN if act == "open" else DIAGNOSIS, run=run_id)
    (actions.ask_to_stop if act == "stop" else actions.ask_to_edit)(run_id)


table()

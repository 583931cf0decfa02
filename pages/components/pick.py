"""Which run a page is about: the one in the address, else the one last looked at, else the newest."""

from __future__ import annotations

import streamlit as st

from pages.components import data, empty
from pages.components.data import Run
from pages.components.text import escape

LAST = "last.run"


def run() -> Run:
    """The page's run; where there is none, says so and ends the page."""
    known = data.run_ids()
    if not known:
        empty.no_runs()
        st.stop()
    run_id = st.query_params.get("run") or st.session_state.get(LAST) or known[0]
    if run_id not in known and "run" in st.query_params:
        st.error(f"There is no run {escape(run_id)} in this store; the page Runs lists those there are.", icon=":material/search_off:")
        st.stop()
    run_id = run_id if run_id in known else known[0]
    st.session_state[LAST] = run_id
    if st.query_params.get("run") != run_id:
        st.query_params["run"] = run_id
    return data.run(run_id)

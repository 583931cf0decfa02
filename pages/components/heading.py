"""The head of a page about one run: what the page shows, of which run, and in what state that is."""

from __future__ import annotations

import streamlit as st

from pages.components import states
from pages.components.data import Run
from pages.components.nav import RUN
from pages.components.text import escape


def heading(run: Run, title: str, means: str) -> None:
    """Title with a definition under the pointer, a link back to the run, its state."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="title"):
        st.subheader(title, anchor=False, width="content", help=means)
        st.page_link(RUN, label=escape(run.name), icon=":material/monitoring:", query_params={"run": run.run_id}, help="Back to the run")
        states.badge(run.status)

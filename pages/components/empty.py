"""What a page says while it has nothing to show: what will appear, and how to make it appear."""

from __future__ import annotations

import streamlit as st

from pages.components import data
from pages.components.nav import LAUNCH, goto
from pages.components.text import escape
from storage.cached import shown_root


def no_runs() -> None:
    """No run is in the store yet."""
    with st.container(border=True, width=640):
        st.markdown("##### No runs yet")
        st.markdown(
            "Every run appears here as soon as it starts, with its state, progress and reward. "
            "Two ways to get one: run `make demo` in a terminal, which trains a healthy and a collapsing run on this machine, or fill in a form."
        )
        if st.button("Launch a run", type="primary", icon=":material/rocket_launch:", key="empty.launch"):
            goto(LAUNCH)
        st.caption(f"The store is {escape(shown_root(data.root()))}; GROUPSCOPE_STORE names another.")


def nothing(sentence: str, hint: str = "", command: str = "") -> None:
    """One sentence on what is missing, one on when it will be there, and the command that brings it."""
    with st.container(border=True):
        st.markdown(f"**{escape(sentence)}**")
        if hint:
            st.caption(escape(hint))
        if command:
            st.code(command, language="shell")

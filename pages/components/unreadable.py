"""What pages say of recorded steps that cannot be read: they are named, and everything else goes on without them."""

from __future__ import annotations

import streamlit as st

from pages.components import data
from pages.components.data import Run
from pages.components.text import counted, escape

NAMED = 3
"""So many files are named one by one."""


def show(run: Run) -> None:
    """Which steps the page goes without, and why, where there are any."""
    found = data.unreadable(run)
    for one in found[:NAMED]:
        which = f"step {one.first_step}" if one.first_step == one.last_step else f"steps {one.first_step} to {one.last_step}"
        st.warning(escape(f"Everything here goes without {which}: {one.why}."), icon=":material/broken_image:")
    if len(found) > NAMED:
        st.warning(escape(f"So it does without the steps of {counted(len(found) - NAMED, 'more file')}; `python -m grpo_core diagnose` names them all."))

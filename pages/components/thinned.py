"""What a page says where a retention policy has taken the tokens it would show."""

from __future__ import annotations

import time

import numpy as np
import streamlit as st

from pages.components import data
from pages.components.data import Run
from pages.components.step_groups import neighbours
from pages.components.text import counted, escape, listed


def group_note(run: Run, step: int, group: int) -> str:
    """Where the tokens of a group are gone: when, by which policy, and what is kept; else nothing."""
    if group not in data.thinned(run, step):
        return ""
    return _sentence(run, step, f"group {group} of step {step}", "its figures and texts are kept")


def step_note(run: Run, step: int, groups: int) -> str:
    """The same of a step with so many groups, of which some or all have no tokens any more."""
    gone = len(data.thinned(run, step))
    if not gone:
        return ""
    if gone >= groups:
        return _sentence(run, step, f"step {step}", "its figures and texts are kept")
    return _sentence(run, step, f"{gone} of {counted(groups, 'group')} of step {step}", "their figures and texts are kept")


def show(note: str) -> None:
    """The note in a line of its own, where there is one."""
    if note:
        st.info(escape(note), icon=":material/content_cut:")


def _sentence(run: Run, step: int, what: str, kept: str) -> str:
    last = next((one for one in reversed(data.thinnings(run)) if one.holds(step)), None)
    how = f"on {time.strftime('%Y-%m-%d', time.localtime(last.at))} by the policy '{last.policy}'" if last else "by a retention policy"
    return f"The tokens of {what} were thinned {how}; {kept}.{_nearest(run, step)}"


def _nearest(run: Run, step: int) -> str:
    """Where the nearest steps are that have lost nothing."""
    ranges = [bounds for one in data.thinnings(run) for bounds in one.steps]
    recorded = data.steps(run)["step"].to_numpy()
    whole = recorded[~np.logical_or.reduce([np.zeros(len(recorded), bool), *((first <= recorded) & (recorded <= last) for first, last in ranges)])]
    found = [str(near) for near in neighbours(step, whole) if near is not None]
    return f" The nearest {'step' if len(found) == 1 else 'steps'} with all tokens: {listed(found)}." if found and ranges else ""

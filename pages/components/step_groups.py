"""The groups of one step: which step, what came of its groups, and the groups themselves."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import streamlit as st

from pages.components import data, empty, url
from pages.components.data import Run
from pages.components.group_list import OUTCOMES, SHOWN, group_list
from pages.components.nav import GROUP, goto
from pages.components.summary import step_sentence
from pages.components.text import escape, listed


def chosen_step(steps: pd.DataFrame, telling: pd.Series | None = None) -> int:
    """The step in the address, else the newest of those `telling` marks, else the newest recorded one, which then moves on as the run does."""
    step = url.whole("step")
    if step is not None:
        return step
    return int((steps[telling] if telling is not None and telling.any() else steps)["step"].iloc[-1])


def neighbours(step: int, recorded: np.ndarray) -> tuple[int | None, int | None]:
    """The recorded steps before and after `step`; None at the ends."""
    before, after = recorded[recorded < step], recorded[recorded > step]
    return (int(before[-1]) if len(before) else None), (int(after[0]) if len(after) else None)


def step_picker(steps: pd.DataFrame, step: int) -> None:
    """Previous, number, next, newest; each writes the step into the address.

    While the newest step is followed it is the placeholder, not the value: any click tells the server every value the browser shows, and
    one that the server has just moved on from would count as typed and end the following.
    """
    recorded = steps["step"].to_numpy()
    before, after = neighbours(step, recorded)
    url.show("groups.step", url.whole("step"))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="xsmall", width="content"):
        st.button(
            "Step",
            icon=":material/chevron_left:",
            key="groups.before",
            disabled=before is None,
            on_click=_go,
            args=(before,),
            help="Previous recorded step",
        )
        st.number_input(
            "Step", value=None, min_value=0, step=1, key="groups.step", placeholder=str(step), on_change=_typed, width=104, label_visibility="collapsed"
        )
        st.button(
            "Step",
            icon=":material/chevron_right:",
            icon_position="right",
            key="groups.after",
            disabled=after is None,
            on_click=_go,
            args=(after,),
            help="Next recorded step",
        )
        following = url.whole("step") is None
        st.button("Newest", icon=":material/last_page:", key="groups.newest", disabled=following, on_click=_go, args=(None,), help="Follow the newest step")


def groups_of_step(run: Run, steps: pd.DataFrame, step: int) -> None:
    """The groups of the step, filtered by outcome. A click opens the group at once: to draw the page again first would take longer than to open it."""
    groups = data.groups(run, step) if step in steps["step"].to_numpy() else pd.DataFrame()
    if groups.empty:
        nothing_of(run, step, steps)
        return
    st.markdown(escape(step_sentence(step, groups)))
    present = [outcome for outcome in OUTCOMES if (groups["outcome"] == outcome).any()]
    wanted = url.words("outcome", OUTCOMES)
    if len(present) > 1 or wanted:
        counts = groups["outcome"].value_counts()
        changed = url.sync("outcome", "groups.outcome", [one for one in wanted if one in present], default=[])
        st.pills("Outcome", present, selection_mode="multi", key="groups.outcome", on_change=changed, label_visibility="collapsed",
                 format_func=lambda one: f"{OUTCOMES[one]['text']} {counts[one]}")  # fmt: skip
    shown = groups[groups["outcome"].isin(wanted)] if wanted else groups
    if len(shown) > SHOWN:
        st.caption(f"The first {SHOWN} of {len(shown)} groups.")
    group_list(
        shown,
        data.verdicts(run, step),
        key="groups.rows",
        label=f"Groups of step {step}",
        href=partial(_href, run.run_id, step),
        on_group=lambda group: goto(GROUP, run=run.run_id, step=step, group=group),
    )


def _href(run_id: str, step: int, group: int) -> str:
    return url.link("group", run=run_id, step=step, group=group)


def nothing_of(run: Run, step: int, steps: pd.DataFrame) -> None:
    """Why a step has no groups, and which ones near it do."""
    before, after = neighbours(step, steps["step"].to_numpy())
    near = listed([str(one) for one in (before, after) if one is not None])
    damaged = next((one for one in data.unreadable(run) if one.first_step <= step <= one.last_step), None)
    if damaged:
        empty.nothing(f"Step {step} cannot be read", f"{damaged.why}. The nearest steps that can: {near}.")
    elif after is None:
        empty.nothing(f"Step {step} is not recorded", f"The newest recorded step is {before}.")
    else:
        why = "It was trained but not recorded, because the recorder had to keep up with training."
        empty.nothing(f"Step {step} is not recorded", f"{why} The nearest recorded steps: {near}.")


def _go(step: int | None) -> None:
    url.put(step=step)


def _typed() -> None:
    _go(st.session_state["groups.step"])

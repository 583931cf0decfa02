"""Conflicts: which tokens right and wrong rollouts of a group share, which way they are pushed, and what GTPO would make of it."""

import streamlit as st

from pages.components import conflict_view, data, empty, panels, pick, step_groups, thinned, url
from pages.components.frames import part
from pages.components.group_view import about_prompt
from pages.components.heading import heading
from pages.components.nav import GROUP
from pages.components.text import escape

run = pick.run()
heading(run, "Conflicts", conflict_view.MEANS)


@part(key="conflicts.body", every_s=5.0 if run.status.alive else None)
def body() -> None:
    """One part: a click on a curve or a row changes everything below it."""
    steps = data.steps(data.run(run.run_id))
    if steps.empty:
        empty.nothing("No step recorded yet", "Conflicts appear with the first finished step.")
        return
    first, *others = conflict_view.sentences(run, steps)
    st.markdown(f"**{escape(first)}** {escape(' '.join(others))}")
    panels.grid(
        run,
        steps,
        panels.toolbar(steps, may_be_log=False),
        on_step=lambda plot: url.put(step=int(st.session_state[plot].step), group=None),
        cards=conflict_view.CARDS,
    )
    step = step_groups.chosen_step(steps, telling=steps["conflict_groups"] > 0)
    groups = data.groups(run, step)
    with st.container(border=True, key="groups"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown("**One step**", help="Click a point of any chart above to come here.", width="content")
            step_groups.step_picker(steps, step)
        if groups.empty:
            step_groups.nothing_of(run, step, steps)
            return
        contested = conflict_view.contested_groups(groups)
        group = chosen(contested)
        with st.grid(2, min_column_width=430, gap="medium"):
            with st.container(gap="xsmall"):
                conflict_view.tokens_table(run, step, len(groups))
            with st.container(gap="xsmall"):
                conflict_view.groups_table(run, step, contested, len(groups), group)
        conflict_view.positions(run, step)
    if group is not None:
        one_group(steps, groups, step, group)


def chosen(contested) -> int | None:
    """The group in the address, else the one pushed down most."""
    asked = url.whole("group")
    return asked if asked is not None or contested.empty else int(contested["group_index"].iloc[0])


def one_group(steps, groups, step: int, group: int) -> None:
    rows = groups[groups["group_index"] == group]
    if rows.empty:
        empty.nothing(f"Step {step} has no group {group}", f"Its groups are numbered 0 to {len(groups) - 1}.")
        return
    with st.container(border=True, key="one-group"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown(f"**Group {group} of step {step}**", width="content")
            address = {"run": run.run_id, "step": str(step), "group": str(group)}
            st.page_link(
                GROUP, label="Open the group", icon=":material/data_array:", query_params=address, help="Rewards, advantages and every trace of its tokens"
            )
        about_prompt(run, next(rows.itertuples()))
        if note := thinned.group_note(run, step, group):
            thinned.show(note)
            return
        rollouts = data.rollouts(run, step, group)
        conflict_view.strip(run, rollouts, steps, step, group)
        conflict_view.opposing(rollouts)


body()

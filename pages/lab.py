"""Lab: what any method would do with a recorded step, token by token, and what another reward or setting would change."""

import streamlit as st

from pages.components import data, empty, lab_controls, lab_view, pick, step_groups, thinned, url
from pages.components.frames import part
from pages.components.group_view import about_prompt, chosen_group, group_picker
from pages.components.heading import heading
from pages.components.text import escape, listed

PART_OF_A_STEP = "The methods weigh the other groups as if they were the whole step, so what depends on all of it is not as it was trained."

run = pick.run()
heading(run, "Lab", lab_view.MEANS)


@part(key="lab.body")
def body() -> None:
    """One part: whatever is chosen or typed changes everything."""
    steps = data.steps(run)
    if steps.empty:
        empty.nothing("No step recorded yet", "The laboratory works on recorded steps; the first appears when it is trained.")
        return
    step = step_groups.chosen_step(steps, telling=~(steps["groups_tied"] >= steps["groups"]))
    groups = data.groups(run, step)
    if groups.empty:
        step_groups.step_picker(steps, step)
        step_groups.nothing_of(run, step, steps)
        return
    gone = data.thinned(run, step)
    whole = groups[~groups["group_index"].isin(gone)]
    group = chosen_group(groups if whole.empty else whole)
    url.put(step=step, group=group)
    row = groups[groups["group_index"] == group]
    if row.empty:
        empty.nothing(f"Step {step} has no group {group}", f"Its groups are numbered 0 to {len(groups) - 1}.")
        return
    if group in gone:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            group_picker(group, len(groups))
            step_groups.step_picker(steps, step)
        there = f"Of this step it can weigh {listed([f'group {n}' for n in whole['group_index']])}." if len(whole) else "Choose another step."
        note = thinned.group_note(run, step, group) if len(whole) else thinned.step_note(run, step, len(groups))
        empty.nothing(note, f"The laboratory works on tokens. {there}")
        return
    batch = data.recorded_step(run, step)
    if gone:
        thinned.show(f"{thinned.step_note(run, step, len(groups))} {PART_OF_A_STEP}")
    asked = lab_controls.controls(run, batch)
    answer = st.container(gap="small")
    with st.container(border=True, key="one-group"):
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
            st.markdown(f"**Group {group} of step {step}**", width="content")
            with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
                group_picker(group, len(groups))
                step_groups.step_picker(steps, step)
        about_prompt(run, next(row.itertuples()))
        rollouts = data.rollouts(run, step, group)
        with st.grid(2, min_column_width=430, gap="medium"):
            with st.container(gap="xsmall"):
                st.markdown("**Rewards**", help=lab_controls.REWARDS)
                typed, wrong = lab_controls.edited(batch, run, asked, rollouts, step, group)
            beside = st.container(gap="xsmall")
        with st.spinner("Weighing the step"):
            weighed = lab_view.weigh(typed, asked, run)
        with beside:
            lab_view.advantages(typed, weighed, group)
        lab_view.strip(run, typed, weighed, rollouts, step, group)
    with answer:
        first, *others = lab_view.sentences(typed, weighed) or ["Choose a second method to compare."]
        st.markdown(f"**{escape(first)}** {escape(' '.join(others))}")
        if what_if := [*asked.changed, *lab_controls.changes(asked.shaped(batch), typed)]:
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                st.info(escape(f"What if: {listed(what_if)}."), icon=":material/edit_note:", width="stretch")
                st.button("As recorded", icon=":material/undo:", key="lab.undo", on_click=lab_controls.as_recorded, help="Take back everything typed.")
        if wrong := [*asked.wrong, *wrong]:
            st.warning(escape(lab_controls.left_out(wrong)), icon=":material/link_off:")
        lab_view.bars(weighed)
    with st.container(border=True, key="apart"):
        lab_view.disagreements(run, typed, weighed, step)
    st.caption(lab_view.EXACT)


body()

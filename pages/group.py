"""Group: the rollouts of one prompt, with rewards and advantages, as text coloured by token."""

import streamlit as st

from pages.components import data, empty, pick, states, step_groups, thinned, url
from pages.components.frames import part
from pages.components.group_list import OUTCOMES
from pages.components.group_view import about_prompt, chosen_group, group_picker, rollout_strip
from pages.components.nav import LAB, RUN
from pages.components.summary import group_sentence
from pages.components.text import escape

run = pick.run()
steps = data.steps(run)
if steps.empty:
    empty.nothing("No group recorded yet", "Groups appear with the first finished step.")
    st.stop()

step = step_groups.chosen_step(steps)
groups = data.groups(run, step)
if groups.empty:
    step_groups.step_picker(steps, step)
    step_groups.nothing_of(run, step, steps)
    st.stop()

group = chosen_group(groups)
url.put(step=step, group=group)
with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
    with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content", key="title"):
        st.subheader(f"Step {step} · group {group}", anchor=False, width="content")
        st.page_link(RUN, label=escape(run.name), icon=":material/monitoring:", query_params={"run": run.run_id, "step": str(step)}, help="Back to the run")
        states.badge(run.status)
        st.page_link(
            LAB, label="Lab", icon=":material/science:", query_params={"run": run.run_id, "step": str(step), "group": str(group)},
            help="What other methods would do with this step, token by token",
        )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
        group_picker(group, len(groups))
        step_groups.step_picker(steps, step)

if group not in groups["group_index"].to_numpy():
    empty.nothing(f"Step {step} has no group {group}", f"Its groups are numbered 0 to {len(groups) - 1}.")
    st.stop()

row = next(groups[groups["group_index"] == group].itertuples())
rollouts = data.rollouts(run, step, group)
st.markdown(f"{escape(OUTCOMES[row.outcome]['text']).capitalize()}\\: {escape(group_sentence(row, rollouts))}")
thinned.show(thinned.group_note(run, step, group))
about_prompt(run, row)


@part(key="group.rollouts")
def strip() -> None:
    rollout_strip(run, rollouts, steps, step, group)


strip()

"""Variance: which groups and prompts still carry signal, what a variance-aware sampler would draw, and one prompt's history."""

import streamlit as st

from pages.components import data, empty, panels, pick, prompts_view, unreadable, variance_view
from pages.components.frames import part
from pages.components.heading import heading
from pages.components.nav import RUN, goto
from pages.components.prompt_history import prompt_history
from pages.components.text import escape

run = pick.run()
heading(run, "Variance", variance_view.MEANS)


def open_step(plot: str) -> None:
    st.session_state["variance.step"] = int(st.session_state[plot].step)


@part(key="variance.body", every_s=10.0 if run.status.alive else None)
def body() -> None:
    """One part: a click on a prompt changes what stands below it. Groups are read anew, so a live run refreshes slowly."""
    now = data.run(run.run_id)
    steps = data.steps(now)
    if steps.empty:
        empty.nothing("No group recorded yet", "Outcomes appear with the first finished step.")
        return
    if (step := st.session_state.pop("variance.step", None)) is not None:
        goto(RUN, run=run.run_id, step=step)
    curves = variance_view.per_step(now, steps)
    first, *others = variance_view.sentences(now, curves)
    st.markdown(f"**{escape(first)}** {escape(' '.join(others))}")
    unreadable.show(now)
    last = int(steps["step"].iloc[-1])
    prompts = prompts_view.prompts(now, last)
    drawn = [lambda: prompts_view.prompt_map(now, prompts)]
    panels.grid(now, curves, panels.toolbar(steps, may_be_log=False), on_step=open_step, cards=variance_view.cards(now), also=drawn)
    with st.container(border=True, key="prompts"):
        st.markdown("**What a sampler would draw, and why**", help=variance_view.MEANS)
        st.markdown(escape(prompts_view.sampler_sentence(now, prompts)))
        chosen = prompts_view.prompt_table(now, prompts)
    one = prompts[prompts["prompt_hash"] == chosen]
    with st.container(border=True, key="one-prompt"):
        if one.empty:
            empty.nothing(f"This run has not seen the prompt {chosen}", "The table above lists those it has.")
        else:
            prompt_history(now, next(one.itertuples()), last)


body()

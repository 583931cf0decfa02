"""Study: methods trained under equal budgets over seeds, side by side: which ends highest, how surely, and what became of its runs."""

import streamlit as st

from grpo_core import study
from pages.components import data, empty, study_view, url
from pages.components.frames import LIVE_S, part
from pages.components.text import counted, escape, listed

st.title("Study", anchor=False, help="Runs that share a tag, compared by method: the mean over seeds, and how far seeds lie apart.")
if not data.run_ids():
    empty.no_runs()
    st.stop()

tagged = study_view.studies()
if not tagged:
    empty.nothing(
        "No study yet",
        "A study is two or more runs with the same tag: give runs of yours a common one on the page Runs, or train one with",
        command="python -m grpo_core compare --methods grpo,dapo --seeds 3",
    )
    st.stop()
asked = st.query_params.get("study", "")
if asked and asked not in tagged:
    st.error(f"No two runs of this store are tagged {escape(asked[:80])}; {escape(next(iter(tagged)))} is shown instead.", icon=":material/search_off:")
tag = url.choice("study", tagged, next(iter(tagged)))
st.selectbox("Study", list(tagged), key="study.tag", on_change=url.sync("study", "study.tag", tag), help="A tag that two or more runs share.", width=320)


@part(key="study.body", every_s=LIVE_S if any(run.status.alive for run in tagged[tag]) else None)
def body() -> None:
    runs = study_view.studies().get(tag, [])
    outcomes, courses = study_view.outcomes(runs)
    first, *others = study.findings(outcomes)
    st.markdown(f"**{escape(first)}** {escape(' '.join(others))}".replace(" ± ", "\u00a0±\u00a0"))
    alive = sum(run.status.alive for run in runs)
    if alive:
        st.caption(f"{counted(alive, 'run')} of {len(runs)} still at work; what is said of it may change.")
    if differ := study.unequal([run.config for run in runs]):
        st.warning(
            f"These runs differ in more than method and seed: {escape(listed(differ))}. So the method alone may not explain the difference.",
            icon=":material/balance:",
        )
    with st.grid(2, min_column_width=420, gap="small", border=True) as grid:
        with grid.cell():
            study_view.curves(runs, courses)
        with grid.cell():
            study_view.ends(outcomes)
    study_view.methods_table(outcomes)
    study_view.runs_table(runs, outcomes)
    if study_view.more_verdicts(tag, runs, outcomes):
        st.rerun()


body()

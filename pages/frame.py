"""What every page has: title, navigation, the live count. Streamlit's main script; app.py launches it."""

import streamlit as st

from pages.components import data
from pages.components.assets import ICON, LOGO, STYLE
from pages.components.frames import part, plainly
from pages.components.nav import CONFLICTS, DIAGNOSIS, GROUP, LAB, LAUNCH, LIKELIHOOD, METHODS_PAGE, RUN, RUNS, SQL, STUDY, VARIANCE
from pages.components.text import escape

st.set_page_config(page_title="Groupscope", page_icon=str(ICON), layout="wide", initial_sidebar_state=232)
st.html(STYLE)
st.logo(str(LOGO), size="large")
page = st.navigation(
    {
        "Monitor": [
            st.Page(RUNS, title="Runs", icon=":material/view_list:", help="All runs, live and over: state, progress, reward.", default=True),
            st.Page(RUN, title="Run", icon=":material/monitoring:", help="One run: its curves and the groups of each step."),
            st.Page(GROUP, title="Group", icon=":material/data_array:", help="The rollouts of one prompt, token by token."),
        ],
        "Diagnose": [
            st.Page(DIAGNOSIS, title="Diagnosis", icon=":material/stethoscope:", help="Whether a run collapses, why, since when, and what would help."),
            st.Page(
                LIKELIHOOD, title="Likelihood", icon=":material/trending_down:", help="Whether correct answers lose likelihood, in which groups and tokens."
            ),
            st.Page(CONFLICTS, title="Conflicts", icon=":material/call_split:", help="Tokens that rollouts of a group push both ways."),
            st.Page(VARIANCE, title="Variance", icon=":material/scatter_plot:", help="Which prompts still teach, and which a sampler would draw."),
        ],
        "Compare": [
            st.Page(STUDY, title="Study", icon=":material/compare:", help="Methods trained under equal budgets over seeds, side by side."),
            st.Page(LAB, title="Lab", icon=":material/science:", help="What other methods would do with a recorded step, token by token."),
            st.Page(METHODS_PAGE, title="Methods", icon=":material/function:", help="Every method: its equation, what it protects against, what it costs."),
        ],
        "Operate": [
            st.Page(LAUNCH, title="Launch", icon=":material/rocket_launch:", help="Start a run from a form."),
            st.Page(SQL, title="SQL", icon=":material/database_search:", help="Any question to what runs recorded, read-only."),
        ],
    }
)


@part(key="live", every_s=5.0)
def live_count() -> None:
    alive = data.alive_count()
    if trouble := data.store().trouble:
        st.caption(f":material/cloud_off: {escape(trouble)}")
    st.badge(f"{alive} live" if alive else "nothing running", icon=":material/fiber_manual_record:", color="green" if alive else "gray")


with st.sidebar:
    live_count()

with plainly():
    page.run()

"""Launch: a form made from the configuration; it shows the exact command, starts it, and moves to the run."""

import streamlit as st

from grpo_core.presets import PRESETS
from pages.components import data, launch_form, launching, url
from pages.components.nav import RUN, goto
from pages.components.text import escape

if run_id := launching.started():
    goto(RUN, run=run_id)

st.title("Launch a run", anchor=False)

copied = st.query_params.get("from", "")
if copied and copied not in data.run_ids():
    st.error(f"There is no run {escape(copied)} to copy from; the form has the defaults.", icon=":material/search_off:")
    copied = ""

preset = "" if copied else url.choice("preset", PRESETS, "")
change = st.query_params.get("change", "")
step = url.whole("step") if copied else None
source = f"run {copied}" if copied else f"preset {preset}" if preset else ""
start = data.run(copied).config.model_dump() if copied else PRESETS[preset].settings if preset else {}
if not launch_form.filled_from(source, change):
    launch_form.fill({**start, **launch_form.asked(change)}, source, change)
changes = launch_form.edits(start)
url.put(change=launch_form.spell(changes))


def start_from() -> None:
    url.put(preset=st.session_state["launch.preset"], change=None, step=None, **{"from": None})


with st.container(horizontal=True, vertical_alignment="center", gap="small"):
    st.session_state["launch.preset"] = preset or None
    st.pills("Start from", list(PRESETS), key="launch.preset", on_change=start_from, help="Named settings that show something; the form can then be changed.")
if copied:
    launching.origin(data.run(copied), changes, step)
elif preset:
    st.caption(escape(PRESETS[preset].means))

config, wrong = launch_form.check(launch_form.settings())
form, aside = st.columns([3, 2], gap="medium")
with form:
    launch_form.basics(wrong)
    launch_form.sections(wrong)
with aside, st.container(key="launch-aside"):
    launching.method_card(launch_form.method())
    launching.command_card(config, wrong, parent=data.run(copied) if step else None, step=step or 0)

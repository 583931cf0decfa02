"""The verdict on a run: how bad, why, since when, and what would help."""

from __future__ import annotations

import shlex

import streamlit as st

from grpo_core.diagnosis.causes import Cause
from grpo_core.diagnosis.levels import Level
from grpo_core.diagnosis.remedies import Remedy
from grpo_core.diagnosis.report import Report
from grpo_core.launch.fork import fork_command
from grpo_core.launch.start import command_line
from pages.components import launch_form, levels, nav, url
from pages.components.assets import script
from pages.components.data import Run
from pages.components.launch_form import change_in_words, options
from pages.components.text import counted, escape, percent

FIT_HELP = "How many of the signs that belong to this cause, and that this run measures, are off."
SHOWN_CAUSES = 3
_SCRIPTS = script("dom.js") + script("levels.js")
_mount_verdict = st.components.v2.component(
    "verdict", html='<div class="verdict"></div>\n', css=script("base.css") + script("verdict.css"), js=_SCRIPTS + script("verdict.js")
)
_mount_causes = st.components.v2.component(
    "causes", html='<ol class="causes"></ol>\n', css=script("base.css") + script("verdict.css"), js=_SCRIPTS + script("causes.js")
)


def headline(run: Run, report: Report) -> None:
    """One big sentence with its level, and where in the run it stands."""
    look = levels.LOOKS[report.level]
    clicked = _mount_verdict(
        key="diagnosis.verdict",
        data={"sentence": report.sentence, "tone": look.tone, "chip": levels.chip(report.level), "facts": _facts(run, report)},
        on_go_change=lambda: None,
    )
    nav.follow(clicked.go)


def why(report: Report) -> None:
    """The causes that fit, the likeliest first, and the signals that say so."""
    st.markdown("**Why**", help="Causes whose signature fits the signals, the likeliest first.")
    if report.causes:
        _mount_causes(key="diagnosis.causes", data={"causes": [_cause(cause, report) for cause in report.causes[:SHOWN_CAUSES]]})
    elif report.level == Level.WATCH:
        st.markdown("A sign or two are off, but they fit no known cause. The signals below say which.")
    elif report.level == Level.HEALTHY:
        st.markdown("Nothing to explain: no signal of those measured is off.")
    else:
        st.markdown("The first answers come after a few steps.")


def what_helps(run: Run, report: Report) -> None:
    """What to change where something is off, and tuning hints, which a run in trouble does not get."""
    st.markdown("**What would help**")
    if report.remedy is not None:
        _remedy(run, report.remedy)
    elif report.level >= Level.WATCH:
        st.markdown("No remedy is known for these signs alone. Look at the signals below, from the worst on.")
    elif not report.tips:
        st.markdown("Nothing to change." if report.level == Level.HEALTHY else "Nothing to advise yet.")
    if report.tips:
        st.markdown("\n".join(f"- {escape(tip)}" for tip in report.tips))


def _remedy(run: Run, remedy: Remedy) -> None:
    """The proposal, its changes beside what the run has, and the two ways to make them."""
    st.markdown(escape(remedy.sentence))
    if not remedy.changes:
        return
    with st.container(horizontal=True, gap="xsmall"):
        for name, new in remedy.changes.items():
            st.badge(escape(change_in_words(run.config, name, new)), color="blue", help=options()[name].means)
    if st.button("Open in the launch form", icon=":material/rocket_launch:", type="primary", key="diagnosis.launch",
                 help="The launch form with this run's settings and these changes, to look over before anything starts."):  # fmt: skip
        nav.goto(nav.LAUNCH, **{"from": run.run_id, "change": launch_form.spell(remedy.changes), "step": remedy.fork_from})
    config = launch_form.changed(run.config, remedy.changes)
    if config is not None:
        command = command_line(config) if remedy.fork_from is None else fork_command(run.run_id, remedy.fork_from, remedy.changes)
        st.caption("The same in a terminal")
        st.code(shlex.join(command), language=None, wrap_lines=True)


def line(run: Run, report: Report) -> None:
    """The verdict in one line, with the way to its page."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="verdict-line"):
        levels.badge(report.level)
        st.markdown(escape(report.sentence), width="content")
        st.page_link(nav.DIAGNOSIS, label="Diagnosis", icon=":material/stethoscope:", query_params={"run": run.run_id}, help="Why, since when, what would help")


def _facts(run: Run, report: Report) -> list[dict]:
    """Where the verdict stands: since when, last healthy step, what it rests on."""
    facts = []
    if report.since_step is not None:
        href = url.link("run", run=run.run_id, step=report.since_step)
        facts.append(
            {"text": f"since step {report.since_step}", "href": href, "help": "Where the signs of the likeliest cause began; opens that step's groups."}
        )
    if report.healthy_until is not None:
        href = url.link("run", run=run.run_id, step=report.healthy_until)
        facts.append({"text": f"healthy until step {report.healthy_until}", "href": href, "help": "The last step before the present trouble began."})
    known = sum(signal.level > Level.NOT_AVAILABLE for signal in report.signals)
    judged = "no step recorded yet" if report.step is None else f"judged at step {report.step}{_progress(report)}"
    basis = {
        "text": f"{judged}, from {known} of {counted(len(report.signals), 'signal')}",
        "help": "The other signals are not measured in this run, or have too few steps.",
    }
    return [*facts, basis]


def _progress(report: Report) -> str:
    return "" if report.planned_steps is None else f", {report.step + 1} of {report.planned_steps} done"


def _cause(cause: Cause, report: Report) -> dict:
    signals = [report.signal(name) for name in cause.signals]
    return {
        "title": cause.title,
        "chip": levels.chip(cause.level),
        "explains": cause.explains,
        "fit": f"{percent(cause.fit)} of its signs, since step {cause.since_step}",
        "help": FIT_HELP,
        "signals": [
            levels.chip(signal.level, f"{signal.title}{'' if signal.since_step is None else f' · step {signal.since_step}'}") | {"title": signal.sentence}
            for signal in signals
        ],
    }

"""What the page Methods shows of one method: head, equation, reasons, slots beside another's, and the runs that used it."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import streamlit as st

from grpo_core.diagnosis.history import History
from grpo_core.diagnosis.panel import examine
from grpo_core.diagnosis.report import Report
from grpo_core.equation_pieces import (
    BASES,
    DROPS,
    GROUP_OBJECTIVES,
    LEVELS,
    NORMALISERS,
    NORMS,
    PENALTIES,
    SAMPLERS,
    SCALES,
    SURROGATES,
    VALUES,
    WEIGHTS,
    WHOLES,
)
from grpo_core.equations import Slot, defined, differences, equations, slots
from grpo_core.errors import GroupscopeError
from grpo_core.method_row import HARMS, Method
from grpo_core.methods import METHODS, nearest_method
from grpo_core.presets import PRESETS
from grpo_core.rules import CREDITS, GROUP_REWARDS, PROMPT_SAMPLERS, Rule
from grpo_core.trained import of_method, outcome, setting
from pages.components import data, diagnosing, launch_form, levels, nav, pick, states, study_view
from pages.components.data import Run
from pages.components.rank_table import Column, rank_table
from pages.components.run_table import what
from pages.components.signal_cards import meaning
from pages.components.text import counted, escape, listed
from storage.errors import StoreError

MEASURED = (
    "What it is for beside what it shares with GRPO, whose clip most methods keep. Read off the equation, or the paper's claim where it says so; "
    "how a run of yours went is for its diagnosis to say."
)
MOVES = "Signals of the diagnosis on which its choices act, or by which their cost shows. Expected, not measured."
TRAINED = (
    "Short runs of the tiny model on the arithmetic task, or the one the command names, a seed each: held-out accuracy after the first and after the last "
    "step. Enough to see that it learns, not which method is best."
)
SYMBOLS = (
    "i is a rollout of group g, j any rollout, t a token of completion $o_i$; r is the reward, B the number of rollouts, "
    "$\\pi_{\\text{old}}$ the policy before the step's updates; sg has no gradient."
)
STUDIES = 3
"""So many studies of a method are linked."""
_PREFIX = "https://arxiv.org/abs/"


def no_such(name: str) -> str:
    """The sentence for a method that does not exist, with the nearest one."""
    near = nearest_method(name)
    shown = name if len(name) <= 40 else f"{name[:40]}…"
    return f"There is no method {shown}{f'; did you mean {near}?' if near else '.'}"


@cache
def uses() -> dict[str, str]:
    """Every registered choice that some method makes, by its name in the address, in words."""
    found = {key: label for method in METHODS.values() for key, label in _choices(method)}
    return dict(sorted(found.items(), key=lambda pair: pair[1]))


def _choices(method: Method) -> list[tuple[str, str]]:
    credit = (("value", VALUES), ("base", BASES), ("norm", NORMS), ("scale", SCALES), ("drop", DROPS))
    parts = [(choice, getattr(c, part)) for c in method.credit for part, choice in credit]
    parts += [(WHOLES, method.whole)] + ([(GROUP_OBJECTIVES, method.group.name)] if method.group else [])
    parts += [(SURROGATES, method.surrogate), (LEVELS, method.level), (NORMALISERS, method.normaliser), (SAMPLERS, method.sampler)]
    parts += [(WEIGHTS, weight.name) for weight in method.weights] + [(PENALTIES, penalty.name) for penalty in method.penalties if penalty.coef > 0]
    return [(f"{choice.title}:{name}".replace(" ", "_"), f"{choice.title}: {name}") for choice, name in parts]


def fitting(words: str, harm: str | None, choice: str | None) -> list[str]:
    """Names of the methods that every filter lets through."""
    return [
        name
        for name, method in METHODS.items()
        if (harm is None or harm in method.against)
        and (choice is None or choice in dict(_choices(method)))
        and all(word in _text(method) for word in words.lower().split())
    ]


def _text(method: Method) -> str:
    return " ".join([method.preset, method.title, method.paper, method.summary, method.protects, method.costs, method.note, *method.against]).lower()


def harms_help() -> str:
    """What each harm means, as a list."""
    return "\n".join(f"- **{harm}**: {means}" for harm, means in HARMS.items())


def head(method: Method) -> None:
    """Title, what it is in one sentence, its paper, and the way to the launch form."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="title"):
        st.subheader(method.title, anchor=False, width="content")
        st.markdown(f"`{method.preset}`", width="content", help=f"Its preset id: settings and `--method` take this, or `{method.name}` for short.")
        _paper(method.paper)
        _launch(method)
    st.markdown(f"**{escape(method.summary)}**")


def _launch(method: Method) -> None:
    """The launch form with this method: that of a preset made for it, else that of a run with its method changed."""
    preset = next((preset for preset in PRESETS.values() if preset.settings.get("method", "grpo") == method.name), None)
    run = _last_run()
    if preset is None and run is None:
        return
    whose = f"the preset {preset.name}" if preset else f"{escape(run.name)}, its method exchanged for this one"
    means = f"The launch form with the settings of {whose}."
    if st.button("Launch with this method", icon=":material/rocket_launch:", key="methods.launch", help=means):
        if preset:
            nav.goto(nav.LAUNCH, preset=preset.name)
        nav.goto(nav.LAUNCH, **{"from": run.run_id, "change": launch_form.spell({"method": method.name})})


def equation(method: Method) -> None:
    """Advantage and loss, and what their symbols stand for."""
    with st.container(gap="xxsmall"):
        st.markdown("**Equation**", help="Composed from the method's row: with its own bounds and weights, and what is off by default left out.")
        for one in equations(method):
            st.latex(one)
        if where := defined(method):
            st.caption("where")
            st.latex(rf"\small {where}")
        st.caption(SYMBOLS + (" A group tied in reward has A = 0." if method.ties_teach_nothing else ""))


def reasons(method: Method) -> None:
    """What it protects against, what that costs, the signals it moves, and where released code differs."""
    with st.container(gap="xsmall"):
        st.markdown("**Protects against**", help=MEASURED)
        _badges({harm: HARMS[harm] for harm in method.against}, "green", ":material/shield:")
        st.markdown(escape(method.protects))
    with st.container(gap="xsmall"):
        st.markdown("**Costs**", help=MEASURED)
        st.markdown(escape(method.costs))
    with st.container(gap="xsmall"):
        st.markdown("**Signals it moves**", help=MOVES)
        _signals(method)
        if not method.moves:
            st.markdown("None in particular.")
    if runs := of_method(method.name):
        with st.container(gap="xsmall"):
            st.markdown("**Trained here**", help=TRAINED)
            for command, found in runs.items():
                st.markdown(f"{escape(setting(command).capitalize())}. {escape(outcome(found))}", help=f"`{command}`")
    if method.note:
        with st.container(gap="xsmall"):
            st.markdown("**How it is done here**", help="Defaults, and where the paper, its authors' code and this one differ.")
            st.caption(method.note)


def _signals(method: Method) -> None:
    """Every signal it moves, as the way to what the run last looked at has of it; without a run as a word with its meaning."""
    run = _last_run()
    if run is None:
        _badges(dict(signals()[name] for name in method.moves), "blue", ":material/sensors:")
        return
    with st.container(horizontal=True, gap="xsmall"):
        for name in method.moves:
            title, means = signals()[name]
            help = f"{escape(means)} A click shows it in the diagnosis of {escape(run.name)}."
            if st.button(escape(title), icon=":material/sensors:", type="tertiary", key=f"methods.signal.{name}", help=help):
                nav.goto(nav.DIAGNOSIS, run=run.run_id, signal=name)


def _last_run() -> Run | None:
    """The run last looked at, else the newest; None in an empty store, or where it cannot be read, which the page Runs says."""
    known, last = data.run_ids(), st.session_state.get(pick.LAST)
    try:
        return data.run(last if last in known else known[0]) if known else None
    except (StoreError, GroupscopeError):
        return None


def _badges(means: dict[str, str], color: str, icon: str) -> None:
    with st.container(horizontal=True, gap="xsmall"):
        for name, definition in means.items():
            st.badge(escape(name), color=color, icon=icon, help=escape(definition))


@cache
def signals() -> dict[str, tuple[str, str]]:
    """Title and definition of every signal of the diagnosis, by name."""
    return {signal.name: (signal.title, meaning(signal)) for signal in examine(History(steps=np.zeros(0, "i8"), columns={}))}


def difference(method: Method, other: Method) -> None:
    """How two methods differ, in one sentence."""
    found = list(differences(method, other))
    if found:
        st.markdown(f"**{escape(method.title)} differs from {escape(other.title)} in {escape(listed(found))}.**", width="stretch")
    else:
        st.markdown(f"**{escape(method.title)} and {escape(other.title)} fill every slot alike.**", width="stretch")


def strip(method: Method, other: Method) -> None:
    """The six slots, and beside each that differs what the other method has there."""
    with st.grid(3, min_column_width=280, gap="small", border=True) as grid:
        for mine, theirs in zip(slots(method), slots(other), strict=True):
            with grid.cell(), st.container(gap="xsmall"):
                _slot(mine, theirs, other.title)


def _slot(mine: Slot, theirs: Slot, other: str) -> None:
    explained = "\n\n".join([escape(mine.means), *(escape(line) for line in mine.explains)])
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall"):
        st.markdown(f"**{mine.title.capitalize()}** :gray[{mine.symbol}]", help=explained, width="content")
        if mine.names != theirs.names:
            st.badge("differs", color="orange", icon=":material/compare_arrows:")
    st.markdown(_names(mine))
    if mine.idle:
        st.caption(f"Off by default: {escape(listed(list(mine.idle)))}")
    if mine.names != theirs.names:
        st.caption(f"{escape(other)}: {_names(theirs)}")


def _names(slot: Slot) -> str:
    return "; ".join(f"`{name}`" for name in slot.names) or "none"


def runs(method: Method) -> None:
    """The runs of this store that used the method, each with its verdict."""
    found = [run for run in data.runs()[0] if run.config.method == method.name]
    if not found:
        st.caption(f"No run of this store used {escape(method.title)} yet.")
        return
    reports = diagnosing.reports(found)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**{counted(len(found), 'run')} of this store used it**", width="content")
        _studies(method)
    rows = pd.DataFrame({
        "name": [run.name for run in found],
        "verdict": [_verdict(reports.get(run.run_id)) for run in found],
        "sentence": [report.sentence if (report := reports.get(run.run_id)) else "not diagnosed yet" for run in found],
        "state": [states.chip(run.status) for run in found],
        "steps": [run.status.step for run in found],
        "what": [what(run) for run in found],
    })  # fmt: skip
    columns = [
        Column(name="name", title="Run", means="Its name; a click opens its diagnosis.", kind="phrase"),
        Column(name="verdict", title="Verdict", means="How bad the diagnosis finds it, as far as it was recorded.", kind="chip"),
        Column(name="sentence", title="Why", means="What the diagnosis says first.", kind="phrase", leaves=560),
        Column(name="state", title="State", means="Whether its process lives, and how it ended.", kind="chip", leaves=800),
        Column(name="steps", title="Steps", means="Steps finished.", kind="whole", leaves=800),
        Column(name="what", title="Model and task", means="What was trained, on what.", kind="phrase", leaves=800),
    ]
    clicked = rank_table(rows, columns, key="methods.table", label=f"Runs that used {method.title}", ids=[run.run_id for run in found], height=320)
    if clicked:
        nav.goto(nav.DIAGNOSIS, run=clicked)


def _studies(method: Method) -> None:
    """The way to the newest studies that trained it beside others."""
    shared = [tag for tag, runs in study_view.studies().items() if any(run.config.method == method.name for run in runs)]
    for tag in shared[:STUDIES]:
        if st.button(escape(tag), icon=":material/difference:", type="tertiary", key=f"methods.study.{tag}", help="Runs of this tag, compared by method"):
            nav.goto(nav.STUDY, study=tag)


def _verdict(report: Report | None) -> dict:
    return levels.chip(levels.Level.NOT_AVAILABLE if report is None else report.level)


RULES = (
    ("Rewards that look at the whole group, for any method", ":material/groups:", GROUP_REWARDS, "group_reward"),
    ("Ways to draw prompts, for any method", ":material/casino:", PROMPT_SAMPLERS, "prompt_sampler"),
    ("Credit for tasks of several turns", ":material/account_tree:", CREDITS, ""),
)
"""The tables of rules beside the methods: title, icon, rules, and the option that takes their names."""


def rules() -> None:
    """Published rules that are no methods: each with its equation, its paper, and what it assumes or lacks."""
    for title, icon, table, option in RULES:
        with st.expander(f"{title} ({len(table)})", icon=icon):
            for rule in table.values():
                _rule(rule, option)


def _rule(rule: Rule, option: str) -> None:
    with st.container(gap="xxsmall"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"**{escape(rule.title)}**", width="content")
            st.markdown(f"`{rule.preset}`", width="content", help=_taken(rule, option))
            _paper(rule.paper)
        st.markdown(escape(rule.means))
        st.latex(rule.equation)
        st.caption(escape(rule.caveats))


def _paper(paper: str) -> None:
    st.link_button(paper, _PREFIX + paper.removeprefix("arXiv:"), icon=":material/article:", type="tertiary", help="The paper")


def _taken(rule: Rule, option: str) -> str:
    return "Its preset id." if rule.lacks else f"Its preset id: `{option}` takes this, or `{rule.name}` for short."

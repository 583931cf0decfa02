"""What a run takes on disk, and what a retention policy would free of it: the figures, what stays and why, and the way to do it."""

from __future__ import annotations

import shlex
import time

import pandas as pd
import streamlit as st

from grpo_core.launch.retain import retain_command
from pages.components import actions, data, empty, url
from pages.components.data import Run
from pages.components.guard import listens_on_loopback
from pages.components.rank_table import Column, rank_table
from pages.components.text import counted, escape, percent
from storage.retention import BEFORE, RECENT, Plan, Retention, size_text

SIZE = "Segments, run.duckdb and superseded steps. Checkpoints and the log are not counted."
LISTS = "Token ids and every trace of a token: log-probs, entropy, advantages, weights. Only these are ever thinned."
MEANS = (
    "A policy takes the token lists of old steps for good. Every figure, text and reward stays, and so do the tokens of groups that figures name as evidence, "
    "of steps near an alert, of the first step and of the newest steps."
)
POLICIES = {"every": "Every n-th step", "flagged": "Flagged groups", "budget": "Budget"}
MB = 1_000_000
COLUMNS = (
    Column(name="policy", title="Policy", kind="phrase", means="What keeps its tokens, apart from what always does."),
    Column(name="share", title="Frees", kind="share", decimals=0, means="Share of the bytes of token lists that would go, estimated from the files' footers."),
    Column(name="size", title="Size", kind="phrase", means="How many bytes that is."),
    Column(name="steps", title="Steps", kind="whole", means="Steps that would lose the tokens of some or all groups.", leaves=440),
    Column(name="groups", title="Groups", kind="whole", means="Groups that would lose their tokens.", leaves=440),
    Column(name="unmet", title="Budget", kind="phrase", means="Whether what always stays fits the budget.", leaves=560),
)
KEPT_COLUMNS = (
    Column(name="reason", title="Tokens stay", kind="phrase", means="The first reason that holds for a group."),
    Column(name="size", title="Size", kind="phrase", means="What their token lists take on disk, estimated."),
    Column(name="steps", title="Steps", kind="whole", means="Steps with such groups.", leaves=440),
    Column(name="groups", title="Groups", kind="whole", means="Groups that keep their tokens for this reason."),
)


def storage(run: Run) -> None:
    """The run's size, what was thinned before, and what each policy would free."""
    with st.spinner("Reading what the files say of their size"):
        outlook = data.outlook(run)
        total = data.size(run)
    asked = _asked(outlook(Retention()).token_bytes)
    plans = {name: outlook(retention) for name, retention in asked.items()}
    lists = plans["every"].token_bytes
    st.markdown(f"**{size_text(total)}** on disk, of which **{size_text(lists)}** are token lists.", help=f"{SIZE} Token lists: {LISTS[0].lower()}{LISTS[1:]}")
    _history(run)
    if plans["every"].groups.empty:
        empty.nothing("No step recorded yet", "What a policy would free is known once steps are recorded.")
        return
    st.markdown("**What a policy would free**", help=MEANS)
    chosen = _controls(asked)
    with st.grid(2, min_column_width=430, gap="medium") as grid:
        with grid.cell():
            _policies(plans, chosen)
        with grid.cell():
            _kept(plans[chosen])
    _act(run, plans[chosen])


def _asked(lists: int) -> dict[str, Retention]:
    """The three policies with the numbers in the address; the budget is half of what the lists take unless told."""
    recent = _whole("recent", RECENT)
    budget = _whole("budget", max(1, round(lists / 2 / MB)))
    return {
        "every": Retention(keep="every", every=max(2, _whole("every", 10)), recent=recent),
        "flagged": Retention(keep="flagged", recent=recent),
        "budget": Retention(keep="budget", budget_bytes=max(1, budget) * MB, recent=recent),
    }


def _whole(name: str, default: int) -> int:
    asked = url.whole(name)
    return default if asked is None else asked


def _controls(asked: dict[str, Retention]) -> str:
    """Which policy, and its numbers, each in the address; gives the policy."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        keep = url.choice("keep", POLICIES, "every")
        changed = url.sync("keep", "retain.keep", keep, default="every")
        st.segmented_control("Policy", list(POLICIES), required=True, key="retain.keep", on_change=changed, format_func=POLICIES.get)
        if keep == "every":
            changed = url.sync("every", "retain.every", asked["every"].every, default=10)
            st.number_input("n", min_value=2, step=1, key="retain.every", on_change=changed, width=110, help="Tokens of every n-th step stay.")
        if keep == "budget":
            changed = url.sync("budget", "retain.budget", asked["budget"].budget_bytes // MB)
            st.number_input("MB", min_value=1, step=1, key="retain.budget", on_change=changed, width=120, help="For all token lists; the oldest go first.")
        changed = url.sync("recent", "retain.recent", asked["every"].recent, default=RECENT)
        st.number_input("Newest steps", min_value=0, step=1, key="retain.recent", on_change=changed, width=120, help="They keep their tokens in any case.")
    return keep


def _policies(plans: dict[str, Plan], chosen: str) -> None:
    rows = pd.DataFrame(
        {
            "policy": plan.retention.sentence[:1].upper() + plan.retention.sentence[1:],
            "share": plan.freed_bytes / max(plan.token_bytes, 1),
            "size": size_text(plan.freed_bytes),
            "steps": len(plan.steps),
            "groups": len(plan.lost),
            "unmet": f"{size_text(plan.over_bytes)} over" if plan.over_bytes else "met" if name == "budget" else "",
        }
        for name, plan in plans.items()
    )
    rank_table(
        rows, COLUMNS, key="retain.policies", label="What each policy would free", ids=list(plans), chosen=chosen,
        on_row=lambda name: url.put(keep=None if name == "every" else name),
    )  # fmt: skip


def _kept(plan: Plan) -> None:
    rows = pd.DataFrame(
        [{"reason": one.reason, "size": size_text(one.bytes), "steps": one.steps, "groups": one.groups} for one in plan.kept() if one.reason != BEFORE],
        columns=[column.name for column in KEPT_COLUMNS],
    )
    rank_table(rows, KEPT_COLUMNS, key="retain.kept", label="Why tokens would stay", ids=rows["reason"].tolist())


def _act(run: Run, plan: Plan) -> None:
    """What the chosen policy comes to in a sentence, its command, and the button that asks."""
    sentence, way_out = _sentence(run, plan)
    st.markdown(escape(sentence))
    if plan.over_bytes:
        st.caption(escape(f"The budget cannot be met: what always stays is {size_text(plan.over_bytes)} above it."))
    if way_out:
        st.info(escape(way_out), icon=":material/lock:")
    st.code(shlex.join(retain_command(run.run_id, plan.retention)), language=None, wrap_lines=True)
    st.button(
        "Thin…", icon=":material/content_cut:", key="retain.go", disabled=bool(way_out) or plan.lost.empty, on_click=actions.ask_to_thin,
        args=(run.run_id, plan.retention), help="Asks for confirmation",
    )  # fmt: skip


def _sentence(run: Run, plan: Plan) -> tuple[str, str]:
    """What the policy would do, and why the app does not do it, or nothing."""
    if plan.lost.empty:
        return f"Keeping {plan.retention.sentence} would take nothing: every group of this run keeps its tokens for a reason above, or has lost them.", ""
    share = percent(plan.freed_bytes / max(plan.token_bytes, 1))
    sentence = (
        f"Keeping {plan.retention.sentence} would free about {size_text(plan.freed_bytes)}, {share} of the token lists: "
        f"{counted(len(plan.lost), 'group')} in {counted(len(plan.steps), 'step')} from {plan.steps[0]} to {plan.steps[-1]}."
    )
    if run.status.alive:
        return sentence, "Only its own process may take tokens of a run that lives: stop it first, or start runs with --retention, which thins as they train."
    if not listens_on_loopback():
        return sentence, "Thinning is off: this app can be reached from other machines. Type the command in a terminal."
    return sentence, ""


def _history(run: Run) -> None:
    """What was thinned before: by policy and whom, since when, how much."""
    done = data.thinnings(run)
    if not done:
        return
    by_policy: dict[tuple[str, str], list] = {}
    for one in done:
        by_policy.setdefault((one.policy, one.by), []).append(one)
    for (policy, by), parts in by_policy.items():
        day = time.strftime("%Y-%m-%d", time.localtime(parts[-1].at))
        freed, groups = sum(one.bytes_freed for one in parts), sum(one.groups for one in parts)
        st.caption(escape(f"Thinned up to step {max(one.steps[-1][1] for one in parts)} by the policy '{policy}', last on {day} by {by}: "
                          f"{counted(groups, 'group')} lost their tokens, {size_text(freed)} freed."))  # fmt: skip

"""One prompt over the run: its groups, and what the run remembers of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from grpo_core.measures.diversity import mean_pairwise_distance
from pages.components import data, plots, url
from pages.components.data import Run
from pages.components.group_list import OUTCOMES
from pages.components.nav import GROUP, goto
from pages.components.rank_table import Column, rank_table
from pages.components.text import counted, escape, fixed, number
from storage.queries import variance as variance_queries

HISTORY_COLUMNS = (
    Column(name="step", title="Step", kind="whole", means="Training step."),
    Column(name="chip", title="Outcome", kind="chip", means="Mixed: rewards differ. All wrong, all correct and tied: equal rewards, so no signal."),
    Column(name="pass_rate", title="Correct", kind="share", decimals=0, means="Share of the group's scored rollouts that are correct."),
    Column(name="reward_mean", title="Reward", means="Mean total reward of the group's scored rollouts."),
    Column(name="reward_std", title="Std", means="Standard deviation (n) of total reward inside the group.", leaves=560),
    Column(name="diversity", title="Diversity", means="1 − self-BLEU of the completions' tokens: 0 when all are the same."),
    Column(name="distinct_3", title="Distinct-3", means="Share of different 3-grams of tokens among all of the group's.", leaves=560),
    Column(
        name="sampler_score",
        title="Score when drawn",
        decimals=3,
        means="The prompt's VPS when the run's sampler drew it; not available unless it keeps scores.",
        leaves=800,
    ),
)
STATES: dict[str, tuple[str, str]] = {
    "p": ("Success rate p̂", "α/(α + β): how often the run believes that the policy solves the prompt; the next advantage is taken against it."),
    "kept": ("ρ kept", "Share of α and β that outlived the drift: 2^(−drift/0.06), between 0.875 and 0.96."),
    "vps": ("VPS", "Variance promotion score by which the run's sampler draws the prompt."),
    "alpha": ("α", "Remembered successes, the older the less they weigh."),
    "beta": ("β", "Remembered failures, the older the less they weigh."),
    "drift": ("Drift", "Mean absolute change of log-prob, in nats per token, of the prompt's previous completion since it was written."),
    "stored": ("Stored", "Successes kept for when the prompt's group is hopeless."),
    "newest_success": ("Newest", "Step of the newest stored success."),
    "trial_solved": ("Trial", "Rollouts of the task filter that solved the prompt before training."),
}
"""What a run may remember of a prompt, in the order shown: its title and what it means."""
SHARES = ("p", "kept", "vps")
COUNTS = ("alpha", "beta", "drift", "stored")
COLOURS = ("c0", "c1", "c2", "c3", "c4")


@st.cache_data(show_spinner=False, max_entries=64)
def _history(path, run_id: str, attempt: int, last: int, prompt_hash: str) -> pd.DataFrame:
    return variance_queries.prompt_groups(data.store(), run_id, prompt_hash)


def prompt_history(run: Run, prompt, last: int) -> None:
    """One prompt's groups over the run; a row opens its group."""
    groups = _history(data.root(), run.run_id, run.status.attempt, last, prompt.prompt_hash)
    st.markdown("**One prompt**", help="Click a prompt above to see it here; click one of its groups to open it.")
    asked, expected = st.columns([3, 1])
    asked.code(prompt.prompt, language=None, wrap_lines=True)
    expected.code(prompt.answer or "none", language=None, wrap_lines=True)
    st.markdown(escape(history_sentence(prompt, groups)))
    latest = groups.iloc[-1]
    distance = _distance(data.root(), run.run_id, run.status.attempt, data.taken(run), int(latest["step"]), int(latest["group_index"]), run)
    gone = int(latest["group_index"]) in data.thinned(run, int(latest["step"]))
    st.caption(
        f"Pairwise distance of its latest group: **{fixed(distance)}**"
        if not np.isnan(distance)
        else f"Pairwise distance of its latest group: not available, {'its tokens were thinned' if gone else 'it has fewer than two rollouts'}",
        help="Mean over pairs of rollouts of the squared edit distance in tokens divided by the longer length (MMR1's appendix): "
        "0 when all are the same, at most 1.",
    )
    if len(groups) > 1:
        rate = (groups["correct"] / groups["scored"].where(groups["scored"] > 0)).to_numpy("f8")
        curves = {"correct": (rate, "c0"), "diversity": (groups["diversity"].to_numpy("f8"), "c2")}
        plots.draw(
            plots.history(groups["step"].to_numpy(), curves), key="plot.variance.history", alt="Share correct and diversity of the prompt's groups over steps."
        )
    _remembered(run, prompt, last)
    rows = groups.assign(
        pass_rate=groups["correct"] / groups["scored"].where(groups["scored"] > 0),
        chip=[OUTCOMES.get(outcome, {"text": outcome, "tone": "gray", "icon": ""}) for outcome in groups["outcome"]],
    )[::-1]
    hrefs = [url.link("group", run=run.run_id, step=row.step, group=row.group_index) for row in rows.itertuples()]
    ids = [f"{row.step} {row.group_index}" for row in rows.itertuples()]
    clicked = rank_table(rows, HISTORY_COLUMNS, key="variance.groups", label="Groups of the prompt", ids=ids, hrefs=hrefs, height=320)
    if clicked:
        step, group = clicked.split()
        goto(GROUP, run=run.run_id, step=step, group=group)


@st.cache_data(show_spinner=False, max_entries=64)
def _states(path, run_id: str, attempt: int, last: int, prompt_hash: str) -> pd.DataFrame:
    return variance_queries.prompt_states(data.store(), run_id, prompt_hash)


def _remembered(run: Run, prompt, last: int) -> None:
    """What the run remembered of the prompt, step by step; nothing where it keeps no memory of prompts."""
    long = _states(data.root(), run.run_id, run.status.attempt, last, prompt.prompt_hash)
    if long.empty:
        return
    wide = long.pivot(index="step", columns="name", values="value")
    names = [*(name for name in STATES if name in wide), *(name for name in wide if name not in STATES)]
    latest = ", ".join(f"{STATES.get(name, (name, ''))[0]} {fixed(wide[name].iloc[-1], 3)}" for name in names if not np.isnan(wide[name].iloc[-1]))
    st.markdown("**What the run remembers of it**", help="After each step that had the prompt; checkpointed, so that a resumed run goes on with it.")
    st.markdown(escape(f"After step {int(wide.index[-1])}: {latest}."))
    if len(wide) > 1:
        for key, group, shares in (("shares", SHARES, True), ("counts", COUNTS, False)):
            curves = {STATES[name][0]: (wide[name].to_numpy("f8"), colour) for name, colour in zip(group, COLOURS, strict=False) if name in wide}
            if curves:
                alt = f"{', '.join(curves)} of the prompt over steps."
                plots.draw(plots.history(wide.index.to_numpy(), curves, shares=shares), key=f"plot.variance.state.{key}", alt=alt)
    columns_ = [Column(name=name, title=STATES.get(name, (name, ""))[0], decimals=3, means=STATES.get(name, ("", name))[1]) for name in names]
    table, label = wide.reset_index()[::-1], "What the run remembers of the prompt"
    rank_table(table, (HISTORY_COLUMNS[0], *columns_), key="variance.states", label=label, ids=table["step"].tolist(), height=260)


def history_sentence(prompt, groups: pd.DataFrame) -> str:
    """`Seen 3 times, last at step 42: 11 of 24 rollouts correct; VPS 0.21 (0.19 + 0.02), drawn 1.4 times as often as uniformly.`"""
    silent = int((groups["outcome"] != "mixed").sum())
    return (
        f"Seen {counted(len(groups), 'time')}, last at step {int(prompt.last_step)}: {int(prompt.correct)} of {counted(int(prompt.scored), 'rollout')} "
        f"correct; {silent} of {counted(len(groups), 'group')} without signal. VPS {fixed(prompt.vps, 3)} ({prompt.why}: disagreement + diversity), "
        f"so its chance is {number(100 * prompt.probability, 2)} % a draw, {number(prompt.lift, 2)} times the uniform one."
    )


@st.cache_data(show_spinner=False, max_entries=64)
def _distance(path, run_id: str, attempt: int, taken: int, step: int, group: int, _run: Run) -> float:
    return mean_pairwise_distance([ids for ids in data.rollouts(_run, step, group)["token_ids"] if ids is not None])

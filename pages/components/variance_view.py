"""Variance of outcomes in words and curves: which groups still carry signal, and whether picking prompts could help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from grpo_core.measures.variance import expected_tied, half_of, mean_pass_at_k
from pages.components import data, series
from pages.components.cards import Card, Line, Panel
from pages.components.data import Run
from pages.components.summary import WINDOW
from pages.components.text import counted, percent

MEANS = (
    "A group teaches only if its rewards differ: with equal rewards every advantage is 0. A prompt that is always failed starves, one that is always "
    "solved is mastered. The variance promotion score (VPS, MMR1, arXiv:2509.21268) says how much a prompt can still teach: a weighted sum of "
    "the outcome variance p(1 − p) and the diversity of its rollouts, 1 − self-BLEU."
)
OUTCOME_LINES = {
    "mixed": ("Mixed", "c2"),
    "all_fail": ("All wrong", "c1"),
    "all_pass": ("All correct", "c0"),
    "tied": ("Tied", "c4"),
    "failed": ("Not scored", "c3"),
}
FAR_APART = 2.0
"""Observed over expected share of all-right and all-wrong groups above which prompts are called far apart in difficulty."""


def cards(run: Run) -> tuple[Card, ...]:
    """The page's curves; their columns are those of `per_step`."""
    size = run.config.group_size
    return (
        Card(
            key="variance.outcomes",
            title="What came of the groups",
            height=300,
            means="Share of the step's groups. Mixed: rewards differ, the only groups with a signal. All wrong and all correct: equal rewards, every rollout "
            "wrong (starvation) or correct (mastery). Tied: equal rewards otherwise. Not scored: fewer than two rollouts could be scored.",
            panels=(
                Panel(
                    title="Share of groups, stacked", unit="share", stacked=True, bounds=(0, 1),
                    lines=tuple(Line(column=f"outcome_{name}", label=label, colour=colour) for name, (label, colour) in OUTCOME_LINES.items()),
                ),
            ),
        ),
        Card(
            key="variance.expected",
            title="All right or all wrong: observed and expected",
            height=300,
            means="Observed: share of groups whose rollouts are all correct or all wrong. Expected: p^G + (1 − p)^G with p the step's share of correct "
            "rollouts, what it would be if every prompt were equally hard. The further observed lies above expected, the further apart the prompts are in "
            "difficulty, and the more a sampler that picks prompts can gain.",
            panels=(
                Panel(
                    title="Share of scored groups", unit="share", zero=True,
                    lines=(
                        Line(column="uniform_observed", label="Observed", colour="c1"),
                        Line(column="uniform_expected", label="Expected", colour="c4", dash="dash"),
                    ),
                ),
            ),
        ),
        Card(
            key="variance.passk",
            title=f"pass@1 and pass@{size}",
            height=300,
            means=f"pass@k: probability that at least one of k rollouts of a prompt is correct (arXiv:2107.03374), from the step's groups. pass@1 rising while "
            f"pass@{size} falls means that the policy gets surer of what it can do already and loses the rest.",
            panels=(
                Panel(
                    title="Share of prompts", unit="share", zero=True,
                    lines=(
                        Line(column="pass_at_1", label="pass@1", colour="c0"),
                        Line(column="pass_at_half", label=f"pass@{half_of(size)}", colour="c4", dash="dot"),
                        Line(column="pass_at_size", label=f"pass@{size}", colour="c2"),
                    ),
                ),
            ),
        ),
    )  # fmt: skip


def per_step(run: Run, steps: pd.DataFrame) -> pd.DataFrame:
    """The steps table with what its groups came to: outcome_*, uniform_observed, uniform_expected, pass_at_1, pass_at_half, pass_at_size."""
    last = int(steps["step"].iloc[-1])
    came_to = _per_step(data.root(), run.run_id, run.status.attempt, last, run.config.group_size, data.outcome_counts(run))
    if run.config.group_size == 1:  # a group of one is all right or all wrong by construction
        came_to = came_to.assign(**{f"outcome_{name}": np.nan for name in OUTCOME_LINES})
    return steps.merge(came_to, on="step", how="left")


@st.cache_data(show_spinner=False, max_entries=16)
def _per_step(path: Path, run_id: str, attempt: int, last: int, size: int, _counts: pd.DataFrame) -> pd.DataFrame:
    return step_figures(_counts, size)


def step_figures(counts: pd.DataFrame, size: int) -> pd.DataFrame:
    """One row per step from the rows of queries.variance.outcome_counts."""
    step, groups = counts["step"], counts["groups"].to_numpy("f8")
    correct, scored = counts["correct"].to_numpy("f8"), counts["scored"].to_numpy("f8")
    total = counts["groups"].groupby(step).sum()
    figures = {f"outcome_{name}": (counts["groups"].where(counts["outcome"] == name, 0).groupby(step).sum() / total) for name in OUTCOME_LINES}
    judged = scored >= 2
    rate = (pd.Series(correct * groups).groupby(step).sum() / pd.Series(scored * groups).groupby(step).sum()).reindex(step).to_numpy()
    figures["uniform_observed"] = _mean((correct == 0) | (correct == scored), groups * judged, step)
    figures["uniform_expected"] = _mean(expected_tied(rate, scored), groups * judged, step)
    for name, k in (("1", 1), ("half", half_of(size)), ("size", size)):
        steps, chance = mean_pass_at_k(step, correct, scored, groups, k)
        figures[f"pass_at_{name}"] = pd.Series(chance, steps)
    return pd.DataFrame(figures).rename_axis("step").reset_index()


def _mean(values: np.ndarray, weights: np.ndarray, step: pd.Series) -> pd.Series:
    """Weighted mean per step, NaN where no row has weight."""
    sums = pd.DataFrame({"value": values * weights, "weight": weights}).groupby(step.to_numpy()).sum()
    return sums["value"] / sums["weight"].where(sums["weight"] > 0)


def sentences(run: Run, steps: pd.DataFrame) -> list[str]:
    """How many groups carry no signal lately and why, and how that compares with what the pass rate alone would give."""
    if run.config.group_size == 1:
        return [
            "Which groups carry a signal is not available: with one rollout per prompt nothing differs inside a group.",
            "Diversity and pass@k of several tries are not available either; what the run remembers of a prompt is shown with the prompt below.",
        ]
    recent = steps.tail(WINDOW)
    shares = {name: _average(recent, f"outcome_{name}") for name in OUTCOME_LINES}
    if np.isnan(shares["mixed"]):
        return ["The outcomes of these steps' groups are not available; their files may be damaged."]
    silent = shares["all_fail"] + shares["all_pass"] + shares["tied"]
    span = f"Over the last {counted(len(recent), 'step')}"
    said = [
        f"{span}, {percent(silent)} of the groups carried no signal: {percent(shares['all_fail'])} all wrong (starvation), "
        f"{percent(shares['all_pass'])} all correct (mastery), {percent(shares['tied'])} tied otherwise."
    ]
    observed, expected, rate = _average(recent, "uniform_observed"), _average(recent, "uniform_expected"), _average(recent, "pass_at_1")
    if not np.isnan(expected):
        apart = (
            "so the prompts are far apart in difficulty, and picking prompts could help"
            if observed > FAR_APART * expected
            else "close to what chance gives, so picking prompts could help little"
        )
        said.append(
            f"{percent(observed)} came out all right or all wrong; with {percent(rate)} of rollouts correct and every prompt equally hard, "
            f"{percent(expected)} of groups of "
            f"{run.config.group_size} would, {apart}."
        )
    return said


def _average(steps: pd.DataFrame, name: str) -> float:
    values = series.column(steps, name)
    return float(np.nanmean(values)) if not np.isnan(values).all() else np.nan

"""The run's prompts by what their groups came to: which still carry signal, and what a sampler would draw."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from grpo_core.measures.variance import draw_probability, outcome_variance, outcome_variance_unbiased, promotion_score
from pages.components import data, plots, url
from pages.components.data import Run
from pages.components.rank_table import SHOWN, Column, rank_table
from pages.components.text import UNKNOWN, counted, fixed, number, percent
from storage.queries import variance as variance_queries

DRAWS = {
    "tracked": "This run's method draws prompts by the success rates that it tracks.",
    "vas": "This run draws so.",
    "solvable": "This run draws uniformly among prompts that the start model solved at least once.",
    "uniform": "This run draws uniformly; prompt_sampler=vas would change that.",
}
"""How a run draws its prompts, by its method's data rule or else its prompt_sampler."""
LISTS = {
    "next": "Likely next",
    "silent": "No signal",
    "all": "All, newest first",
}
DIVERSITY_BINS = 12


@st.cache_data(show_spinner=False, max_entries=8)
def _prompts(path, run_id: str, attempt: int, last: int) -> pd.DataFrame:
    return variance_queries.prompt_scores(data.store(), run_id)


def prompts(run: Run, last: int) -> pd.DataFrame:
    """One row per prompt seen up to the step `last`, with the columns of queries.variance.prompt_scores and of `with_scores`."""
    config = run.config
    found = _prompts(data.root(), run.run_id, run.status.attempt, last)
    return with_scores(found, alpha=config.vas_alpha, beta=config.vas_beta, batch=config.prompts_per_step, weighted=config.vas_mixture)


def with_scores(found: pd.DataFrame, *, alpha: float, beta: float, batch: int, weighted: float) -> pd.DataFrame:
    """The prompts with pass_rate, variance, unbiased, vps, probability (per draw), lift (over a uniform draw), silent (no group had a signal) and why."""
    correct, scored = found["correct"].to_numpy("f8"), found["scored"].to_numpy("f8")
    variance, diversity = outcome_variance(correct, scored), found["diversity"].to_numpy("f8")
    vps = np.where(np.isnan(variance), np.nan, promotion_score(variance, diversity, alpha=alpha, beta=beta))
    probability = draw_probability(vps, batch=batch, weighted=weighted)
    with np.errstate(invalid="ignore"):
        rate = np.where(scored > 0, correct / np.maximum(scored, 1), np.nan)
    return found.assign(
        pass_rate=rate,
        variance=variance,
        unbiased=outcome_variance_unbiased(correct, scored),
        vps=vps,
        probability=probability,
        lift=probability * len(found),
        silent=(found["mixed"] == 0) & (found["failed"] < found["seen"]) & (found["scored"] > found["seen"]),
        why=[f"{fixed(alpha * v)} + {fixed(beta * d)}" for v, d in zip(variance, np.nan_to_num(diversity), strict=True)],
        signal=[_signal(row) for row in found.itertuples()],
    )


def _signal(row) -> dict:
    """What a prompt's groups say about it, as a chip."""
    if row.seen and row.scored == row.seen and not row.failed:
        return {"text": "one rollout each", "tone": "gray", "icon": "·"}
    if row.mixed:
        return {"text": "some signal" if row.mixed < row.seen else "signal", "tone": "green", "icon": "◐"}
    if row.all_fail and row.all_pass:
        return {"text": "both ways", "tone": "gray", "icon": "="}
    if row.all_fail:
        return {"text": "starved", "tone": "orange", "icon": "✗"}
    if row.all_pass:
        return {"text": "mastered", "tone": "blue", "icon": "✓"}
    return {"text": "tied", "tone": "gray", "icon": "="} if row.tied else {"text": "not scored", "tone": "red", "icon": "!"}


def columns(run: Run, found: pd.DataFrame) -> list[Column]:
    """The columns of the prompt table; what the run's own sampler recorded where it did."""
    config = run.config
    chosen = [
        Column(name="prompt", title="Prompt", kind="code", means="The prompt as the model saw it last."),
        Column(
            name="signal",
            title="Signal",
            kind="chip",
            means="Whether its groups' rewards differed: starved is all wrong every time, mastered all correct.",
            leaves=560,
        ),
        Column(name="seen", title="Seen", kind="whole", means="Groups of this prompt in the run."),
        Column(name="last_step", title="Last", kind="whole", means="Training step at which it was last sampled.", leaves=800),
        Column(name="pass_rate", title="Correct", kind="share", decimals=0, means="Share of its scored rollouts that were correct, over the whole run."),
        Column(name="variance", title="Variance", decimals=3, means="Outcome variance p(1 − p) of its rollouts, at most 0.25; biased down by few rollouts."),
        Column(name="unbiased", title="Unbiased", decimals=3, means="Outcome variance times n/(n − 1), without the bias of few rollouts.", leaves=800),
        Column(
            name="diversity", title="Diversity", means="Mean over its groups of 1 − self-BLEU of the completions' tokens: 0 when all are the same.", leaves=560
        ),
        Column(
            name="vps", title="VPS", decimals=3, means=f"Variance promotion score: {config.vas_alpha:g} × outcome variance + {config.vas_beta:g} × diversity."
        ),
        Column(
            name="why",
            title="Why",
            kind="phrase",
            means="The two parts of the score: from disagreement between rollouts, and from their diversity.",
            leaves=800,
        ),
        Column(name="lift", title="× uniform", means="How many times as often as a uniform sampler the next draw would take it."),
    ]
    if found["sampler_probability"].notna().any():
        chosen.append(Column(name="sampler_probability", title="Recorded", decimals=4, means="Probability with which the run's sampler last drew it by score."))
    return chosen


def sampler_sentence(run: Run, found: pd.DataFrame) -> str:
    """What a variance-aware sampler would do next with the prompts seen."""
    config, n = run.config, len(found)
    by_score = int(config.prompts_per_step * config.vas_mixture)
    score = np.sort(np.nan_to_num(found["vps"].to_numpy("f8")))[::-1]
    ours = DRAWS["tracked" if config.method_row.sampler == "tracked" else config.prompt_sampler]
    if not score.sum():
        return f"Every prompt seen has a score of 0, so variance-aware sampling would draw uniformly. {ours}"
    half = int(np.searchsorted(np.cumsum(score), score.sum() / 2)) + 1
    return (
        f"Variance-aware sampling would draw {by_score} of {config.prompts_per_step} prompts of a step in proportion to VPS and the rest uniformly. Among the "
        f"{counted(n, 'prompt')} seen so far, half of the scored draws would go to {counted(half, 'prompt')} ({percent(half / n)}); the likeliest comes "
        f"{number(float(found['lift'].max()), 2)} times as often as uniformly, the least likely {number(float(found['lift'].min()), 2)} times. {ours}"
    )


def listed_prompts(found: pd.DataFrame, which: str) -> pd.DataFrame:
    """The prompts of one list, in its order."""
    if which == "next":
        return found.sort_values(["probability", "last_step"], ascending=False, kind="stable")
    if which == "silent":
        return found[found["silent"]].sort_values(["seen", "last_step"], ascending=False, kind="stable")
    return found


def prompt_table(run: Run, found: pd.DataFrame) -> str | None:
    """The prompts to choose from, a click writes the address; returns the hash of the one there, else the first shown."""
    which = url.choice("list", LISTS, "next")
    changed = url.sync("list", "variance.list", which, default="next")
    silent = int(found["silent"].sum())
    names = {"silent": f"{LISTS['silent']} {silent}", "all": f"{LISTS['all']} {len(found)}"}
    st.segmented_control(
        "Prompts",
        list(LISTS),
        required=True,
        key="variance.list",
        on_change=changed,
        label_visibility="collapsed",
        format_func=lambda name: names.get(name, LISTS[name]),
    )
    if which == "silent":
        starved, mastered = (int((found["silent"] & (found[name] == found["seen"])).sum()) for name in ("all_fail", "all_pass"))
        st.caption(f"No group of these {counted(silent, 'prompt')} had rewards that differ: {starved} always all wrong, {mastered} always all correct.")
    rows = listed_prompts(found, which)
    if rows.empty:
        st.caption("None.")
        return st.query_params.get("prompt")
    chosen = st.query_params.get("prompt") or rows["prompt_hash"].iloc[0]
    ids = rows["prompt_hash"].tolist()
    hrefs = [url.link("variance", run=run.run_id, list=which, prompt=one) for one in ids[:SHOWN]]
    rank_table(rows, columns(run, found), key="variance.prompts", label="Prompts", ids=ids, hrefs=hrefs, chosen=chosen, on_row=lambda one: url.put(prompt=one))
    if len(rows) > SHOWN:
        st.caption(f"The first {SHOWN} of {len(rows)} prompts.")
    return chosen


def prompt_map(run: Run, found: pd.DataFrame) -> None:
    """Prompts binned by pass rate and diversity."""
    st.markdown(
        "**Prompts by pass rate and diversity**",
        help="Each bubble holds the prompts of one bin: its area their number, its colour their mean VPS. Prompts at the left are starved, "
        "at the right mastered; those in the middle teach most.",
    )
    known = found[found["diversity"].notna() & found["pass_rate"].notna()]
    if known.empty:
        st.caption(f"Diversity is {UNKNOWN}: these steps were recorded before Groupscope measured it.")
        return
    top = max(float(known["diversity"].max()), 0.05)
    bins = known.assign(x=(known["pass_rate"] * 8).round() / 8, y=((known["diversity"] / top * DIVERSITY_BINS).round() / DIVERSITY_BINS * top))
    grouped = bins.groupby(["x", "y"]).agg(n=("vps", "size"), vps=("vps", "mean")).reset_index()
    shown = [
        f"{counted(int(row.n), 'prompt')}<br>about {percent(row.x)} correct, diversity about {fixed(row.y)}<br>mean VPS {fixed(row.vps, 3)}"
        for row in grouped.itertuples()
    ]
    highest = 0.25 * run.config.vas_alpha + run.config.vas_beta * top
    figure = plots.bubbles(grouped["x"].to_numpy(), grouped["y"].to_numpy(), grouped["n"].to_numpy(), grouped["vps"].to_numpy(), shown, top=highest)
    plots.draw(figure, key="plot.variance.map", alt=f"{counted(len(known), 'prompt')} by pass rate and diversity.")

"""Variance of outcomes in words, curves and tables: which groups and prompts still carry signal, and what a sampler would draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from grpo_core.measures.diversity import mean_pairwise_distance
from grpo_core.measures.variance import draw_probability, expected_tied, half_of, mean_pass_at_k, outcome_variance, outcome_variance_unbiased, promotion_score
from pages.components import data, plots, series, url
from pages.components.cards import Card, Line, Panel
from pages.components.data import Run
from pages.components.group_list import OUTCOMES
from pages.components.nav import GROUP, goto
from pages.components.rank_table import SHOWN, Column, rank_table
from pages.components.summary import WINDOW
from pages.components.text import UNKNOWN, counted, escape, fixed, number, percent
from storage.queries import variance as variance_queries

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
    ours = DRAWS.get(config.method_row.sampler) or DRAWS[config.prompt_sampler]
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


@st.cache_data(show_spinner=False, max_entries=64)
def _history(path, run_id: str, attempt: int, last: int, prompt_hash: str) -> pd.DataFrame:
    return variance_queries.prompt_groups(data.store(), run_id, prompt_hash)


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


def prompt_history(run: Run, prompt, last: int) -> None:
    """One prompt's groups over the run; a row opens its group."""
    groups = _history(data.root(), run.run_id, run.status.attempt, last, prompt.prompt_hash)
    st.markdown("**One prompt**", help="Click a prompt above to see it here; click one of its groups to open it.")
    asked, expected = st.columns([3, 1])
    asked.code(prompt.prompt, language=None, wrap_lines=True)
    expected.code(prompt.answer or "none", language=None, wrap_lines=True)
    st.markdown(escape(history_sentence(prompt, groups)))
    latest = groups.iloc[-1]
    distance = _distance(data.root(), run.run_id, run.status.attempt, int(latest["step"]), int(latest["group_index"]), run)
    st.caption(
        f"Pairwise distance of its latest group: **{fixed(distance)}**"
        if not np.isnan(distance)
        else "Pairwise distance of its latest group: not available, it has fewer than two rollouts",
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
def _distance(path, run_id: str, attempt: int, step: int, group: int, _run: Run) -> float:
    return mean_pairwise_distance(list(data.rollouts(_run, step, group)["token_ids"]))


def _average(steps: pd.DataFrame, name: str) -> float:
    values = series.column(steps, name)
    return float(np.nanmean(values)) if not np.isnan(values).all() else np.nan

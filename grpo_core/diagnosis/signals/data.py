"""What the prompts give: groups without any signal, starved (all fail) and mastered (all pass) kept apart, and contradictions inside groups."""

from __future__ import annotations

import numpy as np

from grpo_core.diagnosis.history import History
from grpo_core.diagnosis.levels import Evidence, Level, Signal
from grpo_core.diagnosis.signals.reading import nothing, signal, worst
from grpo_core.diagnosis.trends import carried, trailing_mean
from grpo_core.measures.variance import expected_tied

WINDOW = 5
ALONE = "Not available: with one rollout per prompt, a group is all right or all wrong by construction."


def starvation(history: History) -> Signal:
    """Share of groups in which every rollout is wrong: prompts too hard for the policy, or a policy that has lost it."""
    share = history["groups_all_fail"] / history["groups"]
    name = dict(name="starvation", title="Groups that all fail", unit="share of groups", column="groups_all_fail")
    if np.isnan(share).all():
        return nothing(history, **name, why=ALONE if history.facts.group_size == 1 else "Not measured: nothing says which rollouts are correct.")
    smooth = trailing_mean(share, WINDOW, least=2)
    size, right = history.facts.group_size, float(carried(history["correct_rate"])[-1])
    by_chance = () if size is None else (Evidence(label="tied groups expected by chance", value=float(expected_tied(right, size)), unit="share of groups"),)
    return signal(
        history, **name, values=smooth, count=3,
        says={
            Level.HEALTHY: "Most groups hold at least one correct rollout.",
            Level.WATCH: "Half of the groups hold no correct rollout and teach nothing.",
            Level.UNHEALTHY: "Most groups hold no correct rollout: there is hardly anything to learn from.",
            Level.COLLAPSED: "Practically no group holds a correct rollout: training stands still.",
        },
        evidence=(worst(history, share, label="highest lately", unit="share of groups", lowest=False), *by_chance),
    )  # fmt: skip


def mastery(history: History) -> Signal:
    """Share of groups in which every rollout is right: the data is used up."""
    share = history["groups_all_pass"] / history["groups"]
    name = dict(name="mastery", title="Groups that all pass", unit="share of groups", column="groups_all_pass")
    if np.isnan(share).all():
        return nothing(history, **name, why=ALONE if history.facts.group_size == 1 else "Not measured: nothing says which rollouts are correct.")
    smooth = trailing_mean(share, WINDOW, least=2)
    return signal(
        history, **name, values=smooth,
        says={
            Level.HEALTHY: "There are prompts left to learn from.",
            Level.WATCH: "Nearly all groups are solved: these prompts have little left to teach.",
        },
        evidence=(worst(history, share, label="highest lately", unit="share of groups", lowest=False),),
    )  # fmt: skip


def conflicts(history: History) -> Signal:
    """Of the tokens that rollouts of both signs share, the share that the group as a whole pushes down (GTPO, arXiv:2508.03772)."""
    shared = history["conflict_run"] + history["conflict_mid"]
    name = dict(name="conflicts", title="Conflict tokens", unit="share of conflict tokens", column="conflict_run")
    if np.isnan(shared).all():
        return nothing(history, **name, why="Not measured: recorded by an older version.")
    down = np.where(shared > 0, history["conflict_pushed_down"] / np.maximum(shared, 1), np.nan)
    if np.isnan(down).all():
        return nothing(history, **name, why="Not available: no group had advantages of both signs.")
    smooth = trailing_mean(down, WINDOW, least=2)
    of_all = shared / np.maximum(history["conflict_tokens"], 1)
    return signal(
        history, **name, values=smooth, count=3,
        says={
            Level.HEALTHY: "Tokens that right and wrong rollouts share are on the whole not pushed down.",
            Level.WATCH: "Tokens that right and wrong rollouts share are mostly pushed down: right answers pay for wrong ones.",
        },
        evidence=(
            Evidence(label="shared tokens, last step", value=float(carried(of_all)[-1]), unit="share of pushed tokens"),
            worst(history, down, label="of them pushed down, most lately", unit="share", lowest=False),
        ),
    )  # fmt: skip

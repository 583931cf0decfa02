"""Does the recording contradict itself? Faults of the pipeline that look like learning problems, each a real bug somewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from grpo_core.diagnosis.history import History
from grpo_core.diagnosis.levels import Evidence, Level, Signal
from grpo_core.diagnosis.signals.reading import nothing
from grpo_core.method_row import Component
from grpo_core.methods import METHODS

Array = np.ndarray

TOLERANCE = 1e-3
"""Share by which a recorded advantage may differ from the one its reward gives: half precision keeps three digits."""
RESIDUE = 1e-6
"""Rewards that differ by less than this share of their size are equal but for rounding."""
NAME = dict(name="integrity", title="Recording", unit="rollouts", column="")


def integrity(history: History, rollouts: Mapping[str, Sequence[float]]) -> Signal:
    """Rollouts whose advantage is not what the method makes of their group's rewards, whose group has only rounding to tell it
    apart, or whose trace has another length than their text.

    `rollouts` has the columns of storage.queries.integrity.scored_rollouts.
    """
    step, group = np.asarray(rollouts["step"], "i8"), np.asarray(rollouts["group_index"], "i8")
    if not len(step):
        return nothing(history, **NAME, why="Not available: no group has entered a loss yet.")
    reward, advantage = np.asarray(rollouts["reward"], "f8"), np.asarray(rollouts["advantage"], "f8")
    group_of = np.unique(step * (group.max() + 1) + group, return_inverse=True)[1]
    length = np.asarray(rollouts["tokens"]) != np.asarray(rollouts["traced"])
    residue = from_residue(reward, advantage, group_of) & _compares(history.facts.method)
    wrong = wrong_advantages(reward, advantage, group_of, history.facts.method) & ~residue
    levels = np.full(len(history), int(Level.HEALTHY), "i1")
    levels[np.isin(history.steps, step[length | residue | wrong])] = int(Level.UNHEALTHY)
    return _signal(
        history,
        levels,
        step,
        group,
        {"of another length than their text": length, "told apart by rounding alone": residue, "with another advantage than their rewards give": wrong},
    )


def recomputed(reward: Array, group_of: Array, component: Component) -> Array:
    """Advantages from rewards (R,) by groups, as algorithms/credit.py defines them, written a second time on purpose."""
    out = np.zeros(len(reward))
    for g in range(int(group_of.max()) + 1):
        members = np.flatnonzero((group_of == g) & ~np.isnan(reward))
        r = reward[members]
        if len(r) < 2 or np.ptp(r) == 0:
            continue
        centred = r - r.mean() if component.base == "mean" else r - (r.sum() - r) / (len(r) - 1)
        scale = {"none": 1.0, "std": r.std(ddof=1) + 1e-6, "std_population": r.std() + 1e-6}[component.norm]
        out[members] = component.weight * centred / scale
    return out


def wrong_advantages(reward: Array, advantage: Array, group_of: Array, method: str | None) -> Array:
    """Which recorded advantages (R,) their rewards do not give; where the method is not one group-relative outcome, only which
    stand in the wrong order: a better reward with a smaller advantage in the same group."""
    row = METHODS.get(method or "")
    plain = (
        row is not None
        and len(row.credit) == 1
        and row.credit[0].value == "outcome"
        and row.credit[0].scale == "one"
        and row.credit[0].drop == row.whole == "none"
        and row.credit[0].base in ("mean", "leave_one_out")
        and row.credit[0].norm in ("none", "std", "std_population")
    )
    if plain:
        want = recomputed(reward, group_of, row.credit[0])
        return ~np.isnan(reward) & ~np.isclose(advantage, want, rtol=TOLERANCE, atol=TOLERANCE * max(float(np.abs(want).max()), 1e-9))
    if row is not None:
        return np.zeros(len(reward), "?")  # credit of several summands: nothing to hold a single reward against
    order = np.lexsort((advantage, reward, group_of))
    same, better = np.diff(group_of[order]) == 0, np.diff(reward[order]) > RESIDUE
    out = np.zeros(len(reward), "?")
    out[order[1:][same & better & (np.diff(advantage[order]) < 0)]] = True
    return out


def _compares(method: str | None) -> bool:
    """Whether a group whose rewards are all equal must have advantage 0: not where the method pushes by verdict or entropy as well, or compares batches."""
    row = METHODS.get(method or "")
    return row is None or row.ties_teach_nothing


def from_residue(reward: Array, advantage: Array, group_of: Array) -> Array:
    """Which rollouts (R,) are pushed although the rewards of their group differ by rounding alone (NeMo-RL issue 4161: an advantage of 7428)."""
    n = int(group_of.max()) + 1
    high, low = np.full(n, -np.inf), np.full(n, np.inf)
    known = ~np.isnan(reward)
    np.maximum.at(high, group_of[known], reward[known])
    np.minimum.at(low, group_of[known], reward[known])
    with np.errstate(invalid="ignore"):
        tied = (high - low) <= RESIDUE * np.maximum(1.0, np.abs(high))
    return tied[group_of] & (np.abs(advantage) > TOLERANCE)


def _signal(history: History, levels: Array, step: Array, group: Array, faults: Mapping[str, Array]) -> Signal:
    found = {what: where for what, where in faults.items() if where.any()}
    count = int(np.any(list(faults.values()), axis=0).sum())
    first = int(min(step[where].min() for where in found.values())) if found else None
    evidence = tuple(
        Evidence(label=f"rollouts {what}", value=float(where.sum()), unit="rollouts", step=int(step[where][0]), group=int(group[where][0]))
        for what, where in found.items()
    )
    return Signal(
        **NAME, level=Level.UNHEALTHY if found else Level.HEALTHY, value=float(count), since_step=first, levels=levels, evidence=evidence,
        sentence="The recording contradicts itself: what trained is not what the rewards say."
        if found
        else "Advantages, rewards and lengths of the newest steps agree.",
    )  # fmt: skip

"""From a series of values to a Signal: thresholds, persistence, and the words that go with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grpo_core.diagnosis.history import History
from grpo_core.diagnosis.levels import Evidence, Level, Signal, present_stretch
from grpo_core.diagnosis.thresholds import THRESHOLDS
from grpo_core.diagnosis.trends import carried, rolling

Array = np.ndarray

NO_STEP = "Not enough data yet: no step is recorded."
PERSIST = 2
"""Measured steps in a row a level must hold before it counts: one wild batch is no diagnosis."""


def persistent(levels: Array, values: Array, count: int = PERSIST) -> Array:
    """Each measured step's level lowered to the least of the last `count` measured ones, and carried over unmeasured steps."""
    known = np.flatnonzero(~np.isnan(values))
    least = rolling(levels[known].astype("f8"), count, np.min)
    least[: count - 1] = np.minimum(least[: count - 1], 0)
    out = np.full(len(levels), np.nan)
    out[known] = least
    filled = carried(out)
    return np.where(np.isnan(filled), -1, filled).astype("i1")


def signal(
    history: History,
    *,
    name: str,
    title: str,
    values: Array,
    unit: str,
    says: dict[Level, str],
    column: str,
    evidence: Sequence[Evidence] = (),
    levels: Array | None = None,
    count: int = PERSIST,
    missing: str = "Not enough data yet.",
) -> Signal:
    """The signal at the newest step: its levels are those of the values by the threshold of its name, held for `count` measurements.

    `levels` are given where more than that threshold decides; `says` has a sentence per level (levels without one take the next
    lower); `missing` says why there is no answer.
    """
    levels = persistent(THRESHOLDS[name].levels(values) if levels is None else levels, values, count)
    level = Level(int(levels[-1])) if len(levels) else Level.NOT_AVAILABLE
    value = carried(values)[-1] if len(values) else np.nan
    shown = None if level == Level.NOT_AVAILABLE or np.isnan(value) else float(value)
    sentence = missing if level == Level.NOT_AVAILABLE else next(says[Level(k)] for k in range(level, -1, -1) if Level(k) in says)
    return Signal(
        name=name,
        title=title,
        level=level,
        value=shown,
        unit=unit,
        since_step=present_stretch(history.steps, levels) if len(levels) else None,
        sentence=sentence,
        levels=levels,
        evidence=tuple(evidence) if level >= Level.WATCH else (),
        column=column,
    )


def nothing(history: History, *, name: str, title: str, unit: str, column: str, why: str) -> Signal:
    """The signal of something that was not or cannot be measured, and `why`; before the first step nobody knows yet whether it will be."""
    return Signal(
        name=name, title=title, level=Level.NOT_AVAILABLE, value=None, unit=unit, since_step=None, sentence=why if len(history) else NO_STEP,
        levels=np.full(len(history), -1, "i1"), column=column,
    )  # fmt: skip


def at_worst(history: History, values: Array, *, lowest: bool, within: int = 20) -> int | None:
    """The step of the most extreme value among the last `within` measured ones."""
    known = np.flatnonzero(~np.isnan(values))[-within:]
    if not len(known):
        return None
    pick = values[known].argmin() if lowest else values[known].argmax()
    return int(history.steps[known[pick]])


def worst(history: History, values: Array, *, label: str, unit: str, lowest: bool, within: int = 20) -> Evidence:
    """The most extreme of the last `within` measured values as evidence, with its step: where to look."""
    step = at_worst(history, values, lowest=lowest, within=within)
    value = float("nan") if step is None else float(values[np.searchsorted(history.steps, step)])
    return Evidence(label=label, value=value, unit=unit, step=step)

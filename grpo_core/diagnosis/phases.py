"""The three phases of likelihood displacement, placed by a change-point fit (phases: arXiv:2512.04220 §5; it publishes no rule to place them).

The likelihood of correct answers over the run is fitted by a continuous line with up to three bends (segmented regression,
Hudson 1966); the number of bends by BIC. A bend's interval holds 90 % of the profile likelihood over its place. Then
    I   early stagnation       until the first segment that falls
    II  steady decay           a falling segment
    III accelerated collapse   a falling segment at least twice as steep as the falling one before it, or one in which the reward falls too
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from grpo_core.diagnosis.history import History
from grpo_core.diagnosis.trends import slope_and_t

Array = np.ndarray

LEAST_POINTS = 8
"""Below this many measurements, bends cannot be told from noise (three per segment and the bends themselves)."""
MOST_POINTS = 60
"""Longer series are averaged in blocks first: the fit tries every pair of places."""
FALLING_T = -2.0
"""A segment falls if its slope is this many standard errors below zero."""
STEEPER = 2.0
COVERAGE = 0.9
NAMES = {1: "early stagnation", 2: "steady decay", 3: "accelerated collapse"}
LEAST_FALL = 0.05
"""Nats per token (or per answer, ×tokens) a falling segment must lose in all: less cannot be seen in any reward."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the run in one phase. `slope` is the mean one of the fitted likelihood, in its unit per step; `from_low` and
    `from_high` bound its beginning with 90 % confidence (equal to `first` where the run itself begins)."""

    number: int
    first: int
    last: int
    slope: float
    from_low: int
    from_high: int

    @property
    def name(self) -> str:
        return NAMES[self.number]


@dataclass(frozen=True, slots=True)
class Phases:
    """The phases in order, read off `column` in `unit`; empty with a `reason` where they cannot be told. `fitted` follows `at`."""

    phases: tuple[Phase, ...]
    column: str
    unit: str
    reason: str
    at: Array
    fitted: Array

    @property
    def now(self) -> Phase | None:
        return self.phases[-1] if self.phases else None


def displacement_phases(history: History) -> Phases:
    """From the probe set if it was scored often enough, else from the summed paired changes of correct rollouts."""
    column, unit, steps, curve = _curve(history)
    if len(curve) < LEAST_POINTS:
        reason = "not measured" if not len(curve) else f"not enough data: {len(curve)} of {LEAST_POINTS} measurements"
        return Phases((), column, unit, reason, steps, curve)
    at, y = _thinned(steps.astype("f8"), curve)
    bends = _best_bends(at, y)
    slopes, errors, fitted = _fit(at, y, bends)
    intervals = [_interval(at, y, bends, k) for k in range(len(bends))]
    return Phases(_numbered(history, at, bends, slopes, errors, fitted, intervals), column, unit, "", at, fitted)


def _curve(history: History) -> tuple[str, str, Array, Array]:
    probed = ~np.isnan(history["probe_logp"])
    if probed.sum() >= LEAST_POINTS:
        return "probe_logp", "nats/token", history.steps[probed], history["probe_logp"][probed]
    paired = ~np.isnan(history["delta_correct"])
    return "delta_correct", "nats/token", history.steps[paired], np.cumsum(history["delta_correct"][paired])


def _thinned(steps: Array, y: Array) -> tuple[Array, Array]:
    blocks = min(len(y), MOST_POINTS)
    parts = np.array_split(np.arange(len(y)), blocks)
    return np.array([steps[p].mean() for p in parts]), np.array([y[p].mean() for p in parts])


def _design(at: Array, bends: tuple[float, ...]) -> Array:
    """Columns 1, s, (s − b)+ for each bend b: continuous lines."""
    return np.stack([np.ones_like(at), at, *(np.maximum(at - b, 0.0) for b in bends)], axis=1)


def _rest(at: Array, y: Array, bends: tuple[float, ...]) -> float:
    design = _design(at, bends)
    coefficients, *_ = np.linalg.lstsq(design, y, rcond=None)
    return float(((y - design @ coefficients) ** 2).sum())


def _best_bends(at: Array, y: Array) -> tuple[float, ...]:
    """Places of the bends with the lowest BIC; at least two points lie between bends and before an end.

    One and two bends are tried everywhere; a third where it helps those two most, and then all three are moved in turn.
    """
    places = at[2:-2].tolist()
    found: list[tuple[float, ...]] = [()]
    for count in (1, 2):
        fitting = [p for p in combinations(places, count) if _apart(at, p)]
        found += [min(fitting, key=lambda p: _rest(at, y, p))] if fitting else []
    if len(found) == 3 and (third := _moved(at, y, places, found[2])):
        found.append(third)
    scale = max(float(np.var(y)) * 1e-6, 1e-12)  # a perfect fit must not win by an infinite margin
    return min(found, key=lambda p: len(at) * np.log(_rest(at, y, p) / len(at) + scale) + (2 + 2 * len(p)) * np.log(len(at)))


def _moved(at: Array, y: Array, places: list[float], two: tuple[float, ...]) -> tuple[float, ...] | None:
    """Two bends and a third, each moved to where it helps most given the others, once around; None where there is no room."""
    bends = two
    for drop in (None, 0, 1, 2):
        others = bends if drop is None else bends[:drop] + bends[drop + 1 :]
        fitting = [p for place in places if _apart(at, p := tuple(sorted((*others, place))))]
        if not fitting:
            return None
        bends = min(fitting, key=lambda p: _rest(at, y, p))
    return bends


def _apart(at: Array, bends: tuple[float, ...]) -> bool:
    return all(np.searchsorted(at, b) - np.searchsorted(at, a) >= 3 for a, b in zip(bends, bends[1:]))


def _fit(at: Array, y: Array, bends: tuple[float, ...]) -> tuple[Array, Array, Array]:
    """Slope of every segment, its standard error, and the fitted values."""
    design = _design(at, bends)
    coefficients, *_ = np.linalg.lstsq(design, y, rcond=None)
    fitted = design @ coefficients
    variance = ((y - fitted) ** 2).sum() / max(len(y) - design.shape[1], 1)
    covariance = variance * np.linalg.pinv(design.T @ design)
    sums = np.tril(np.ones((len(bends) + 1, len(bends) + 1)))  # a segment's slope is the sum of the changes so far
    errors = np.sqrt(np.maximum(np.diag(sums @ covariance[1:, 1:] @ sums.T), 0))
    return sums @ coefficients[1:], errors, fitted


def _interval(at: Array, y: Array, bends: tuple[float, ...], which: int) -> tuple[float, float]:
    """The places that hold 90 % of the profile likelihood of one bend, the others kept."""
    low = bends[which - 1] if which else at[0]
    high = bends[which + 1] if which + 1 < len(bends) else at[-1]
    places = at[(at > low) & (at < high)]
    rest = np.array([_rest(at, y, (*bends[:which], p, *bends[which + 1 :])) for p in places])
    weights = np.exp(-0.5 * len(at) * (np.log(rest + 1e-12) - np.log(rest.min() + 1e-12)))
    order = np.argsort(-weights)
    held = places[order[: int(np.searchsorted(np.cumsum(weights[order]) / weights.sum(), COVERAGE)) + 1]]
    return min(float(held.min()), bends[which]), max(float(held.max()), bends[which])


def _numbered(
    history: History, at: Array, bends: tuple[float, ...], slopes: Array, errors: Array, fitted: Array, intervals: list[tuple[float, float]]
) -> tuple[Phase, ...]:
    edges = [at[0], *bends, at[-1]]
    height = np.interp(edges, at, fitted)
    found: list[Phase] = []
    decay: float | None = None
    for k, slope in enumerate(slopes.tolist()):
        first, last = int(np.ceil(edges[k])), int(edges[k + 1])
        fell = height[k] - height[k + 1]
        falls = slope < FALLING_T * errors[k] and slope < 0 and fell >= LEAST_FALL
        if not falls:
            number = 1 if not found else found[-1].number
        elif (decay is not None and slope <= STEEPER * decay) or _reward_falls(history, first, last):
            number = 3
        else:
            number = max(2, found[-1].number if found else 0)
        decay = slope if falls else decay
        low, high = (first, first) if k == 0 else (int(intervals[k - 1][0]), int(np.ceil(intervals[k - 1][1])))
        if found and found[-1].number == number:
            before = found.pop()
            start = float(np.interp(before.first, at, fitted))
            found.append(Phase(number, before.first, last, float(height[k + 1] - start) / max(last - before.first, 1), before.from_low, before.from_high))
        else:
            found.append(Phase(number, first, last, slope, low, high))
    return tuple(found)


def _reward_falls(history: History, first: int, last: int) -> bool:
    """Whether the mean reward falls over these steps, by more than three standard errors."""
    inside = (history.steps >= first) & (history.steps <= last) & ~np.isnan(history["reward_mean"])
    if inside.sum() < LEAST_POINTS:
        return False
    return bool(slope_and_t(history.steps[inside], history["reward_mean"][inside])[1] < FALLING_T)

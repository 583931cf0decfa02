"""Arithmetic of the run charts: smoothing, gaps, down-sampling, shares. Plain arrays in, plain arrays out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

Array = np.ndarray


def column(steps: pd.DataFrame, name: str) -> Array:
    """A column of the steps table as float64 (N,), NaN where empty; all NaN if the table lacks it."""
    if name not in steps:
        return np.full(len(steps), np.nan)
    return pd.to_numeric(steps[name], errors="coerce").to_numpy("f8", na_value=np.nan)


def with_shares(steps: pd.DataFrame) -> pd.DataFrame:
    """The steps table with shares of the step's groups (all wrong, all correct, equal rewards otherwise, dropped, pushed both ways),
    of its pushed tokens (conflicts by kind), and of its conflict tokens (pushed down on balance)."""
    groups, pushed = column(steps, "groups"), column(steps, "conflict_tokens")
    conflicts = column(steps, "conflict_run") + column(steps, "conflict_mid")
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = {
            "share_all_fail": column(steps, "groups_all_fail") / groups,
            "share_all_pass": column(steps, "groups_all_pass") / groups,
            "share_dropped": 1 - column(steps, "groups_kept") / groups,
            "share_divided": column(steps, "conflict_groups") / groups,
            "share_conflict": conflicts / pushed,
            **{f"share_conflict_{kind}": column(steps, f"conflict_{kind}") / pushed for kind in ("head", "tail", "mid", "shared")},
            "share_pushed_down": column(steps, "conflict_pushed_down") / conflicts,
        }
    shares["share_other_tied"] = np.clip(column(steps, "groups_tied") / groups - shares["share_all_fail"] - shares["share_all_pass"], 0, None)
    return steps.assign(**shares)


def ema(values: Array, weight: float) -> Array:
    """Debiased exponential mean: mₜ = w·mₜ₋₁ + (1-w)·xₜ, divided by 1-wᵗ, so that the first point is x₁.

    `weight` in [0, 1); 0 returns the values. Missing values (NaN) stay missing and leave the mean as it was.
    """
    if weight <= 0 or not len(values):
        return values.astype("f8")
    smooth = pd.Series(values, dtype="f8").ewm(alpha=1 - weight, adjust=True, ignore_na=True).mean().to_numpy()
    return np.where(np.isnan(values), np.nan, smooth)


@dataclass(frozen=True, slots=True)
class Buckets:
    """How the rows of a series are drawn: as themselves, or in buckets of `width` rows.

    `starts` and `ends` (M,) bound each bucket, end exclusive; `breaks` (K,) are the buckets that begin after unrecorded steps.
    """

    starts: Array
    ends: Array
    breaks: Array
    width: int

    @property
    def thinned(self) -> bool:
        return self.width > 1

    def last(self, values: Array) -> Array:
        """The value at each bucket's last row (M,)."""
        return values[self.ends - 1]

    def last_known(self, values: Array) -> Array:
        """The last value in each bucket that is not missing (M,), NaN where it has none."""
        newest = np.maximum.accumulate(np.where(np.isnan(values), -1, np.arange(len(values)))) if len(values) else np.empty(0, int)
        at = newest[self.ends - 1]
        return np.where(at >= self.starts, values[at], np.nan)

    def lowest(self, values: Array) -> Array:
        """The smallest value in each bucket (M,), NaN where it has none."""
        return _reduce(np.fmin, values, self.starts)

    def highest(self, values: Array) -> Array:
        """The largest value in each bucket (M,), NaN where it has none."""
        return _reduce(np.fmax, values, self.starts)

    def with_gaps(self, values: Array, fill: float = np.nan) -> Array:
        """`values` (M,) with `fill` put in before every break, so that a line is interrupted there: (M + K,)."""
        return np.insert(values.astype("f8"), self.breaks, fill)

    @property
    def gap_places(self) -> Array:
        """Where `with_gaps` and `x_with_gaps` put the points that interrupt (K,)."""
        return self.breaks + np.arange(len(self.breaks))

    def x_with_gaps(self, x: Array) -> Array:
        """`x` (M,) with a point half-way across every break: (M + K,)."""
        middle = (x[self.breaks - 1] + x[self.breaks]) / 2 if len(self.breaks) else np.empty(0)
        return np.insert(x.astype("f8"), self.breaks, middle)


def buckets(missing_before: Array, points: int) -> Buckets:
    """At most about `points` buckets over the rows (N,), never one across unrecorded steps (missing_before > 0)."""
    rows = len(missing_before)
    width = max(-(-rows // points), 1) if rows else 1
    gaps = np.flatnonzero(np.nan_to_num(missing_before) > 0)
    gaps = gaps[gaps > 0]
    starts = np.unique(np.concatenate([np.arange(0, rows, width), gaps])).astype(int)
    ends = np.append(starts[1:], rows).astype(int) if rows else np.empty(0, int)
    return Buckets(starts, ends, np.flatnonzero(np.isin(starts, gaps)), width)


def short_gaps(values: Array, longest: int, kept: Array) -> Array:
    """Which missing values (N,) a line may pass over: those in runs of at most `longest` that hold none of the places `kept`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], np.isnan(values), [False]]).astype(int)))
    passed = np.zeros(len(values), bool)
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        passed[first:end] = end - first <= longest and not np.isin(kept, np.arange(first, end)).any()
    return passed


def window_means(values: Array, window: int, back: int) -> tuple[float, float]:
    """Mean of the last `window` values, and how it differs from the same mean `back` rows earlier; NaN where there are none."""
    recent = _mean(values[-window:])
    if len(values) <= back:
        return recent, np.nan
    return recent, recent - _mean(values[: len(values) - back][-window:])


def thin(values: Array, points: int) -> list[float]:
    """At most `points` values for a sparkline, missing ones left out: the mean of each bucket."""
    known = values[~np.isnan(values)]
    if len(known) <= points:
        return known.tolist()
    return [float(part.mean()) for part in np.array_split(known, points)]


def spread(positions: Array, apart: float) -> Array:
    """`positions` (K,) moved as little as a forward pass allows, so that neighbours are at least `apart` apart, order kept."""
    order = np.argsort(positions, kind="stable")
    moved = positions.astype("f8").copy()
    for lower, upper in zip(order[:-1], order[1:], strict=True):
        moved[upper] = max(moved[upper], moved[lower] + apart)
    shift = (moved[order] - positions[order]).mean() if len(order) else 0.0
    return moved - shift


def _mean(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan


def _reduce(best: np.ufunc, values: Array, starts: Array) -> Array:
    return best.reduceat(values, starts) if len(starts) else np.empty(0)

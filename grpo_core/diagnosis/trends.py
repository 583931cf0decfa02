"""Causal statistics of series with gaps: every value at a step is made of that step and earlier ones.

Windows count *measured* values, so that a figure measured every tenth step is judged by as many measurements as one of every step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

Array = np.ndarray


def trailing(x: Array, window: int, figure: Callable[..., Array], *, least: int) -> Array:
    """`figure` of the last `window` measured values at every step (S,), NaN with fewer than `least`; carried over unmeasured steps.

    `figure` is one of numpy's that take an axis, such as np.mean.
    """
    out = np.full(len(x), np.nan)
    known = np.flatnonzero(~np.isnan(x))
    out[known] = rolling(x[known], window, figure, least=least)
    return carried(out)


def rolling(values: Array, window: int, figure: Callable[..., Array], *, least: int = 1) -> Array:
    """`figure` of up to `window` values ending with each one (n,), NaN where they are fewer than `least`."""
    out = np.full(len(values), np.nan)
    for k in range(least - 1, min(window - 1, len(values))):
        out[k] = figure(values[: k + 1])
    if len(values) >= window:
        out[window - 1 :] = figure(np.lib.stride_tricks.sliding_window_view(values, window), axis=-1)
    return out


def trailing_mean(x: Array, window: int, *, least: int) -> Array:
    return trailing(x, window, np.mean, least=least)


def carried(x: Array) -> Array:
    """Each gap filled with the last value before it."""
    last = np.maximum.accumulate(np.where(np.isnan(x), -1, np.arange(len(x))))
    return np.where(last >= 0, x[last], np.nan)


def best_so_far(x: Array) -> Array:
    """Largest value measured up to each step (S,), NaN before the first."""
    return np.where(np.isnan(carried(x)), np.nan, np.fmax.accumulate(x)) if len(x) else x


def first_values(x: Array, n: int) -> float:
    """Mean of the first `n` measured values, NaN if there are none."""
    known = x[~np.isnan(x)][:n]
    return float(known.mean()) if len(known) else float("nan")


def against_start(x: Array, n: int) -> tuple[float, Array]:
    """The mean of the first `n` measured values, and how many times that the mean of the last `n` is at every step (S,)."""
    start = first_values(x, n)
    return start, trailing_mean(x, n, least=n) / start


def risen_since_start(x: Array, n: int) -> tuple[Array, Array]:
    """Mean of the last `n` measured values minus that of the first `n` at every step (S,), and the difference's standard error from the
    spread of the values inside both windows; NaN before `n` values."""
    risen = trailing_mean(x, n, least=n) - first_values(x, n)
    variance = trailing(x, n, partial(np.var, ddof=1), least=n)
    return risen, np.sqrt((variance + first_values(variance, 1)) / n)


def slope_and_t(steps: Array, y: Array) -> tuple[float, float]:
    """Least-squares slope of `y` per step, and its t statistic: the slope divided by its standard error."""
    centred = steps - steps.mean()
    spread = float((centred**2).sum())
    slope = float((centred * y).sum() / spread)
    rest = y - y.mean() - slope * centred
    error = np.sqrt((rest**2).sum() / max(len(y) - 2, 1) / spread)
    return slope, slope / error if error > 0 else float(np.sign(slope)) * np.inf

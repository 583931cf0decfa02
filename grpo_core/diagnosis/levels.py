"""How bad a sign is, and what a signal says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

Array = np.ndarray


class Level(IntEnum):
    """From no answer to the worst. "Not available" is an answer of its own and never counts as healthy."""

    NOT_AVAILABLE = -1
    HEALTHY = 0
    WATCH = 1
    UNHEALTHY = 2
    COLLAPSED = 3

    @property
    def word(self) -> str:
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One figure behind a level. `step`, `group`, `rollout` and the text of a `token` say where to look, where there is such a place."""

    label: str
    value: float
    unit: str
    step: int | None = None
    group: int | None = None
    rollout: int | None = None
    token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What one sign says now, and at every step before.

    `levels` (S,) int8 is the level at each recorded step as it was known then. `since_step` is where the present stretch of watch
    or worse began, None while healthy or not available. `column` is the series the sign is read from, for its chart.
    """

    name: str
    title: str
    level: Level
    value: float | None
    unit: str
    since_step: int | None
    sentence: str
    levels: Array
    evidence: tuple[Evidence, ...] = ()
    column: str = ""


def present_stretch(steps: Array, levels: Array, *, patience: int = 2) -> int | None:
    """First step of the stretch of watch or worse that lasts until now; up to `patience` quieter steps do not end it. None if healthy now."""
    bad = np.flatnonzero(levels >= Level.WATCH)
    if not len(bad) or len(levels) - 1 - bad[-1] > 0 and levels[-1] < Level.WATCH:
        return None
    breaks = np.flatnonzero(np.diff(bad) > patience + 1)
    return int(steps[bad[breaks[-1] + 1] if len(breaks) else bad[0]])

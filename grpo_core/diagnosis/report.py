"""The verdict on a run: how bad, why, since when, where to look, and what would help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from grpo_core.diagnosis.causes import Cause, causes_of
from grpo_core.diagnosis.history import Facts, History
from grpo_core.diagnosis.levels import Level, Signal, present_stretch
from grpo_core.diagnosis.panel import examine
from grpo_core.diagnosis.phases import Phases, displacement_phases
from grpo_core.diagnosis.remedies import Remedy, remedy_for

LEAST_STEPS = 5
"""Steps before which a run is not called healthy: most signals cannot answer yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is known after `step`. `tips` are tuning hints, held back while the run is unhealthy.

    `planned_steps` is how many the run is to make, None where that is not known. `healthy_until` is the last step before the present
    trouble began; None where it began with the first step, or there is none.
    """

    step: int | None
    planned_steps: int | None
    level: Level
    sentence: str
    since_step: int | None
    healthy_until: int | None
    causes: tuple[Cause, ...]
    remedy: Remedy | None
    signals: tuple[Signal, ...]
    phases: Phases
    tips: tuple[str, ...]

    @property
    def alarming(self) -> bool:
        """Whether a script should act: exit code 3."""
        return self.level >= Level.UNHEALTHY

    def signal(self, name: str) -> Signal:
        return next(s for s in self.signals if s.name == name)


def diagnose(history: History, *, checkpoints: Sequence[int] = (), more: Sequence[Signal] = ()) -> Report:
    """The report on a run so far.

    `checkpoints` are the steps done at which one was written and still exists; `more` are signals read from elsewhere than the
    history, such as diagnosis.integrity's.
    """
    signals = (*examine(history), *more)
    causes = causes_of(signals)
    level = overall(signals, causes)
    step = int(history.steps[-1]) if len(history) else None
    since = causes[0].since_step if causes and level >= Level.WATCH else None
    healthy = None if since is None or since <= int(history.steps[0]) else since
    fork = max((c for c in checkpoints if healthy is not None and c <= healthy), default=None)
    return Report(
        step=step,
        planned_steps=history.facts.planned_steps,
        level=level,
        sentence=_sentence(level, causes, history),
        since_step=since,
        healthy_until=None if healthy is None else healthy - 1,
        causes=causes,
        remedy=None if since is None else remedy_for(causes[0], _worst(signals, history.steps >= since), history, fork),
        signals=signals,
        phases=displacement_phases(history),
        tips=() if level >= Level.UNHEALTHY or step is None else _tips(history.facts, signals),
    )


def overall(signals: tuple[Signal, ...], causes: tuple[Cause, ...]) -> Level:
    """How bad it is: unhealthy needs a cause that fits; collapsed needs the outcome to be lost as well. One odd figure is a watch."""
    known = [s for s in signals if s.level > Level.NOT_AVAILABLE]
    if not known:
        return Level.NOT_AVAILABLE
    worst = max(c.level for c in causes) if causes else Level.HEALTHY
    lost = any(s.level == Level.COLLAPSED for s in signals if s.name in OUTCOMES)
    if causes and worst >= Level.UNHEALTHY:
        return Level.COLLAPSED if lost else Level.UNHEALTHY
    if any(s.level >= Level.WATCH for s in known):
        return Level.WATCH
    return Level.HEALTHY if len(known[0].levels) >= LEAST_STEPS else Level.NOT_AVAILABLE


def _worst(signals: tuple[Signal, ...], steps: np.ndarray) -> dict[str, Level]:
    """The worst level that each signal had at these steps (S,) bool."""
    return {s.name: Level(int(s.levels[steps].max())) for s in signals}


OUTCOMES = ("held_out_fall", "reward_fall", "probe", "starvation")
"""Signals of what is wanted rather than of how it is going: collapsed means that one of these is lost."""


def level_at_every_step(history: History) -> np.ndarray:
    """The overall level as it was known at each step (S,), by one pass over the signals' own levels."""
    signals = examine(history)
    out = np.full(len(history), -1, "i1")
    for i in range(len(history)):
        then = tuple(_at(s, history, i) for s in signals)
        out[i] = overall(then, causes_of(then))
    return out


def causes_at(history: History, index: int) -> tuple[Cause, ...]:
    """The causes as they were ranked when step number `index` of the history was the newest."""
    return causes_of(tuple(_at(s, history, index) for s in examine(history)))


def _at(signal: Signal, history: History, index: int) -> Signal:
    """The signal as it stood then; only what the verdict reads of it."""
    levels = signal.levels[: index + 1]
    return replace(signal, level=Level(int(levels[-1])), since_step=present_stretch(history.steps[: index + 1], levels), levels=levels, evidence=())


def _sentence(level: Level, causes: tuple[Cause, ...], history: History) -> str:
    if level == Level.NOT_AVAILABLE:
        return f"Not enough data yet: {len(history)} step{'' if len(history) == 1 else 's'}; the first answers come after about {LEAST_STEPS}."
    if level == Level.HEALTHY:
        return "Healthy: no sign of collapse."
    if not causes:
        return "Worth watching: a sign or two are off, and no known cause fits yet."
    first = causes[0]
    start = {Level.WATCH: "Worth watching", Level.UNHEALTHY: "Unhealthy", Level.COLLAPSED: "Collapsed"}[level]
    return f"{start}: {first.title[0].lower()}{first.title[1:]}, since step {first.since_step}."


def _tips(facts: Facts, signals: tuple[Signal, ...]) -> tuple[str, ...]:
    """What could go better in a run that is not in trouble."""
    by_name = {s.name: s for s in signals}
    tips = []
    if facts.updates == 1 and not facts.clips:
        what = "the LLDS penalty and all clipping are" if facts.penalised else "all clipping is"
        tips.append(f"With one update per rollout batch, {what} zero by construction; two updates learn more from the same rollouts.")
    if by_name["mastery"].level >= Level.WATCH and facts.method != "dapo":
        tips.append("Most groups are solved; method=dapo samples prompts that still carry signal.")
    if by_name["probe"].level == Level.NOT_AVAILABLE:
        tips.append("A probe set of known answers (gold_column for a dataset) would show lost likelihood earlier.")
    return tuple(tips)

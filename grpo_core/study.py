"""A study: runs that differ in method and seed, side by side. No torch.

Figures are shares or rewards as recorded; None is not available.
"""

from __future__ import annotations

import math
import re
import statistics
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from grpo_core.config import RunConfig
from grpo_core.diagnosis.levels import Level
from grpo_core.diagnosis.report import Report
from grpo_core.launch.status import RunStatus
from grpo_core.methods import METHODS

Array = np.ndarray
LAST = 5
"""Steps at the end over which a run's reward is averaged."""
OWN = frozenset({"method", "seed", "name"})
"""Options in which the runs of a study may differ."""
_TAG = re.compile(r"study-\d{8}-\d{6}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one run of a study. `cause` is empty where the verdict names none; `wall_s` is seconds from start to end."""

    method: str
    seed: int
    run_id: str
    state: str
    steps: int
    reward: float | None
    held_out_first: float | None
    held_out_best: float | None
    held_out_last: float | None
    verdict: str
    cause: str
    wall_s: float | None


def outcome(config: RunConfig, status: RunStatus, *, reward: Array, held_out: Array, report: Report | None) -> Outcome:
    """From a run's rewards and held-out accuracies by step, NaN where there was none, and its diagnosis, None where it has none."""
    held_out, reward = held_out[~np.isnan(held_out)], reward[~np.isnan(reward)]
    return Outcome(
        method=config.method,
        seed=config.seed,
        run_id=status.run_id,
        state=status.state,
        steps=status.step,
        reward=float(reward[-LAST:].mean()) if len(reward) else None,
        held_out_first=float(held_out[0]) if len(held_out) else None,
        held_out_best=float(held_out.max()) if len(held_out) else None,
        held_out_last=float(held_out[-1]) if len(held_out) else None,
        verdict=(report.level if report else Level.NOT_AVAILABLE).word,
        cause=report.causes[0].name if report and report.causes else "",
        wall_s=None if status.ended_at is None or status.started_at is None else status.ended_at - status.started_at,
    )


def new_tag() -> str:
    """The tag of a study that begins now."""
    return time.strftime("study-%Y%m%d-%H%M%S")


def is_tag(tag: str) -> bool:
    """Whether a tag names a study that `compare` made."""
    return bool(_TAG.fullmatch(tag))


def spread(values: Sequence[float | None], *, digits: int = 2) -> str:
    """Mean ± standard deviation (n−1) of what is available, which one value has none of."""
    known = _known(values)
    if not known:
        return "not available"
    mean = f"{statistics.mean(known):.{digits}f}"
    return f"{mean} ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else mean


class Judged(Protocol):
    """A run with a verdict; `cause` is empty where that names none."""

    @property
    def verdict(self) -> str: ...
    @property
    def cause(self) -> str: ...


def verdicts(runs: Sequence[Judged]) -> str:
    """How many runs came to which verdict, and why, the most frequent first."""
    said = Counter(run.verdict + (f" ({run.cause})" if run.cause else "") for run in runs)
    return ", ".join(f"{n} × {words}" for words, n in said.most_common())


def by_method(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """The outcomes of each method, in order of their first run."""
    return {name: [one for one in outcomes if one.method == name] for name in dict.fromkeys(one.method for one in outcomes)}


def findings(outcomes: Sequence[Outcome]) -> list[str]:
    """What the study says, the ranking first, in sentences."""
    return [_ranking(by_method(outcomes)), _harmed(by_method(outcomes))]


def _ranking(grouped: dict[str, list[Outcome]]) -> str:
    ends = {name: _known([one.held_out_last for one in found]) for name, found in grouped.items()}
    ranked = sorted((name for name in ends if ends[name]), key=lambda name: -statistics.mean(ends[name]))
    if not ranked:
        return "No run has been evaluated on held-out prompts yet, so nothing can be ranked."
    first, *others = ranked
    head = f"{_title(first)} ends highest on held-out prompts with {spread(ends[first])} over {_seeds(len(ends[first]))}"
    if not others:
        return f"{head}; no other method has been evaluated yet."
    second = others[0]
    return f"{head}; next is {_title(second)} with {spread(ends[second])}, {_how_surely(_title(first), ends[first], ends[second])}."


def _how_surely(higher: str, one: Sequence[float], other: Sequence[float]) -> str:
    """How far the seeds of the higher method and of the other lie apart."""
    if min(len(one), len(other)) < 2:
        return "but one seed cannot say how much of that is chance"
    if min(one) <= max(other):
        return "but their seeds overlap"
    return f"each of its seeds below each of {higher}'s, as chance alone does with 1 in {chance_of_separation(len(one), len(other))} pairs of equal methods"


def chance_of_separation(n: int, m: int) -> int:
    """One in how many pairs of equally good methods has all of one's n seeds above all of the other's m, either way round (permutation test)."""
    return math.comb(n + m, n) // 2


def _harmed(grouped: dict[str, list[Outcome]]) -> str:
    bad = {Level.UNHEALTHY.word, Level.COLLAPSED.word}
    counts = {name: sum(one.verdict in bad for one in found) for name, found in grouped.items()}
    judged = sum(one.verdict != Level.NOT_AVAILABLE.word for found in grouped.values() for one in found)
    if not judged:
        return "No run has a verdict yet."
    if not any(counts.values()):
        return (
            "The one run with a verdict is neither unhealthy nor collapsed."
            if judged == 1
            else f"None of the {judged} runs with a verdict is unhealthy or collapsed."
        )
    return f"Unhealthy or collapsed: {', '.join(f'{_title(name)} {n} of {len(grouped[name])}' for name, n in counts.items() if n)}."


def unequal(configs: Sequence[RunConfig]) -> list[str]:
    """Options other than OWN in which the runs differ, so that the comparison is not between methods alone."""
    settings = [config.model_dump() for config in configs]
    return [name for name in settings[0] if name not in OWN and len({repr(one[name]) for one in settings}) > 1] if settings else []


def _title(method: str) -> str:
    return METHODS[method].title


def _seeds(n: int) -> str:
    return "one seed" if n == 1 else f"{n} seeds"


def _known(values: Collection[float | None]) -> list[float]:
    return [v for v in values if v is not None and not math.isnan(v)]

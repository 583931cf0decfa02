"""Where to look: the groups, and where one can be named the token, that show most of what a signal says, at the step its evidence names.

A few rows of one step per signal that is not healthy; what is no longer recorded names no place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np

from grpo_core.diagnosis.levels import Evidence, Level, Signal
from grpo_core.diagnosis.report import Report
from grpo_core.measures.conflicts import by_token, conflicts

Rows = Mapping[str, Sequence[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What the recording answers: functions of storage.queries.evidence of the same names, bound to a run."""

    worst_groups: Callable[..., Rows]
    pushed_rollouts_of_group: Callable[[int, int], Rows]
    lost_token: Callable[[int], Rows]
    piece: Callable[[int], str]

    @classmethod
    def of(cls, questions: object, *run: object) -> Recorded:
        """The functions of these names in `questions`, each bound to the store and id of a run."""
        return cls(**{one.name: partial(getattr(questions, one.name), *run) for one in fields(cls)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """By which of a group's figures a signal's groups are ranked. Only groups beyond `than` show the trouble at all."""

    figure: str
    label: str
    unit: str
    lowest: bool = False
    than: float | None = None


_UNSOLVED = Ranking(figure="correct_share", label="correct rollouts of a group", unit="share", lowest=True)
_SURE = Ranking(figure="entropy", label="entropy of a group", unit="nats/token", lowest=True)
RANKINGS: Mapping[str, Ranking] = {
    "reward_fall": _UNSOLVED,
    "starvation": replace(_UNSOLVED, than=1e-9),
    "sharpening": replace(_UNSOLVED, than=1e-9),
    "mastery": Ranking(figure="correct_share", label="correct rollouts of a group", unit="share", than=1 - 1e-9),
    "displacement": Ranking(figure="delta_correct", label="change over a group's correct rollouts", unit="nats/token", lowest=True, than=0.0),
    "conflicts": Ranking(figure="conflict_net", label="net advantage of a group's conflict tokens", unit="advantage", lowest=True, than=0.0),
    "entropy_rise": replace(_SURE, lowest=False),
    "entropy_fall": _SURE,
    "step_kl": Ranking(figure="moved", label="step size on a group", unit="nats/token", than=0.0),
    "clipping": Ranking(figure="clipped", label="tokens of a group held", unit="share of tokens", than=0.0),
    "mismatch": Ranking(figure="mismatch", label="disagreement on a group", unit="probability", than=0.0),
    "length": Ranking(figure="length", label="mean length of a group", unit="tokens"),
    "truncation": Ranking(figure="truncated", label="cut rollouts of a group", unit="share", than=0.0),
    "repetition": Ranking(figure="repetition", label="repeats in a group", unit="share", than=0.0),
    "hacking": Ranking(figure="unearned", label="reward of a group beyond its share correct", unit="reward", than=0.0),
    "length_bought": Ranking(figure="length_corr", label="reward against length in a group", unit="correlation", than=0.0),
    "failures": Ranking(figure="failed_share", label="failed rewards of a group", unit="share of rollouts", than=0.0),
}
"""Signals that are not here have no groups to look at: they are of held-out prompts, of the probe set, or of a whole update."""


def places(report: Report, recorded: Recorded) -> dict[str, tuple[Evidence, ...]]:
    """The places to look at for each signal that is not healthy, by its name; signals without one are left out."""
    found = {signal.name: places_of(signal, recorded) for signal in report.signals}
    return {name: where for name, where in found.items() if where}


def with_places(report: Report, found: Mapping[str, tuple[Evidence, ...]]) -> Report:
    """The report with those places after the evidence of their signals."""
    return replace(report, signals=tuple(replace(s, evidence=(*s.evidence, *found.get(s.name, ()))) for s in report.signals))


def places_of(signal: Signal, recorded: Recorded) -> tuple[Evidence, ...]:
    """The worst groups of the step the signal's evidence names, then the token where displacement and conflicts are worst."""
    step = next((e.step for e in signal.evidence if e.step is not None), None)
    ranking = RANKINGS.get(signal.name)
    if signal.level < Level.WATCH or step is None or ranking is None:
        return ()
    found = recorded.worst_groups(step, ranking.figure, lowest=ranking.lowest)
    groups = tuple(
        Evidence(label=ranking.label, value=float(value), unit=ranking.unit, step=step, group=int(group))
        for group, value in zip(found["group_index"], found["value"])
        if _beyond(ranking, value)
    )
    if signal.name == "displacement":
        return (*groups, *_lost_token(step, recorded))
    if signal.name == "conflicts" and groups:
        return (*groups, *_contested_token(step, groups[0].group, recorded))
    return groups


def _beyond(ranking: Ranking, value: float) -> bool:
    return ranking.than is None or (value < ranking.than if ranking.lowest else value > ranking.than)


def _lost_token(step: int, recorded: Recorded) -> tuple[Evidence, ...]:
    found = recorded.lost_token(step)
    return tuple(
        Evidence(label="token of a correct rollout that lost most", value=float(value), unit="nats", step=step,
                 group=int(group), rollout=int(rollout), token=recorded.piece(int(token)))
        for group, rollout, token, value in zip(found["group_index"], found["rollout_index"], found["token_id"], found["value"])
    )  # fmt: skip


def _contested_token(step: int, group: int, recorded: Recorded) -> tuple[Evidence, ...]:
    """The token of the group that is pushed down most where right and wrong rollouts share it."""
    rollouts = recorded.pushed_rollouts_of_group(step, group)
    length = np.asarray(rollouts["length"], "i8")
    if not len(length):
        return ()
    advantage, ids = np.nan_to_num(np.asarray(rollouts["advantage"], "f8")), np.concatenate(list(rollouts["token_ids"])).astype("i8")
    totals = by_token(conflicts(ids, length, np.zeros(len(length), "i8"), advantage), ids, np.repeat(advantage, length))
    if not len(totals.net) or totals.net.min() >= 0:
        return ()
    worst = int(totals.net.argmin())
    return (
        Evidence(label="shared token pushed down most", value=float(totals.net[worst]), unit="advantage", step=step, group=group,
                 token=recorded.piece(int(totals.token[worst]))),
    )  # fmt: skip

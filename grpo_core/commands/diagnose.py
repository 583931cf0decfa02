"""python -m grpo_core diagnose RUN: the verdict on a run, as text or JSON, with an exit code for scripts."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import indent, wrap
from typing import TYPE_CHECKING

import click

from grpo_core.commands.finding import find_run, names
from grpo_core.commands.options import json_option, run_argument, store_option
from grpo_core.commands.printing import answer, exit_with, table
from grpo_core.running import OK, UNHEALTHY

if TYPE_CHECKING:
    from grpo_core.diagnosis.causes import Cause
    from grpo_core.diagnosis.levels import Evidence, Signal
    from grpo_core.diagnosis.phases import Phases
    from grpo_core.diagnosis.remedies import Remedy
    from grpo_core.diagnosis.report import Report
    from storage.reader import DamagedFile

WIDTH = 120


@click.command()
@run_argument
@store_option
@json_option
def diagnose(run: str, store: Path, as_json: bool) -> None:
    """Say whether a run collapses, why, since when, and what would help. Exit code 3: unhealthy or collapsed."""
    from grpo_core.watch.reading import has_gaps, recorded_history, report_on
    from storage.reader import Store

    run_id = find_run(store, run)
    opened = Store(store)
    history = recorded_history(opened, run_id)
    report = report_on(opened, run_id, history, checked=True)
    damaged = opened.damaged(run_id) if has_gaps(opened, run_id, history) else []  # which reads the whole run
    answer(as_json_object(report, run_id, damaged), as_json, text=as_text(report, run_id, names(store).get(run_id, ""), damaged))
    exit_with(UNHEALTHY if report.alarming else OK)


def as_json_object(report: Report, run_id: str, damaged: Sequence[DamagedFile] = ()) -> dict[str, object]:
    """The report under stable keys; levels as words, None where not available."""
    phases = report.phases
    return {
        "run_id": run_id,
        "step": report.step,
        "planned_steps": report.planned_steps,
        "level": report.level.word,
        "sentence": report.sentence,
        "since_step": report.since_step,
        "healthy_until": report.healthy_until,
        "causes": [{**asdict(cause), "level": cause.level.word, "signals": list(cause.signals)} for cause in report.causes],
        "remedy": _remedy(report.remedy),
        "signals": [_signal(signal) for signal in report.signals],
        "phases": {
            "column": phases.column,
            "unit": phases.unit,
            "reason": phases.reason,
            "phases": [{"name": phase.name, **asdict(phase), "slope": _known(phase.slope)} for phase in phases.phases],
        },
        "tips": list(report.tips),
        "unreadable": [damage.why for damage in damaged],
    }


def _remedy(remedy: Remedy | None) -> dict[str, object] | None:
    return remedy and {"sentence": remedy.sentence, "changes": dict(remedy.changes), "fork_from": remedy.fork_from}


def _signal(signal: Signal) -> dict[str, object]:
    return {
        "name": signal.name,
        "title": signal.title,
        "level": signal.level.word,
        "value": _known(signal.value),
        "unit": signal.unit,
        "since_step": signal.since_step,
        "sentence": signal.sentence,
        "evidence": [{**asdict(evidence), "value": _known(evidence.value)} for evidence in signal.evidence],
        "column": signal.column,
    }


def _known(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


# Text ----------------------------------------------------------------------------------------------------------------


def as_text(report: Report, run_id: str, name: str, damaged: Sequence[DamagedFile] = ()) -> str:
    """Verdict first, then causes, remedy, signals from the worst, phases and tips."""
    seen = "no step recorded yet" if report.step is None else f"as of step {report.step}{_progress(report)}"
    blocks = [
        report.sentence,
        f"run {run_id}{f' ({name})' if name else ''}, {seen}{_healthy_until(report)}",
        _titled("Causes", (line for i, cause in enumerate(report.causes, 1) for line in _cause_lines(i, cause))),
        _titled("Remedy", _remedy_lines(report.remedy, run_id)),
        _titled("Signals", _signal_lines(report.signals)),
        _titled("Phases of likelihood displacement", _phase_lines(report.phases)),
        _titled("Tips", (line for tip in report.tips for line in wrap(tip, WIDTH))),
        _titled("Not readable, so not in this diagnosis", (damage.why for damage in damaged)),
    ]
    return "\n\n".join(filter(None, blocks))


def _progress(report: Report) -> str:
    return "" if report.planned_steps is None else f" ({report.step + 1} of {report.planned_steps} steps)"


def _healthy_until(report: Report) -> str:
    return "" if report.healthy_until is None else f"; healthy until step {report.healthy_until}"


def _titled(title: str, lines: Iterator[str]) -> str:
    text = "\n".join(lines)
    return f"{title}\n{indent(text, '  ')}" if text else ""


def _cause_lines(number: int, cause: Cause) -> Iterator[str]:
    yield f"{number}. {cause.title}: {cause.level.word}, since step {cause.since_step}; {cause.fit:.0%} of its measured signs are seen"
    yield from (f"   {line}" for line in wrap(cause.explains, WIDTH))
    yield f"   signs: {', '.join(cause.signals)}"


def _remedy_lines(remedy: Remedy | None, run_id: str) -> Iterator[str]:
    from grpo_core.launch.fork import fork_command

    if remedy is None:
        return
    yield from wrap(remedy.sentence, WIDTH)
    if remedy.changes:
        yield shlex.join(fork_command(run_id, remedy.fork_from or 0, remedy.changes))


def _signal_lines(signals: Sequence[Signal]) -> Iterator[str]:
    """The worst first; the evidence of those that are not healthy under the table."""
    ordered = sorted(signals, key=lambda s: -s.level)
    rows = [
        [s.level.word, s.name, _figure(s.value), s.unit if s.value is not None else "", "" if s.since_step is None else f"{s.since_step}", s.sentence]
        for s in ordered
    ]
    yield from table(["LEVEL", "SIGNAL", "VALUE", "UNIT", "SINCE", "WHAT IT SAYS"], rows).splitlines()
    troubled = [(signal, evidence) for signal in ordered if signal.level > 0 for evidence in signal.evidence]
    if troubled:
        yield ""
        yield from table(
            ["EVIDENCE FOR", "FIGURE", "VALUE", "UNIT", "WHERE"], [[s.name, e.label, _figure(e.value), e.unit, _place(e)] for s, e in troubled]
        ).splitlines()


def _place(evidence: Evidence) -> str:
    """`step 40 group 3 rollout 1, token '7'`, as far as there is such a place; a token that cannot be printed is escaped."""
    places = (("step", evidence.step), ("group", evidence.group), ("rollout", evidence.rollout))
    where = " ".join(f"{name} {index}" for name, index in places if index is not None)
    return where if evidence.token is None else f"{where}, token {evidence.token!r}"


def _phase_lines(phases: Phases) -> Iterator[str]:
    if not phases.phases:
        yield phases.reason or "none: the likelihood of correct answers does not fall"
    for p in phases.phases:
        begins = f"began between steps {p.from_low} and {p.from_high} (90 %)" if p.from_low != p.from_high else ""
        yield f"{p.name}: steps {p.first} to {p.last}, {p.slope:+.3g} {phases.unit} per step{f'; {begins}' if begins else ''}"


def _figure(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3g}"

"""What a shorter mantissa changes: a run that collapses, trained once and recorded in every precision, diagnosed and asked the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from grpo_core.config import make_config
from grpo_core.diagnosis.history import Facts, facts_of_settings, history_of
from grpo_core.diagnosis.integrity import integrity
from grpo_core.diagnosis.places import Recorded, places, with_places
from grpo_core.diagnosis.report import Report, diagnose
from grpo_core.presets import preset
from grpo_core.records import StepTrace
from grpo_core.trace.tables import to_tables
from grpo_core.trainer.loop import train
from storage.encode import MANTISSA_BITS
from storage.queries import evidence, groups, steps, variance
from storage.queries.integrity import scored_rollouts
from storage.reader import Store
from storage.segments import RunWriter
from tests.benchmarks.store_parts.growth import questions

EXACT = "exact"
SHOWN = 10
"""Columns named per precision: those whose largest difference is largest."""
KEYS = ("step", "group_index", "rollout_index", "position", "token_id", "name", "bin")
"""Columns that say which row it is; where they differ, the answer names other rows."""


def measure(folder: Path, *, training_steps: int, asked_steps: int = 12) -> dict[str, object]:
    """Every signal, the verdict, and every question pages ask at `asked_steps` steps, against the exact recording."""
    config = make_config({**preset("collapse").settings, "steps": training_steps})
    traces: list[StepTrace] = []
    with tqdm(total=training_steps, desc="precision: training", unit="step", leave=False) as bar:

        def record(trace: StepTrace) -> None:
            traces.append(trace)
            bar.update()

        train(
            config, cache_dir=folder.parent / "cache", checkpoint_dir=folder / "checkpoints", record=record, flush=lambda: None, on_start=lambda start: None,
            progress=lambda *_: None, should_stop=lambda: False,
        )  # fmt: skip
    store = Store(folder)
    for precision in MANTISSA_BITS:
        with RunWriter.open(folder / "runs" / precision, precision=precision) as writer:
            writer.append_steps([to_tables(trace) for trace in traces])
    where = np.unique(np.linspace(0, len(traces) - 1, asked_steps).round().astype(int)).tolist()
    facts = facts_of_settings(config)
    exact, exact_answers = report_on(store, EXACT, facts), dict(answers(store, EXACT, where))
    found = {}
    for precision in MANTISSA_BITS:
        if precision == EXACT:
            continue
        report = report_on(store, precision, facts)
        compared = {key: differences(exact_answers[key], answer) for key, answer in answers(store, precision, where)}
        found[precision] = {
            "signals": sum(not same_signal(a, b) for a, b in zip(exact.signals, report.signals, strict=True)),
            "verdict": report.sentence == exact.sentence and [c.name for c in report.causes] == [c.name for c in exact.causes],
            "places": [s.evidence for s in report.signals] == [s.evidence for s in exact.signals],
            "questions": _per_question(compared),
            "columns": _largest(compared.values()),
        }
    return {"steps": len(traces), "asked": len(where), "verdict": exact.sentence, "signals": len(exact.signals), "precisions": found}


def report(figures: Mapping[str, object]) -> None:
    """Print what differs in each precision, and that the rest does not."""
    print(f"precision: {figures['steps']} steps of the preset collapse, recorded {EXACT} and shorter; its verdict: {figures['verdict']}")
    for precision, found in figures["precisions"].items():
        asked = found["questions"]
        same = sum(not q["differ"] for q in asked.values())
        verdict = "is the same" if found["verdict"] else "DIFFERS"
        where = "are the same" if found["places"] else "have other figures or order"
        print(f"{precision}: {found['signals']} of {figures['signals']} signals differ at any step, the verdict {verdict}, the places it names {where};")
        print(f"  {same} of {len(asked)} questions have the same answer to the last bit")
        for name, q in asked.items():
            if q["differ"]:
                print(f"  {name}: differs in {q['differ']} of {q['calls']} calls, names other rows in {q['rows']}")
        for column, off in found["columns"].items():
            print(f"  {column}: at most {off['by']:.1e} off, {off['share']:.1e} of the largest value beside it")


def report_on(store: Store, run_id: str, facts: Facts) -> Report:
    """As `watch.reading.report_on`, of a run that has no config.json."""
    history = history_of(steps.step_series(store, run_id), facts, variance.outcome_counts(store, run_id))
    report = diagnose(history, more=[integrity(history, scored_rollouts(store, run_id))])
    return with_places(report, places(report, Recorded.of(evidence, store, run_id)))


def same_signal(a: object, b: object) -> bool:
    """Whether two signals say the same at every step; the evidence aside, whose places are compared on their own."""
    return bool((a.levels == b.levels).all()) and repr(replace(a, levels=None, evidence=())) == repr(replace(b, levels=None, evidence=()))


def answers(store: Store, run_id: str, where: Sequence[int]) -> Iterator[tuple[tuple[str, int], object]]:
    """Every question's answer by name and step."""
    last = store.last_step(run_id)
    prompt = groups.groups_of_step(store, run_id, last)["prompt_hash"].iloc[0]
    for name, ask in questions(store, run_id, last, prompt).items():
        if name != "runs.run_size":
            for step in where:
                yield (name, step), ask(step, 0)


def differences(exact: object, other: object) -> dict[str, tuple[float, float]] | None:
    """Largest absolute difference of each column that differs, and relative to the largest value of the column; None if other rows are named."""
    a, b = _columns(exact), _columns(other)
    if a.keys() != b.keys() or any(len(a[name]) != len(b[name]) or name in KEYS and not _equal(a[name], b[name]) for name in a):
        return None
    found = {}
    for name in a:
        if not _equal(a[name], b[name]):
            x, y = (_numbers(values) for values in (a[name], b[name]))
            if len(x) != len(y):
                return None
            off = float(np.nanmax(np.abs(x - y)))
            found[name] = (off, off / float(np.nanmax(np.abs(x))))
    return found


def _columns(answer: object) -> dict[str, Sequence[object]]:
    if isinstance(answer, pd.DataFrame):
        return {str(name): column.tolist() for name, column in answer.items()}
    if isinstance(answer, Mapping):
        return {str(name): [value] for name, value in answer.items()}
    return {"value": answer if isinstance(answer, list) else [answer]}


def _equal(a: Sequence[object], b: Sequence[object]) -> bool:
    return all(np.array_equal(x, y, equal_nan=True) if isinstance(x, np.ndarray | float) else x == y for x, y in zip(a, b, strict=True))


def _numbers(values: Sequence[object]) -> np.ndarray:
    return np.concatenate([np.atleast_1d(np.asarray(value, "f8")) for value in values if value is not None])


def _per_question(compared: Mapping[tuple[str, int], dict | None]) -> dict[str, dict[str, int]]:
    names = list(dict.fromkeys(name for name, _ in compared))
    count: Callable[[str, Callable[[object], bool]], int] = lambda name, what: sum(what(d) for (n, _), d in compared.items() if n == name)  # noqa: E731
    return {name: {"calls": count(name, lambda d: True), "differ": count(name, lambda d: d != {}), "rows": count(name, lambda d: d is None)} for name in names}


def _largest(found: Iterable[dict | None]) -> dict[str, dict[str, float]]:
    largest: dict[str, tuple[float, float]] = {}
    for columns in found:
        for name, pair in (columns or {}).items():
            largest[name] = tuple(map(max, pair, largest.get(name, (-math.inf, -math.inf))))
    shown = sorted(largest.items(), key=lambda item: -item[1][1])[:SHOWN]
    return {name: {"by": by, "share": share} for name, (by, share) in shown}

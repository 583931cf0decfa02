"""Does the proposed change help? Each collapsing run of `bench diagnosis` is forked as its verdict proposed at the first alarm.

The fork goes on from the checkpoint the remedy names to the same number of steps. It holds if it ends at least as accurate on held-out
prompts as the run was where the fork began, beside what the run itself came to.
Run: python -m grpo_core bench remedies --seeds 2,3,4 [--jobs 2] [--cases lld_lr] [--store FOLDER]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from grpo_core.diagnosis.levels import Level
from grpo_core.diagnosis.remedies import Remedy
from grpo_core.diagnosis.report import diagnose, level_at_every_step
from grpo_core.watch.reading import recorded_history
from storage.reader import Store
from tests.benchmarks.diagnosis import CASES, ROOT, Case, find, suite_store, train_missing

NOISE = 0.05
"""Held-out accuracy of 96 prompts has a standard error of about 0.05: so much less still counts as held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A collapsing run, the remedy of its first alarm, and held-out accuracy where the fork began, at the run's and at the fork's end."""

    name: str
    remedy: Remedy | None
    began: float = float("nan")
    untreated: float = float("nan")
    treated: float = float("nan")

    @property
    def holds(self) -> bool:
        return self.treated >= self.began - NOISE


def main(*, seeds: object = "2,3,4", jobs: int = 2, cases: str = "", store: str = "") -> dict[str, float]:
    """Fork every collapsing run whose remedy is a change of settings, print the table, return the totals."""
    chosen = [case for case in CASES if case.cause and (not cases or case.name in cases.split(","))]
    root = suite_store(store)
    wanted = [(case, int(seed)) for case in chosen for seed in str(seeds).split(",")]
    train_missing(root, wanted, jobs)
    with ThreadPoolExecutor(jobs) as pool:
        trials = list(pool.map(lambda item: trial(root, *item), wanted))
    print(f"{'run':20} {'proposed at the first alarm':78} held-out: at the fork, untreated end, treated end")
    for t in trials:
        said = "no alarm" if t.remedy is None else t.remedy.sentence.split(". ")[0]
        ending = "" if t.treated != t.treated else f"{t.began:.2f}  {t.untreated:.2f}  {t.treated:.2f}  {'holds' if t.holds else 'does not hold'}"
        print(f"{t.name:20} {said:78} {ending}")
    treated = [t for t in trials if t.treated == t.treated]
    figures = {"forks": len(treated), "hold": sum(t.holds for t in treated), "untreated would have held": sum(t.untreated >= t.began - NOISE for t in treated)}
    print("; ".join(f"{name} {value}" for name, value in figures.items()))
    return figures


def trial(root: Path, case: Case, seed: int) -> Trial:
    run_id = find(root, case, seed)
    assert run_id
    run = recorded_history(Store(root), run_id)
    alarms = np.flatnonzero(level_at_every_step(run) >= Level.UNHEALTHY)
    if not len(alarms):
        return Trial(name=f"{case.name}-{seed}", remedy=None)
    alarm = int(run.steps[alarms[0]])
    checkpoints = sorted(int(p.name.removeprefix("step-")) for p in (root / "runs" / run_id / "checkpoints").glob("step-*"))
    remedy = diagnose(run.until(alarm), checkpoints=[c for c in checkpoints if c <= alarm]).remedy
    if remedy is None or not remedy.changes:
        return Trial(name=f"{case.name}-{seed}", remedy=remedy)
    start = remedy.fork_from or 0
    fork = forked(root, run_id, f"remedy-{case.name}-{seed}", start, remedy)
    after = recorded_history(Store(root), fork)
    return Trial(
        name=f"{case.name}-{seed}",
        remedy=remedy,
        began=held_out_near(run, start),
        untreated=held_out_near(run, 10**9),
        treated=held_out_near(after, 10**9),
    )


def forked(root: Path, parent: str, name: str, step: int, remedy: Remedy) -> str:
    """The id of the finished fork of this name, made if there is none yet."""
    for folder in (root / "runs").glob("*"):
        config, status = (json.loads((folder / file).read_text()) for file in ("config.json", "status.json"))
        if config.get("name") == name and status.get("state") == "finished":
            return folder.name
    options = [part for option, value in remedy.changes.items() for part in (f"--{option.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "grpo_core", "fork", parent, "--step", str(step), "--name", name, "--store", str(root), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr[-800:]}")
    return forked(root, parent, name, step, remedy)


def held_out_near(run, step: int) -> float:
    """Mean of the last two held-out accuracies up to a step."""
    known = run["eval_correct"][(run.steps <= step) & ~np.isnan(run["eval_correct"])]
    return float(known[-2:].mean()) if len(known) else float("nan")

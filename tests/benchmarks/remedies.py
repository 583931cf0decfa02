"""Does the proposed change help? Each collapsing run of `bench diagnosis` is forked as its verdict proposed at the first alarm.

The fork goes on from the checkpoint the remedy names to the same number of steps. It holds if it ends at least as accurate on held-out
prompts as the run was where the fork began, and is not harmed beside its healthy twin where it has one; beside what the run itself came to.
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
from tqdm import tqdm

from grpo_core.diagnosis.levels import Level
from grpo_core.diagnosis.remedies import Remedy
from grpo_core.diagnosis.report import diagnose, level_at_every_step
from grpo_core.launch.folder import RunFolder
from grpo_core.launch.fork import fork_command, read_fork
from grpo_core.watch.reading import recorded_history
from storage.reader import Store
from tests.benchmarks.diagnosis import CASES, HARMED, ROOT, Case, find, held_out, suite_store, train_missing, with_twins

NOISE = 0.05
"""Held-out accuracy of 96 prompts has a standard error of about 0.05: so much less still counts as held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A collapsing run, the cause and remedy of its first alarm, and held-out accuracy where the fork began, at the run's, the fork's and the
    twin's end."""

    name: str
    remedy: Remedy | None
    cause: str = ""
    began: float = float("nan")
    untreated: float = float("nan")
    treated: float = float("nan")
    twin: float | None = None

    def held(self, end: float) -> bool:
        """Whether a run that ends at this held-out accuracy has come to no harm since the fork."""
        return end >= self.began - NOISE and end >= HARMED * (self.twin or 0.0)


def main(*, seeds: object = "2,3,4", jobs: int = 2, cases: str = "", store: str = "") -> dict[str, float]:
    """Fork every run meant to collapse whose remedy is a change of settings, print the table, return the totals."""
    chosen = [case for case in CASES if case.cause and (not cases or case.name in cases.split(","))]
    root = suite_store(store)
    wanted = [(case, int(seed)) for case in chosen for seed in str(seeds).split(",")]
    train_missing(root, with_twins(wanted), jobs)
    with ThreadPoolExecutor(jobs) as pool:
        trials = list(tqdm(pool.map(lambda item: trial(root, *item), wanted), total=len(wanted), desc="forking", unit="run"))
    print(f"{'run':20} {'cause and proposal at the first alarm':98} held-out: at the fork, untreated end, treated end, twin's end")
    for t in trials:
        said = "no alarm" if t.remedy is None else f"{t.cause}: {t.remedy.sentence.split('. ')[0]}"
        twin = "-   " if t.twin is None else f"{t.twin:.2f}"
        ends = f"{t.began:.2f}  {t.untreated:.2f}  {t.treated:.2f}  {twin}  {'holds' if t.held(t.treated) else 'does not hold'}"
        print(f"{t.name:20} {said:98} {'' if t.treated != t.treated else ends}")
    treated = [t for t in trials if t.treated == t.treated]
    figures = {
        "forks": len(treated),
        "hold": sum(t.held(t.treated) for t in treated),
        "untreated would have held": sum(t.held(t.untreated) for t in treated),
    }
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
    report = diagnose(run.until(alarm), checkpoints=[c for c in checkpoints if c <= alarm])
    remedy, cause = report.remedy, report.causes[0].name if report.causes else ""
    if remedy is None or not remedy.changes:
        return Trial(name=f"{case.name}-{seed}", remedy=remedy, cause=cause)
    start = remedy.fork_from or 0
    fork = forked(root, run_id, f"remedy-{case.name}-{seed}", start, remedy)
    after = recorded_history(Store(root), fork)
    healthy = next((other for other in CASES if other.name == case.twin), None)
    return Trial(
        name=f"{case.name}-{seed}",
        remedy=remedy,
        cause=cause,
        began=held_out_near(run, start),
        untreated=held_out_near(run, 10**9),
        treated=held_out_near(after, 10**9),
        twin=None if healthy is None else float(held_out(recorded_history(Store(root), find(root, healthy, seed) or ""))[-1]),
    )


def forked(root: Path, parent: str, name: str, step: int, remedy: Remedy) -> str:
    """The id of the finished fork of this name, place and remedy, made if there is none yet."""
    changes = json.loads(json.dumps(remedy.changes))
    for folder in (root / "runs").glob("*"):
        config, status = (json.loads((folder / file).read_text()) for file in ("config.json", "status.json"))
        fork = read_fork(RunFolder.open(root, folder.name))
        same = fork is not None and (fork.parent, fork.step) == (parent, step) and all(config.get(k) == v for k, v in changes.items())
        if same and config.get("name") == name and status.get("state") == "finished":
            return folder.name
    command = [sys.executable, *fork_command(parent, step, remedy.changes)[1:], "--name", name, "--store", str(root)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr[-800:]}")
    return forked(root, parent, name, step, remedy)


def held_out_near(run, step: int) -> float:
    """Mean of the last two held-out accuracies up to a step."""
    known = run["eval_correct"][(run.steps <= step) & ~np.isnan(run["eval_correct"])]
    return float(known[-2:].mean()) if len(known) else float("nan")

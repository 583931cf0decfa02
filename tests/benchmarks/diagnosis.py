"""Is the diagnosis right? Small CPU runs that collapse in known ways, and healthy ones, judged step by step as they would have been live.

Each run is a real one (`python -m grpo_core train`), kept in a store of its own, so that a second call only judges. The held-out curve,
which the verdict may also read, says when a run was lost: from two evaluations in a row on below half of what it had gained. A run that
began low and stays there has nothing to lose; it is stuck if it ends well below the healthy run of the same prompts and start, its twin.
Run: python -m grpo_core bench diagnosis --seeds 0,1,2 [--jobs 2] [--cases lld_lr,healthy] [--store FOLDER]
"""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tqdm import tqdm

from grpo_core.diagnosis.history import History
from grpo_core.diagnosis.levels import Level
from grpo_core.diagnosis.report import causes_at, level_at_every_step
from grpo_core.launch.folder import default_store
from grpo_core.tasks.arithmetic import worked_answer
from grpo_core.watch.reading import recorded_history
from storage.reader import Store

ROOT = Path(__file__).resolve().parents[2]
TUNING_SEEDS = frozenset({0, 1, 10, 11})
"""Seeds the thresholds were set on; figures to be believed are those of other seeds."""
STEPS = 80
LEAST_GAIN = 0.2
"""Held-out accuracy a run must have gained for half of the gain to be more than two standard errors of 96 prompts."""
SETTLED = 10
"""Steps after the alarm from which the cause is read a second time, at the next step on which the verdict is alarming."""
HARMED = 0.8
"""Share of its best held-out accuracy, or of its twin's at the end, below which a run that ends there has come to harm: two standard errors of 96
prompts."""
REWARDS = "tests.benchmarks.suite_rewards:"
SUMS = "sums.jsonl"
DIGITS = "digits.jsonl"
_DATASET = {"task": "dataset", "data": SUMS, "gold_column": "worked"}
_TWO = [f"{REWARDS}right", f"{REWARDS}formed=0.3"]
_HALF_KNOWN = {"task": "dataset", "data": DIGITS, "gold_column": "worked", "warmup_steps": 100, "max_new_tokens": 4}
_EVERY_RUN = {
    "steps": STEPS,
    "warmup_steps": 400,
    "prompts_per_step": 8,
    "eval_every": 5,
    "eval_prompts": 96,
    "checkpoint_every": 10,
    "checkpoints_kept": 100,
    "diagnose_every": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A run and the cause it is made to collapse by, empty for a healthy one. `means` is one sentence for the table; `twin` names the healthy
    case of the same prompts and start, where a run is harmed by what it does not reach."""

    name: str
    cause: str
    means: str
    settings: Mapping[str, object]
    twin: str = ""


def _case(name: str, cause: str, means: str, *, twin: str = "", **settings: object) -> Case:
    return Case(name=name, cause=cause, means=means, settings=settings, twin=twin)


CASES: tuple[Case, ...] = (
    _case("lld_lr", "displacement", "learning rate rising by 1.5e-5 a step", lr=1.5e-3, lr_warmup=200),
    _case("lld_updates", "displacement", "8 updates per batch, learning rate rising by 1e-5 a step", epochs=8, lr=1e-3, lr_warmup=800),
    _case("lld_negatives", "displacement", "negatives only, learning rate rising by 1e-5 a step", method="nsr", lr=1e-3, lr_warmup=200),
    _case(
        "lld_demo", "displacement", "the demo's: 4 updates per batch, lr 1e-3, 150 steps of 16 × 8 from 60 %", steps=150, warmup_steps=250,
        prompts_per_step=16, epochs=4, lr=1e-3,
    ),  # fmt: skip
    _case(
        "lld_two_rewards", "displacement", "lld_lr on a dataset, 0.3 × the answer's form paid on top", **_DATASET, rewards=_TWO, lr=1.5e-3, lr_warmup=200
    ),
    _case("entropy", "entropy", "positives only, lr 2e-3, 4 updates per batch", twin="healthy_digits", method="psr", lr=2e-3, epochs=4, **_HALF_KNOWN),
    _case("hacking", "hacking", "8 × the share of the digit 1 is paid on top", **_DATASET, rewards=[f"{REWARDS}right", f"{REWARDS}ones=8"], lr=4e-4),
    _case("length", "length", "twice the length is paid on top", **_DATASET, rewards=[f"{REWARDS}right", f"{REWARDS}long=2"], max_new_tokens=48, lr=4e-4),
    _case("dead_data", "dead_data", "nobody can earn the reward", **_DATASET, rewards=[f"{REWARDS}never"]),
    _case("healthy", "", "GRPO, the defaults"),
    _case("healthy_dapo", "", "DAPO", method="dapo"),
    _case("healthy_gspo", "", "GSPO", method="gspo"),
    _case("healthy_dr_grpo", "", "Dr. GRPO", method="dr_grpo"),
    _case("healthy_one_update", "", "one update per batch", epochs=1),
    _case("healthy_llds", "", "GRPO + LLDS", method="grpo_llds"),
    _case("healthy_dataset", "", "the same sums as a dataset", **_DATASET, rewards=[f"{REWARDS}right"]),
    _case("healthy_two_rewards", "", "the same with 0.3 × the answer's form on top", **_DATASET, rewards=_TWO),
    _case("healthy_demo", "", "the demo's: 150 steps of 16 × 8 from 60 %", steps=150, warmup_steps=250, prompts_per_step=16),
    _case("healthy_digits", "", "the larger units digit, half known at the start", **_HALF_KNOWN),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was said of a run: steps of the first alarm and of the loss (None: never), causes named at the alarm, SETTLED steps later, and at the end."""

    case: Case
    seed: int
    alarm: int | None
    cause: str
    settled: str
    final: str
    lost: int | None
    watch_share: float
    steps: int
    accuracy: tuple[float, float, float]
    twin_accuracy: float | None = None

    @property
    def collapsed(self) -> bool:
        """Whether the run came to harm at all: it lost half of its gain, ended below HARMED of its best or of its twin, or never had anything to
        learn from."""
        return self.lost is not None or self.accuracy[2] < HARMED * max(self.accuracy[1], self.twin_accuracy or 0.0) or self.accuracy[1] == 0

    @property
    def lead(self) -> int | None:
        """Steps between the alarm and the loss; negative if the alarm came late. None for a run that was not lost before it ended."""
        return None if self.alarm is None or self.lost is None else self.lost - self.alarm

    @property
    def least_lead(self) -> int | None:
        """The lead, or the steps that a run still had which was falling when it ended: its lead is no less. None for runs that had nothing to lose."""
        _, best, end = self.accuracy
        falling = self.lost is None and not self.case.twin and end < HARMED * best
        return self.steps - self.alarm if self.alarm is not None and falling else self.lead


def main(*, seeds: object = "2,3,4", jobs: int = 2, cases: str = "", store: str = "") -> dict[str, float]:
    """Train what is missing, judge all, print the tables; returns the totals of the seeds that were not tuned on."""
    chosen = [case for case in CASES if not cases or case.name in cases.split(",")]
    numbers = [int(seed) for seed in str(seeds).split(",")]
    root = suite_store(store)
    wanted = [(case, seed) for case in chosen for seed in numbers]
    train_missing(root, with_twins(wanted), jobs)
    outcomes = [judge(root, case, seed) for case, seed in wanted]
    print(f"{platform.processor() or platform.machine()}, torch {version('torch')}, {STEPS} steps of 8 × 8 rollouts, seeds {numbers}")
    print_runs(outcomes)
    figures: dict[str, float] = {}
    for label, group in (("tuning seeds", TUNING_SEEDS), ("other seeds", frozenset(numbers) - TUNING_SEEDS)):
        some = [o for o in outcomes if o.seed in group]
        if some:
            figures = totals(some)
            print(f"{label} {sorted({o.seed for o in some})}: " + "; ".join(f"{name} {value:g}" for name, value in figures.items()))
    return figures


def with_twins(wanted: Iterable[tuple[Case, int]]) -> list[tuple[Case, int]]:
    """The wanted runs and, once each, the twins they are measured by."""
    by_name = {case.name: case for case in CASES}
    runs = {(case.name, seed): (case, seed) for case, seed in wanted}
    twins = {(case.twin, seed): (by_name[case.twin], seed) for case, seed in runs.values() if case.twin}
    return list((runs | twins).values())


def suite_store(store: str) -> Path:
    """Where the suite's runs are kept: the folder named, or one of their own in the default store."""
    return Path(store or default_store() / "bench-diagnosis").absolute()


def train_missing(root: Path, wanted: Iterable[tuple[Case, int]], jobs: int) -> None:
    """Train every wanted run that is not there yet, `jobs` at a time."""
    root.mkdir(parents=True, exist_ok=True)
    write_sums(root / SUMS)
    write_digits(root / DIGITS)
    missing = [(case, seed) for case, seed in wanted if find(root, case, seed) is None]
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(missing), desc="training", unit="run") as bar:
        for _ in pool.map(lambda item: train(root, *item), missing):
            bar.update()


def train(root: Path, case: Case, seed: int) -> None:
    settings = settings_of(root, case, seed)
    config = root / f"{settings['name']}.json"
    config.write_text(json.dumps(settings))
    environment = {**os.environ, "GROUPSCOPE_STORE": str(root), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "grpo_core", "train", "--config", str(config)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{settings['name']} failed: {done.stderr[-800:]}")


def settings_of(root: Path, case: Case, seed: int) -> dict[str, object]:
    settings = {**_EVERY_RUN, **case.settings, "name": f"{case.name}-{seed}", "seed": seed}
    return {**settings, "data": str(root / str(settings["data"]))} if settings.get("data") else settings


def find(root: Path, case: Case, seed: int) -> str | None:
    """The id of the finished run of this case and seed with these settings."""
    wanted = settings_of(root, case, seed)
    for folder in (root / "runs").glob("*"):
        try:
            config, status = (json.loads((folder / name).read_text()) for name in ("config.json", "status.json"))
        except (OSError, ValueError):
            continue
        if status.get("state") == "finished" and all(config.get(name) == value for name, value in wanted.items()):
            return folder.name
    return None


def judge(root: Path, case: Case, seed: int) -> Outcome:
    """Replay the run: the verdict of every step from that step and earlier ones alone."""
    run_id = find(root, case, seed)
    assert run_id, f"{case.name}-{seed} was not trained"
    run = recorded_history(Store(root), run_id)
    levels = level_at_every_step(run)
    alarms = np.flatnonzero(levels >= Level.UNHEALTHY)
    first = int(alarms[0]) if len(alarms) else None
    later = alarms[alarms >= first + SETTLED] if first is not None else alarms
    named = [causes_at(run, i) for i in (first, int(later[0]) if len(later) else int(alarms[-1]), len(run) - 1)] if first is not None else [(), (), ()]
    twin = next((other for other in CASES if other.name == case.twin), None)
    right = held_out(run)
    return Outcome(
        case=case,
        seed=seed,
        alarm=None if first is None else int(run.steps[first]),
        cause=named[0][0].name if named[0] else "",
        settled=named[1][0].name if named[1] else "",
        final=named[2][0].name if named[2] else "",
        lost=lost_at(run),
        watch_share=float(np.mean(levels == Level.WATCH)),
        steps=len(run),
        accuracy=(float(right[0]), float(right.max()), float(right[-1])),
        twin_accuracy=None if twin is None else float(held_out(recorded_history(Store(root), find(root, twin, seed) or ""))[-1]),
    )


def held_out(run: History) -> np.ndarray:
    """Held-out accuracy at every evaluation."""
    return run["eval_correct"][~np.isnan(run["eval_correct"])]


def lost_at(run: History) -> int | None:
    """Step of the first of two evaluations in a row with held-out accuracy below half of its gain; below half of its best where it never gained much."""
    best = start = first = None
    below = 0
    for step, right in zip(run.steps.tolist(), run["eval_correct"].tolist()):
        if right != right:
            continue
        start = right if start is None else start
        best = right if best is None else max(best, right)
        bound = (start + best) / 2 if best - start >= LEAST_GAIN else best / 2
        below = below + 1 if right < bound else 0
        first = step if below == 1 else first
        if below == 2:
            return first
    return None


def totals(outcomes: list[Outcome]) -> dict[str, float]:
    sick, well = [o for o in outcomes if o.case.cause and o.collapsed], [o for o in outcomes if not o.case.cause]
    spared = [o for o in outcomes if o.case.cause and not o.collapsed]
    caught = [o for o in sick if o.alarm is not None]
    lost = [o for o in caught if o.lead is not None]
    falling = [o for o in caught if o.least_lead is not None]
    share = lambda part, whole: len(part) / len(whole) if whole else float("nan")  # noqa: E731
    return {
        "collapsed runs": len(sick),
        "meant to collapse but unharmed": len(spared),
        "of them with an alarm": sum(o.alarm is not None for o in spared),
        "caught": share(caught, sick),
        "right cause at the alarm": share([o for o in caught if o.cause == o.case.cause], caught),
        f"right cause {SETTLED} steps later": share([o for o in caught if o.settled == o.case.cause], caught),
        "right cause at the end": share([o for o in caught if o.final == o.case.cause], caught),
        "median lead, steps": median([o.least_lead for o in falling]),
        "median lead, share of the run": median([o.least_lead / o.steps for o in falling]),
        "median lead of runs lost before they ended, steps": median([o.lead for o in lost]),
        "healthy runs": len(well),
        "false alarms": sum(o.alarm is not None for o in well),
        "healthy steps on watch": float(np.mean([o.watch_share for o in well])) if well else float("nan"),
    }


def median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("nan")


def print_runs(outcomes: list[Outcome]) -> None:
    print(f"{'run':22} held-out start→best→end   alarm  cause at alarm → {SETTLED} steps later → at the end        lost at   lead")
    for o in outcomes:
        start, best, end = o.accuracy
        named = " → ".join(cause or "-" for cause in (o.cause, o.settled, o.final))
        said = ("no alarm" if o.collapsed else "no alarm, no harm") if o.alarm is None else f"{o.alarm:5}  {named}"
        right = "" if o.alarm is None else " ✓" if o.case.cause == o.final else " ✗"
        lead = f"{o.lead:+d}" if o.lead is not None else "" if o.least_lead is None else f"≥{o.least_lead:d}"
        print(
            f"{o.case.name + '-' + str(o.seed):22} {start:.2f} → {best:.2f} → {end:.2f}       {said + right:57} "
            f"{'-' if o.lost is None else o.lost:>7} {lead:>6}"
        )


def write_sums(path: Path, count: int = 4000) -> None:
    """The built-in task's sums as a dataset: prompt, answer, worked answer."""
    _write_rows(path, ({"prompt": f"{a}+{b}=", "answer": str(a + b), "worked": worked_answer(a, b)} for a, b in some_pairs(count)))


def write_digits(path: Path, count: int = 4000) -> None:
    """The same prompts, answered with the larger of the two units digits: ten answers, none right for more than a fifth of the prompts."""
    larger = ((a, b, str(max(a % 10, b % 10))) for a, b in some_pairs(count))
    _write_rows(path, ({"prompt": f"{a}+{b}=", "answer": digit, "worked": digit} for a, b, digit in larger))


def some_pairs(count: int) -> list[tuple[int, int]]:
    pairs = [(a, b) for a in range(100) for b in range(100)]
    random.Random(0).shuffle(pairs)
    return pairs[:count]


def _write_rows(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    if not path.exists():
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

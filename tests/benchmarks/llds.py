"""Does LLDS earn its place? The collapse-prone setting with and without its penalty, over seeds: accuracy and likelihood of gold answers.

Run: python -m grpo_core bench llds [--seeds 0,1,2,3,4] [--jobs 2] [--store FOLDER]
"""

from __future__ import annotations

import statistics

import numpy as np

from grpo_core import study
from grpo_core.watch.reading import recorded_history
from storage.reader import Store
from tests.benchmarks.diagnosis import STEPS, Case, find, suite_store, train_missing

OVERDRIVEN = {"epochs": 4, "lr": 1e-3, "lr_warmup": 160}
"""Four passes per batch and a learning rate that rises to 1e-3 over the first 40 steps: GRPO loses what it learns."""


def _with(coefficient: float) -> Case:
    llds = {"method": "grpo_llds", "llds_coef": coefficient} if coefficient else {}
    return Case(name=f"llds_{coefficient:g}", cause="", means=f"λ = {coefficient:g}" if coefficient else "GRPO", settings={**OVERDRIVEN, **llds})


CASES = tuple(_with(coefficient) for coefficient in (0.0, 0.2, 1.0, 3.0))


def main(*, seeds: object = "0,1,2,3,4", jobs: int = 2, store: str = "") -> dict[str, float]:
    """Train what is missing and print one line per λ; returns the mean final held-out accuracy of each."""
    root, numbers = suite_store(store), [int(seed) for seed in str(seeds).split(",")]
    train_missing(root, [(case, seed) for case in CASES for seed in numbers], jobs)
    print(f"{STEPS} steps, seeds {numbers}; mean ± standard deviation over seeds, [each seed]")
    figures = {}
    for case in CASES:
        runs = [recorded_history(Store(root), find(root, case, seed) or "") for seed in numbers]
        right, best, gold = (
            [ending(run, column, pick) for run in runs] for column, pick in (("eval_correct", "last"), ("eval_correct", "best"), ("probe_logp", "last"))
        )
        figures[case.means] = statistics.mean(right)
        print(f"{case.means:9} held-out at the end {spread(right)}, at best {spread(best)}; gold answers {spread(gold)} nats/token")
    return figures


def ending(run, column: str, pick: str) -> float:
    known = run[column][~np.isnan(run[column])]
    return float(known.max() if pick == "best" else known[-2:].mean())


def spread(values: list[float]) -> str:
    return f"{study.spread(values)} [{', '.join(f'{v:.2f}' for v in values)}]"

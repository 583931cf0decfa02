"""What the presets do over several seeds: final held-out accuracy and log-prob of the gold answers, one line per run.

Run: python -m tests.benchmarks.presets --seeds 3 [--jobs 2] [--presets healthy,collapse,llds]
"""

from __future__ import annotations

import argparse
import math
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from grpo_core.config import make_config
from grpo_core.launch.folder import default_store
from grpo_core.presets import PRESETS


def one_run(settings: dict, cache: str) -> list[tuple[int, float, float, float]]:
    """(step, mean reward, held-out accuracy, gold log-prob) at every evaluation of a run in this process."""
    from grpo_core.trainer.loop import train

    seen: list[tuple[int, float, float, float]] = []

    def record(trace) -> None:
        if trace.evaluation:
            totals = [r.reward.total for g in trace.groups for r in g.rollouts]
            seen.append((trace.step, sum(totals) / len(totals), trace.evaluation.correct, trace.evaluation.gold_logp))

    with TemporaryDirectory() as folder:
        train(
            make_config(settings), cache_dir=Path(cache), checkpoint_dir=Path(folder), record=record, flush=lambda: None, on_start=lambda start: None,
            progress=lambda *_: None, should_stop=lambda: False,
        )
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--presets", default=",".join(PRESETS))
    parser.add_argument("--cache", default=str(default_store() / "cache"))
    parser.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", help="override an option in every run")
    given = parser.parse_args()
    changes = dict(item.split("=", 1) for item in given.set)
    names = [name for name in given.presets.split(",") for _ in range(given.seeds)]
    runs = [{**PRESETS[name].settings, **changes, "seed": i % given.seeds, "checkpoint_every": 0} for i, name in enumerate(names)]
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        results = pool.map(one_run, runs, [given.cache] * len(runs))
        print(f"{'preset':10} seed  held-out accuracy start → end (best)   gold log-prob start → end (worst)   reward start → end")
        for name, run, curve in zip(names, runs, results, strict=True):
            first, last = curve[0], curve[-1]
            worst = min((gold for *_, gold in curve), default=math.nan)
            print(
                f"{name:10} {run['seed']:4}  {first[2]:.3f} → {last[2]:.3f} ({max(c[2] for c in curve):.3f})".ljust(55)
                + f"{first[3]:.1f} → {last[3]:.1f} ({worst:.1f})".ljust(36)
                + f"{first[1]:.2f} → {last[1]:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

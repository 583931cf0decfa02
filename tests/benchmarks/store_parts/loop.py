"""What recording takes from the step thread, and how much memory: large made-up steps here, a real trainer in `bench recorder`."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import numpy as np
import psutil
from tqdm import tqdm

from grpo_core.config import make_config
from grpo_core.launch.folder import default_store
from grpo_core.trace.recorder import Recorder
from tests.benchmarks.store_parts.steps import Maker, Shape, tokens_of


def measure(folder: Path, *, steps: int, every_s: float, training_steps: int, shape: Shape) -> dict[str, object]:
    """A fresh process per side makes the same steps at the same pace, one hands them over; then the trainer of the demo, both sides in turn."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as fresh:
        off, on = (fresh.apply(_paced, (run_dir, steps, every_s, shape)) for run_dir in (None, folder / "recorded"))
    return {"handing_over": _compared(off, on, every_s, steps)} | ({"training": _training(folder / "trained", training_steps)} if training_steps else {})


def report(figures: dict[str, object]) -> None:
    """Print the share of time and the memory."""
    f = figures["handing_over"]
    print(f"loop: {f['steps']} steps of {f['tokens_per_step']:,.0f} tokens, one per {f['every_s']:g} s")
    print(f"  record() on the step thread: p50 {f['record_p50_us']:.0f} µs, p95 {f['record_p95_us']:.0f} µs, {f['share']:.4%} of its time")
    print(
        f"  memory at its peak: {f['rss_mib']:+.0f} MiB in the training process, {f['beside_mib']:.0f} MiB in the one beside it; {f['missing']} steps missing"
    )
    if "training" in figures:
        t = figures["training"]
        interval = f"95 % interval {100 * (t['ratio_low'] - 1):+.1f} to {100 * (t['ratio_high'] - 1):+.1f} %"
        print(f"  training the demo's model, {t['steps']} steps a side (bench recorder): slower by {100 * (t['ratio'] - 1):+.1f} % ({interval})")


def _paced(run_dir: Path | None, steps: int, every_s: float, shape: Shape) -> dict[str, object]:
    """Make steps at a pace, hand them over if there is where to, and say what that took."""
    maker, process = Maker(shape), psutil.Process()
    recorder = Recorder(run_dir) if run_dir else None
    record_s, rss, beside, tokens = [], [], [0], 0
    for trace in tqdm(maker.steps(steps), total=steps, desc=f"loop: {'with' if recorder else 'without'} recorder", leave=False):
        tokens += tokens_of(trace.groups)
        time.sleep(every_s)
        handing_over = time.perf_counter()
        if recorder:
            recorder.record(trace)
        record_s.append(time.perf_counter() - handing_over)
        rss.append(process.memory_info().rss)
        beside.append(sum(_rss(child) for child in process.children()))
    if recorder:
        recorder.flush(60)
        rss.append(process.memory_info().rss)
        beside.append(sum(_rss(child) for child in process.children()))
        recorder.close(seal=False)
    return {"record_s": record_s, "rss": max(rss), "beside": max(beside), "tokens": tokens, "missing": recorder.missing if recorder else 0}


def _rss(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def _compared(off: dict, on: dict, every_s: float, steps: int) -> dict[str, float]:
    record_s = np.array(on["record_s"])
    return {
        "steps": steps,
        "tokens_per_step": on["tokens"] / steps,
        "every_s": every_s,
        "record_p50_us": 1e6 * float(np.median(record_s)),
        "record_p95_us": 1e6 * float(np.quantile(record_s, 0.95)),
        "share": float(record_s.mean() / (every_s + record_s.mean())),
        "rss_mib": (on["rss"] - off["rss"]) / 2**20,
        "beside_mib": on["beside"] / 2**20,
        "missing": on["missing"],
    }


def _training(run_dir: Path, steps: int) -> dict[str, float]:
    from tests.benchmarks import recorder  # torch: not for the processes above

    figures = recorder.measure(make_config({"steps": steps}), run_dir, cache_dir=default_store() / "cache", warm_up=min(3, steps - 1))
    return {"steps": steps} | {name: figures[name] for name in ("ratio", "ratio_low", "ratio_high", "off_ms", "on_ms")}

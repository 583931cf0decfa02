"""What recording costs: the demo run with every rollout and token recorded beside the same run with recording off.

Two identical trainers alternate step by step in one process, so that a machine that slows down slows both, and both do the
same work on the same numbers; every few steps they change sides, because one of two equal trainers is often 1 or 2 % faster
than the other, by where its memory lies. A step's trace is handed over where a run hands it over, right before the next step of its own
side, so that writing it in the background slows down that step and not one of the other side. The recorder writes when its
own side has trained for as long as in a run it would wait, and what is still being written or merged at the end of a step
is waited for inside the timed window. Sealing when the run ends is timed by itself and added for the run as a whole. The process
beside the recorder, on a core that training leaves free, shows up as far as it slows the steps; its CPU seconds are printed too.
Run: python -m grpo_core bench recorder
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from grpo_core.config import RunConfig, make_config
from grpo_core.launch.folder import default_store
from grpo_core.records import StepTrace
from grpo_core.trace.recorder import TOGETHER_S, Recorder
from grpo_core.trainer.state import TrainState, build_state
from grpo_core.trainer.step import run_step
from tests.benchmarks.machine import machine_line

TARGET_PERCENT = 3.0
SWAP_EVERY = 8
"""Steps after which the trainers change sides."""
WINDOW = 2 * SWAP_EVERY
"""Paired steps whose times are added up before they are compared: each trainer is on each side, and several times steps are written together."""
NEVER_S = 1e6


@dataclass(slots=True)
class Side:
    """The wall and CPU seconds of one side's steps; CPU is the whole process's, background thread included."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    last: StepTrace | None = None
    unwritten_s: float = 0.0

    def step(self, state: TrainState, recorder: Recorder | None) -> None:
        """One timed step; with a recorder, the step before is handed over, and from time to time written, inside the timed window."""
        wall, cpu = time.perf_counter(), time.process_time()
        write = recorder and self.unwritten_s >= TOGETHER_S
        if recorder and self.last:
            recorder.record(self.last)
        if write:
            recorder.flush(0)
        self.last = run_step(state, len(self.wall_s))
        if write:
            recorder.flush(60)  # nothing but waiting, and nearly always over before
            self.unwritten_s = 0.0
        self.unwritten_s += time.perf_counter() - wall
        self.wall_s.append(time.perf_counter() - wall)
        self.cpu_s.append(time.process_time() - cpu)


def main(*, steps: int = 300, warm_up: int = 3, **settings: object) -> dict[str, float]:
    """Print the cost of recording over `steps` steps of each side and return the figures. `settings` change the demo config."""
    config = make_config({"steps": steps, **settings})
    torch.set_num_threads(max(config.threads, 1))
    store = default_store()
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=store) as folder:
        figures = measure(config, Path(folder), cache_dir=store / "cache", warm_up=warm_up)
    report(config, figures)
    return figures


def measure(config: RunConfig, run_dir: Path, *, cache_dir: Path, warm_up: int) -> dict[str, float]:
    """Alternate the two sides for `config.steps` steps each; the first `warm_up` steps are not counted."""
    trainers = [build_state(config, cache_dir=cache_dir, progress=lambda *_: None) for _ in range(2)]
    off, on = Side(), Side()
    children_s = _children_cpu_s()
    recorder = Recorder(run_dir, precision=config.precision, queue_steps=config.queue_steps, together_s=NEVER_S)  # Side.step says when
    tokens = 0
    for step in range(config.steps):
        for side in (off, on) if step % 2 else (on, off):  # neither side always follows the other
            side.step(trainers[(side is on) ^ (step // SWAP_EVERY % 2)], recorder if side is on else None)
        tokens += sum(len(r.completion.token_ids) for g in on.last.groups for r in g.rollouts)
    assert on.last.groups[0].rollouts[0].completion.text == off.last.groups[0].rollouts[0].completion.text, "the two sides diverged"
    recorder.record(on.last)
    recorder.flush(60)
    live_bytes = _size(run_dir)
    began = time.perf_counter()
    recorder.close(seal=True)
    close_s = time.perf_counter() - began
    assert recorder.missing == 0 and recorder.failure is None, recorder.failure
    return _figures(np.array(off.wall_s[warm_up:]), np.array(on.wall_s[warm_up:]), off, on, warm_up) | {
        "close_s": close_s,
        "beside_cpu_ms": 1e3 * (_children_cpu_s() - children_s) / config.steps,
        "tokens": tokens,
        "bytes_per_token_live": live_bytes / tokens,
        "bytes_per_token_sealed": _size(run_dir) / tokens,
    }


def _figures(off_s: np.ndarray, on_s: np.ndarray, off: Side, on: Side, warm_up: int) -> dict[str, float]:
    off_W, on_W = (_windows(side) for side in (off_s, on_s))
    picked = np.random.default_rng(0).integers(0, len(off_W), (2000, len(off_W)))
    low, high = np.quantile(on_W[picked].sum(1) / off_W[picked].sum(1), [0.025, 0.975])
    return {
        "off_ms": 1e3 * float(off_s.mean()),
        "on_ms": 1e3 * float(on_s.mean()),
        "ratio": float(on_W.sum() / off_W.sum()),
        "ratio_low": float(low),
        "ratio_high": float(high),
        "median_ratio": float(np.median(on_W / off_W)),
        "off_total_s": float(off_s.sum()),
        "off_cpu_ms": 1e3 * statistics.mean(off.cpu_s[warm_up:]),
        "on_cpu_ms": 1e3 * statistics.mean(on.cpu_s[warm_up:]),
    }


def _windows(seconds: np.ndarray) -> np.ndarray:
    """Sums of WINDOW steps in a row, what is left over in the last one."""
    return np.add.reduceat(seconds, np.arange(0, max(len(seconds) - WINDOW, 0) + 1, WINDOW))


def report(config: RunConfig, figures: dict[str, float]) -> None:
    """Print a small table and whether the target is met."""
    f = figures
    print(machine_line("torch", "pyarrow", "duckdb", threads=config.threads))
    print(
        f"{config.title}: {config.steps} steps of {config.prompts_per_step} x {config.group_size} rollouts, {f['tokens'] / config.steps:.0f} tokens each; "
        f"precision {config.precision}\n"
    )
    print(f"{'per step':>14} {'mean ms':>10} {'CPU ms':>8}")
    print(f"{'recording off':>14} {f['off_ms']:10.1f} {f['off_cpu_ms']:8.1f}")
    print(f"{'recording on':>14} {f['on_ms']:10.1f} {f['on_cpu_ms']:8.1f} and {f['beside_cpu_ms']:.1f} in the process beside it")
    interval = f"95 % interval {_percent(f['ratio_low'])} to {_percent(f['ratio_high'])}"
    print(f"\nslower by {_percent(f['ratio'])} over all steps, merges while training included ({interval})")
    print(f"slower by {_percent(f['median_ratio'])} in the median window of {WINDOW} steps")
    whole = f["ratio"] + f["close_s"] / f["off_total_s"]
    print(f"slower by {_percent(whole)} for the whole run, with {f['close_s']:.2f} s to write the rest, merge and seal it at its end")
    print(f"on disk {f['bytes_per_token_live']:.1f} bytes per token live, {f['bytes_per_token_sealed']:.1f} sealed, everything included")
    print(f"target: at most {TARGET_PERCENT:g} % slower per step: {'met' if 100 * (f['ratio'] - 1) <= TARGET_PERCENT else 'MISSED'}")


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"


def _children_cpu_s() -> float:
    """CPU seconds of processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

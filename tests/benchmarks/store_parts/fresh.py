"""How soon a committed step is seen: several writing processes at once, and readers that look at every run as pages do.

A page asks for the newest step, from file names alone, and reads the rows of those it does not know.
"""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Empty

import numpy as np
from tqdm import tqdm

from grpo_core.trace.tables import to_tables
from storage.queries.runs import last_step
from storage.queries.steps import step_series
from storage.reader import Store
from storage.segments import RunWriter
from tests.benchmarks.store_parts.steps import Maker, Shape, renumbered

DISTINCT = 4
POLL_S = 0.1
"""A reader's pause between two looks at all runs."""
PATIENCE_S = 120.0


def measure(folder: Path, *, steps: int, every_s: float, shape: Shape, writers: int, readers: int) -> dict[str, float]:
    """Each writer commits `steps` steps, one per `every_s` s; each reader notes when its query first returns each of them."""
    processes = multiprocessing.get_context("spawn")
    commits, sights = processes.Queue(), processes.Queue()
    start = processes.Barrier(writers + readers)
    ids = [f"writer-{n}" for n in range(writers)]
    started = [_start(processes, _write, folder, run_id, start, commits, steps, every_s, shape, n, n / writers) for n, run_id in enumerate(ids)]
    started += [_start(processes, _poll, folder, ids, start, sights, steps) for _ in range(readers)]
    try:
        committed = dict(_gathered(commits, writers * steps, "fresh: steps committed"))
        seen = _gathered(sights, readers * writers * steps, "fresh: steps seen")
        for process in started:
            process.join(PATIENCE_S)
    finally:
        for process in started:
            process.kill()
    wait_ms = 1e3 * np.array([at - committed[step][0] for step, (at, _) in seen])
    query_ms = 1e3 * np.array([took for _, (_, took) in seen])
    append_ms = 1e3 * np.array([took for _, took in committed.values()])
    quantiles = {
        f"{name}_p{p}_ms": float(np.percentile(values, p)) for name, values in (("seen", wait_ms), ("query", query_ms), ("commit", append_ms)) for p in (50, 95)
    }
    return {"writers": writers, "readers": readers, "steps": len(committed), "seen": len(seen), "every_s": every_s, "poll_s": POLL_S} | quantiles


def report(figures: dict[str, float]) -> None:
    """Print one line per figure."""
    f = figures
    print(f"fresh: {f['writers']} writing processes at once, a step each per {f['every_s']:g} s")
    print(f"  {f['readers']} reading processes look at every run in turn as a page does, {f['poll_s']:g} s between rounds")
    print(f"  committed → returned by a query: p50 {f['seen_p50_ms']:.0f} ms, p95 {f['seen_p95_ms']:.0f} ms")
    print(f"  {f['steps']} steps, each seen by every reader ({f['seen']} sights)")
    print(f"  of that the query that returned it: p50 {f['query_p50_ms']:.0f} ms, p95 {f['query_p95_ms']:.0f} ms")
    print(f"  append_step until committed: p50 {f['commit_p50_ms']:.0f} ms, p95 {f['commit_p95_ms']:.0f} ms")


def _start(processes: SpawnContext, work: object, *arguments: object) -> SpawnProcess:
    process = processes.Process(target=work, args=arguments, daemon=True)
    process.start()
    return process


def _write(
    folder: Path, run_id: str, start: Barrier, commits: multiprocessing.Queue, steps: int, every_s: float, shape: Shape, seed: int, after: float
) -> None:
    tables = [to_tables(step) for step in Maker(shape, seed).steps(DISTINCT)]
    with RunWriter.open(folder / "runs" / run_id) as writer:
        start.wait(PATIENCE_S)
        begins = time.time() + every_s * after
        for step in range(steps):
            time.sleep(max(0.0, begins + step * every_s - time.time()))
            began = time.time()
            writer.append_step(renumbered(tables[step % DISTINCT], step))
            commits.put(((run_id, step), (time.time(), time.time() - began)))


def _poll(folder: Path, run_ids: list[str], start: Barrier, sights: multiprocessing.Queue, steps: int) -> None:
    store, newest = Store(folder), dict.fromkeys(run_ids, -1)
    start.wait(PATIENCE_S)
    while min(newest.values()) < steps - 1:
        for run_id in run_ids:
            began = time.time()
            last = last_step(store, run_id)
            found = step_series(store, run_id, newest[run_id])["step"].tolist() if last is not None and last > newest[run_id] else []
            at = time.time()
            for step in found:
                sights.put(((run_id, step), (at, at - began)))
                newest[run_id] = step
        time.sleep(POLL_S)


def _gathered(queue: multiprocessing.Queue, count: int, what: str) -> list:
    """`count` things from a queue. Raises RuntimeError if the next one does not come."""
    try:
        return [queue.get(timeout=PATIENCE_S) for _ in tqdm(range(count), desc=what, leave=False)]
    except Empty:
        raise RuntimeError(f"{what}: nothing more came for {PATIENCE_S:g} s; a writer or reader has ended") from None

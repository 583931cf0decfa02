"""A long run of small steps through the real recorder, merged beside it: exact counts, flat memory, bounded files, at the end as at the beginning.

Every step is a segment of its own, the most files that a run can have. All files lie in a folder beside the runs and are gone afterwards.
Run: python -m grpo_core bench soak --steps 10000
"""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import psutil
from tqdm import tqdm

from grpo_core.errors import ConfigError
from grpo_core.launch.folder import default_store
from grpo_core.trace.recorder import COMPACT_EVERY, Recorder
from storage.compaction import BLOCK, FAN_IN, GRACE_S, SINCE_DELAY_S, remove_covered
from storage.layout import DATABASE, list_segments
from storage.reader import Store
from storage.schema import TABLES
from tests.benchmarks.machine import machine_line
from tests.trace.worked import step_trace

RUN = "soak"
GROUPS, SIZE = 2, 4
COUNTS = """select (select count(*) from steps) as steps, (select count(*) from groups) as groups, count(*) as rollouts, count(distinct step) as different,
 min(step) as first, max(step) as last, sum(length)::bigint as tokens, (select sum(missing_before)::bigint from steps) as missing from rollouts"""


@dataclass(frozen=True, slots=True)
class Look:
    """What both processes hold and how many files a table has after so many steps; `step_ms` is the median since the look before."""

    steps: int
    rss_mib: float
    beside_mib: float
    files: int
    descriptors: int
    beside_descriptors: int
    step_ms: float


def main(*, steps: int = 10_000, every: int = 1000) -> dict[str, object]:
    """Print a line every so many steps, the slopes and the counts, and return them; raises SystemExit if a count is wrong."""
    for name, value in (("steps", steps), ("every", every)):
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name}: input should be a whole number of at least 1, got {value!r}")
    print(machine_line("pyarrow", "duckdb", "numpy"))
    store = default_store()
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=store) as folder:
        figures = measure(Path(folder), steps=steps, every=every)
    report(figures)
    if figures["wrong"]:
        raise SystemExit(1)
    return figures


def measure(root: Path, *, steps: int, every: int) -> dict[str, object]:
    """Record `steps` steps, look every `every`, and count them live and sealed, with the store and with plain DuckDB."""
    run_dir = root / "runs" / RUN
    recorder = Recorder(run_dir, queue_steps=2 * COMPACT_EVERY, together_s=0.0)
    looks, tokens, most_files, took = [], 0, 0, []
    for step in tqdm(range(steps), desc="soak", unit="step"):
        trace = step_trace(step, groups=GROUPS, size=SIZE)
        tokens += sum(len(r.completion.token_ids) for g in trace.groups for r in g.rollouts)
        began = time.perf_counter()
        recorder.record(trace)
        recorder.flush(600)  # a step at a time, or the queue would fill and steps be dropped
        took.append(time.perf_counter() - began)
        most_files = max(most_files, _files(run_dir)) if step % 16 == 0 else most_files
        if (step + 1) % every == 0:
            looks.append(_look(step + 1, run_dir, took))
            took = []
    want = dict(steps=steps, groups=GROUPS * steps, rollouts=GROUPS * SIZE * steps, different=steps, first=0, last=steps - 1, tokens=tokens, missing=0)
    recorder.close(seal=False)
    counted = {"live": _counts(root), "live, plain DuckDB": _plain_counts(run_dir)}
    time.sleep(SINCE_DELAY_S + GRACE_S)
    remove_covered(run_dir)
    settled = _files(run_dir)
    from storage.segments import seal

    seal(run_dir)
    counted |= {"sealed": _counts(root), "sealed, plain DuckDB": _plain_counts(run_dir)}
    return {
        "looks": looks,
        "want": want,
        "wrong": {where: found for where, found in counted.items() if found != want} | ({"failure": recorder.failure} if recorder.failure else {}),
        "most_files": most_files,
        "settled_files": settled,
        "bound": bound(steps),
        "slope": {name: _slope(looks, name) for name in ("rss_mib", "beside_mib", "files", "descriptors", "beside_descriptors")},
    }


def bound(steps: int) -> int:
    """Segments of a table at most, once covered ones are gone: fewer than 64 of a step each, and of every size of merge fewer than go into the next."""
    sizes = 1 + max(0, math.floor(math.log(max(steps / BLOCK, 1), FAN_IN)))
    return BLOCK - 1 + COMPACT_EVERY + sizes * (FAN_IN - 1)


def report(figures: dict[str, object]) -> None:
    """Print what was seen and what it comes to."""
    print("\n| steps | recorder MiB | beside MiB | files of a table | descriptors | beside | ms per step |\n|---|---|---|---|---|---|---|")
    for look in figures["looks"]:
        cells = f"{look.rss_mib:.0f} | {look.beside_mib:.0f} | {look.files} | {look.descriptors} | {look.beside_descriptors} | {look.step_ms:.1f}"
        print(f"| {look.steps:,} | {cells} |")
    slope = figures["slope"]
    print(f"\nper 1,000 steps, second half: recorder {slope['rss_mib']:+.2f} MiB, process beside {slope['beside_mib']:+.2f} MiB", end=", ")
    print(f"descriptors {slope['descriptors']:+.2f} and {slope['beside_descriptors']:+.2f}")
    print(f"files of a table: {figures['most_files']} at most, {figures['settled_files']} once covered ones are gone; the bound is {figures['bound']}")
    print(f"counted live and sealed, by the store and by plain DuckDB: {figures['want']}")
    for where, found in figures["wrong"].items():
        print(f"WRONG, {where}: {found}")


def _look(steps: int, run_dir: Path, took: list[float]) -> Look:
    here = psutil.Process()
    beside = [child for child in here.children() if any("encoder" in part for part in child.cmdline())]
    return Look(
        steps=steps,
        rss_mib=here.memory_info().rss / 2**20,
        beside_mib=sum(child.memory_info().rss for child in beside) / 2**20,
        files=_files(run_dir),
        descriptors=here.num_fds(),
        beside_descriptors=sum(child.num_fds() for child in beside),
        step_ms=1e3 * float(np.median(took)),
    )


def _files(run_dir: Path) -> int:
    return max(len(list_segments(run_dir / table)) for table in TABLES)


def _slope(looks: list[Look], name: str) -> float:
    """Per 1,000 steps over the second half, when everything has been loaded and every buffer been filled; 0 of fewer than two looks."""
    half = looks[len(looks) // 2 :]
    if len(half) < 2:
        return 0.0
    return 1e3 * float(np.polyfit([look.steps for look in half], [getattr(look, name) for look in half], 1)[0])


def _counts(root: Path) -> dict[str, int]:
    store = Store(root)
    assert (found := store.damaged(RUN)) == [], found
    return {name: int(value) for name, value in store.frame(RUN, COUNTS).iloc[0].items()}


def _plain_counts(run_dir: Path) -> dict[str, int]:
    with duckdb.connect(str(run_dir / DATABASE), read_only=True) as database:
        return {name: int(value) for name, value in database.sql(COUNTS).df().iloc[0].items()}

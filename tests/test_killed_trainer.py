"""kill -9 of the whole trainer at 20 random moments, resumed each time: every step that was seen stays, whole, in the store or set aside."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import duckdb
import pytest

from grpo_core.config import make_config
from grpo_core.launch.folder import RunFolder
from grpo_core.launch.start import create_run, prepare_resume
from grpo_core.launch.status import run_status
from storage.layout import list_segments
from storage.reader import Store

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(1200)]

KILLS = 20
CONFIG = dict(
    steps=100_000, warmup_steps=3, prompts_per_step=2, group_size=2, max_new_tokens=8, eval_every=0, checkpoint_every=2, device="cpu", queue_steps=10_000,
    diagnose_every=0,  # 20 desks that outlive their trainers would have the machine to themselves
)  # fmt: skip
ROWS = "select step, count(*) from rollouts group by step order by step"


def train(store_root: Path, run_id: str) -> None:
    from grpo_core.running import run_training

    folder = RunFolder.open(store_root, run_id)
    run_training(folder, folder.read_config(), bar=False)


def committed(store: Store, run_id: str) -> list[int]:
    """Steps whose rollouts are all there; a step that is there in part fails the test."""
    rows = store.frame(run_id, ROWS).values.tolist()
    assert all(count == 4 for _, count in rows), rows
    return [int(step) for step, _ in rows]


def set_aside(folder: RunFolder) -> set[int]:
    kept = [segments / "steps" for segments in (folder.path / "superseded").glob("[0-9]*")]
    return {step for segments in kept for s in list_segments(segments) for step in range(s.first, s.last + 1)}


def test_twenty_kills_and_resumes_lose_nothing(processes, store_root: Path) -> None:
    folder = create_run(store_root, make_config(CONFIG))
    store, chance = Store(store_root), random.Random(4)
    seen_ever: set[int] = set()
    for kill in range(KILLS):
        if kill:
            prepare_resume(folder)
        child = processes.Process(target=train, args=(store_root, folder.run_id))
        child.start()
        newest = _wait_for_steps(child, folder, store, more=chance.randint(1, 4), checkpoint=kill == 0)
        time.sleep(chance.uniform(0, 0.15))
        os.kill(child.pid, signal.SIGKILL)
        child.join()

        steps = committed(Store(store_root), folder.run_id)
        assert steps == list(range(len(steps))) and steps[-1] >= newest, "a step that was seen is gone, or there is a gap"
        with duckdb.connect(str(folder.path / "run.duckdb"), read_only=True) as plain:
            assert [step for step, _ in plain.execute(ROWS).fetchall()] == steps
        seen_ever |= set(steps)
        assert seen_ever <= set(steps) | set_aside(folder)
        assert run_status(store_root, folder.run_id).state == "lost"
    assert len(seen_ever) > KILLS


def _wait_for_steps(child, folder: RunFolder, store: Store, *, more: int, checkpoint: bool) -> int:
    """Until this child has committed so many steps (and the first checkpoint is there, where one is needed to resume); the newest step."""
    deadline = time.monotonic() + 120
    first, newest = None, -1
    while first is None or newest < first + more or (checkpoint and not list(folder.checkpoints.glob("step-*"))):
        assert child.is_alive() and time.monotonic() < deadline, f"the trainer did not come that far: {run_status(folder.store_root, folder.run_id)}"
        status = run_status(folder.store_root, folder.run_id)
        if status.phase == "training" or status.step > (first or 0):
            last = store.last_step(folder.run_id)
            newest = -1 if last is None else last
            first = newest if first is None else first
        time.sleep(0.02)
    return newest

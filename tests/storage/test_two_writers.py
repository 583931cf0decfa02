"""Several processes that want to write one run: one has it, the others are told, and whoever comes next finds every step of those before."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import duckdb
import pytest

from storage.errors import RunLocked
from storage.reader import Store
from storage.segments import RunWriter, seal
from tests.factories import make_step_tables
from tests.storage import victims
from tests.storage.test_kills import said

ADVANTAGES = "select step, list(token_ids::varchar order by rollout_index) from rollouts group by step order by step"


def written_by(step: int, seed: int) -> list[str]:
    """The rollouts of a step by this writer."""
    rollouts = make_step_tables(step, groups=1, group_size=2, tokens=3, seed=seed)["rollouts"]
    return [f"[{', '.join(map(str, ids))}]" for ids in rollouts["token_ids"].to_pylist()]


def check(root: Path, log: Path) -> int:
    """Every step that anyone committed is there, once, as that one wrote it, for the store and for plain DuckDB; at most one more. Returns how many."""
    committed = {step: int(seed) for seed, step in said(log)}
    assert len(committed) == len(said(log)), "two writers committed the same step"
    with duckdb.connect(str(root / "runs" / "r1" / "run.duckdb"), read_only=True) as plain:
        rows = plain.execute(ADVANTAGES).fetchall()
    by_store = Store(root).read("r1", lambda database: database.execute(ADVANTAGES).fetchall())
    assert rows == by_store and [step for step, _ in rows] == list(range(len(rows))) and len(committed) <= len(rows) <= len(committed) + 1
    for step, rollouts in rows:
        assert step not in committed or rollouts == written_by(step, committed[step])
    return len(rows)


def started(processes, victim, run_dir: Path, log: Path, seed: int):
    process = processes.Process(target=victim, args=(run_dir, log, seed))
    process.start()
    return process


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_second_is_told_and_takes_over_when_the_first_is_gone(processes, run_dir, tmp_path, end):
    log = tmp_path / "log"
    first = started(processes, victims.hold, run_dir, log, 1)
    while not said(log):
        time.sleep(0.01)
    for signalled in (signal.SIGSTOP, signal.SIGCONT):  # one that hangs has the run too
        with pytest.raises(RunLocked, match="run r1 is being written by another process; stop that one first"):
            RunWriter.open(run_dir)
        with pytest.raises(RunLocked):
            seal(run_dir)
        os.kill(first.pid, signalled)
    os.kill(first.pid, end)
    first.join()
    second = started(processes, victims.hold, run_dir, log, 2)  # the other order
    while len(said(log)) < 2:
        assert second.is_alive()
        time.sleep(0.01)
    with pytest.raises(RunLocked):
        RunWriter.open(run_dir)
    second.kill()
    second.join()
    assert said(log) == [("1", 0), ("2", 1)] and check(tmp_path, log) == 2


def test_three_writers_that_take_turns_and_are_killed_lose_and_double_nothing(processes, run_dir, tmp_path):
    log, chance = tmp_path / "log", random.Random(0)
    writers = {seed: started(processes, victims.take_turns, run_dir, log, seed) for seed in (1, 2, 3)}
    try:
        for turn in range(9):
            before = len(said(log))
            more = chance.randint(2, 5)
            while len(said(log)) < before + more:
                assert all(writer.is_alive() for writer in writers.values()), "a writer died by itself"
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.05))
            seed = chance.choice(list(writers))
            assert writers[seed].is_alive(), "a writer died by itself"
            writers.pop(seed).kill()
            writers[10 + turn] = started(processes, victims.take_turns, run_dir, log, 10 + turn)
    finally:
        for process in writers.values():
            process.kill()
            process.join()
    # a step that was whole when its writer was killed has no name in the log: the next one counted on from it
    named = {step for _, step in said(log)}
    steps = Store(tmp_path).frame("r1", "select step, count(*) as n from rollouts group by step order by step")
    assert steps.step.tolist() == list(range(len(steps))) and set(steps.n) == {2} and named <= set(steps.step) and len(steps) - len(named) <= 12
    with duckdb.connect(str(run_dir / "run.duckdb"), read_only=True) as plain:
        rows = dict(plain.execute(ADVANTAGES).fetchall())
    assert sorted(rows) == steps.step.tolist() and len({seed for seed, _ in said(log)}) >= 3
    for seed, step in said(log):
        assert rows[step] == written_by(step, int(seed)), "a step is not as its writer committed it"

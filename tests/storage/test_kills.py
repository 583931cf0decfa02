"""kill -9 at random moments of writing, merging, superseding, sealing and unsealing: every step that was acknowledged is there, once and whole."""

import os
import random
import signal
import time
from pathlib import Path

import duckdb
import pytest

from storage.layout import list_segments
from storage.queries.steps import step_series
from storage.reader import Store
from storage.schema import TABLES
from storage.segments import RunWriter, seal
from tests.factories import make_step_tables
from tests.storage import victims

SHAPE = {"steps": 1, "groups": 2, "rollouts": 8, "tokens": 122}
"""Rows of one factory step per table."""
COUNTS = " union all ".join(f"select '{table}' as part, step, count(*) as n from {table} group by step" for table in SHAPE)


def run_and_kill(processes, victim, run_dir: Path, log: Path, *more: float, words: int, delay_s: float) -> None:
    """Starts the victim, waits until it has said so many things and then a while, and kills it."""
    before = len(said(log))
    process = processes.Process(target=victim, args=(run_dir, log, *more))
    process.start()
    while len(said(log)) < before + words:
        assert process.is_alive(), "the writer died by itself"
        time.sleep(0.002)
    time.sleep(delay_s)
    assert process.is_alive(), "the writer died by itself"
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def said(log: Path) -> list[tuple[str, int]]:
    lines = log.read_text().splitlines() if log.exists() else []
    return [(what, int(step)) for what, step in (line.split() for line in lines)]


def seen_by_store(root: Path) -> dict[int, dict[str, int]]:
    store = Store(root)
    assert store.damaged("r1") == []
    return _by_step(store.frame("r1", COUNTS).values.tolist())


def seen_by_duckdb(path: Path) -> dict[int, dict[str, int]]:
    with duckdb.connect(str(path), read_only=True) as database:
        return _by_step(database.execute(COUNTS).fetchall())


def _by_step(rows: list) -> dict[int, dict[str, int]]:
    steps: dict[int, dict[str, int]] = {}
    for table, step, count in rows:
        steps.setdefault(int(step), {})[table] = int(count)
    return steps


def set_aside(run_dir: Path) -> set[int]:
    folders = [folder / "rollouts" for folder in (run_dir / "superseded").glob("[0-9]*")]
    return {step for folder in folders for s in list_segments(folder) for step in range(s.first, s.last + 1)}


@pytest.mark.parametrize("together", [1, 3])
def test_twenty_kills_while_writing(processes, run_dir, tmp_path, together):
    log, chance = tmp_path / "log", random.Random(0)
    for kill in range(20):
        cut = 3 if kill % 5 == 4 else 0
        # some while opening; of those that cut, every other one in the middle and every other one afterwards, however slow the disk is
        words = 0 if kill % 5 == 2 else 2 + kill % 2 if cut else chance.randint(1, 7)
        run_and_kill(processes, victims.write_forever, run_dir, log, cut, 0.1, together, words=words, delay_s=chance.uniform(0, 0.2))
        spoken = said(log)
        what, step = spoken[-1] if spoken else ("open", -1)
        for seen in (seen_by_store(tmp_path), seen_by_duckdb(run_dir / "run.duckdb")):
            assert sorted(seen) == list(range(len(seen))), "steps are missing or reappeared"
            assert all(rows == SHAPE for rows in seen.values()), f"a step is there in part or twice: {seen}"
            last = len(seen) - 1
            if what == "cutting":  # the cut may have happened or not, and nothing may be lost either way
                uncut = spoken[-2][1]
                assert step <= last <= uncut and set(range(last + 1, uncut + 1)) <= set_aside(run_dir)
            else:  # at most the steps in flight are more than what was said
                assert step <= last <= step + together
    assert max(step for _, step in spoken) >= 10
    assert set_aside(run_dir), "no cut was completed"


def test_kills_while_sealing_and_unsealing(processes, run_dir, tmp_path):
    log, chance = tmp_path / "log", random.Random(1)
    with RunWriter.open(run_dir) as writer:
        for step in range(12):
            writer.append_step(make_step_tables(step))
    committed = 11
    for _ in range(14):
        run_and_kill(processes, victims.seal_and_resume_forever, run_dir, log, words=chance.randint(1, 3), delay_s=chance.uniform(0, 0.3))
        committed = max([committed, *(step for what, step in said(log) if what == "step")])
        for seen in (seen_by_store(tmp_path), seen_by_duckdb(run_dir / "run.duckdb")):
            assert len(seen) in (committed + 1, committed + 2) and sorted(seen) == list(range(len(seen)))
            assert all(rows == SHAPE for rows in seen.values())
        committed = len(seen) - 1
    seal(run_dir)
    assert seen_by_store(tmp_path) == seen_by_duckdb(run_dir / "run.duckdb") == dict.fromkeys(range(committed + 1), SHAPE)
    assert not any((run_dir / table).exists() for table in TABLES) and not list(run_dir.glob(".tmp-*"))
    store = Store(tmp_path)
    assert len(step_series(store, "r1")) == committed + 1
    want = make_step_tables(7)["rollouts"]["advantage"].to_pylist()
    assert store.frame("r1", "select advantage from rollouts order by group_index, rollout_index", steps=(7, 7))["advantage"].tolist() == want


def test_plain_views_count_every_step_once_while_a_writer_merges(processes, run_dir, tmp_path):
    """One connection, many queries, merges every third step."""
    log = tmp_path / "log"
    process = processes.Process(target=victims.write_forever, args=(run_dir, log, 0, 5.0, 2))
    process.start()
    while not log.exists():
        time.sleep(0.01)
    try:
        with duckdb.connect(str(run_dir / "run.duckdb"), read_only=True) as database:
            newest, until = 0, time.monotonic() + 60
            while newest < 15 and time.monotonic() < until:
                rows, steps, last = database.execute("select count(*), count(distinct step), max(step) from rollouts").fetchone()
                assert rows == 8 * steps and steps == (0 if last is None else last + 1) and steps >= newest
                newest = steps
        assert newest >= 15
    finally:
        process.kill()
        process.join()

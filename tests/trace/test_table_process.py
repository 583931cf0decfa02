"""The real process: what it makes, and what becomes of a recorder whose process dies, hangs, or never starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grpo_core import beside
from grpo_core.trace.flat import flatten
from grpo_core.trace.table_process import TableProcess
from grpo_core.trace.tables import to_tables
from tests.trace.worked import EVALUATION, WORKED, A, B, step_trace, with_rollouts

PROJECT = Path(__file__).parents[2]
EMPTY = replace(A, completion=replace(A.completion, text="\ud800<b>", token_ids=np.empty(0, "i4")))
TRACES = (
    replace(WORKED, evaluation=EVALUATION),
    with_rollouts(replace(A, logp_ref=np.array([-9, -8], "f4"), gwhes=0.5), B),
    replace(WORKED, groups=(), updates=()),
    step_trace(3, groups=8, size=8, tokens=200),  # more than a pipe holds
)


@pytest.fixture
def process() -> Iterator[TableProcess]:
    with_patience = TableProcess(start_after=0, patience_s=5.0)
    yield with_patience
    with_patience.close()


def wait_until_up(process: TableProcess) -> None:
    until = time.monotonic() + 60
    while not process.up and time.monotonic() < until:
        process.tables(flatten(WORKED))
        time.sleep(0.02)
    assert process.up


def test_its_tables_are_those_made_here(process: TableProcess) -> None:
    wait_until_up(process)
    for trace in TRACES:
        made = process.tables(flatten(trace), missing_before=2)
        assert made == to_tables(trace, missing_before=2)
    assert process.up


@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("trace", [TRACES[0], TRACES[3]], ids=["small", "large"])
def test_a_process_that_dies_or_hangs_is_given_up_and_nothing_is_lost(process: TableProcess, deadly: signal.Signals, trace) -> None:
    wait_until_up(process)
    pid = process._process.pid
    os.kill(pid, deadly)
    for _ in range(2):
        assert process.tables(flatten(trace)) == to_tables(trace)
    assert not process.up and not Path(f"/proc/{pid}").exists()


def test_one_that_cannot_start_is_done_without(process: TableProcess, monkeypatch) -> None:
    monkeypatch.setattr(beside.sys, "executable", "/nowhere/python")
    for _ in range(2):
        assert process.tables(flatten(WORKED)) == to_tables(WORKED)


def test_one_that_ends_while_it_starts_is_done_without(process: TableProcess) -> None:
    process.tables(flatten(WORKED))
    os.kill(process._process.pid, signal.SIGKILL)
    process._process.wait()
    assert process.tables(flatten(WORKED)) == to_tables(WORKED) and process._process is None


def test_what_it_cannot_make_is_refused_here_in_the_same_words(process: TableProcess) -> None:
    wait_until_up(process)
    wrong = replace(flatten(WORKED), texts=["one text for many rollouts"])
    with pytest.raises(ValueError, match="length|expected"):
        process.tables(wrong)
    assert process.tables(flatten(WORKED)) == to_tables(WORKED)


def test_it_ends_with_a_trainer_that_is_killed() -> None:
    script = (
        "import time\nfrom grpo_core.trace.flat import flatten\nfrom grpo_core.trace.table_process import TableProcess\nfrom tests.trace.worked import WORKED\n"
        "process = TableProcess(start_after=0)\nwhile not process.up: process.tables(flatten(WORKED)); time.sleep(0.02)\n"
        "print(process._process.pid, flush=True)\ntime.sleep(60)"
    )
    trainer = subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    pid = int(trainer.stdout.readline())
    trainer.kill()
    trainer.communicate()
    until = time.monotonic() + 30
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

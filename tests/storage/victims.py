"""Processes that tests/storage/test_kills.py kills with SIGKILL; importable, so that a fork server can start them fast."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

from storage import compaction, retention, sealing
from storage.errors import RunLocked
from storage.segments import RunWriter, seal
from storage.thinning import retain
from tests.factories import make_step_tables


def small_and_hasty(grace_s: float = 0.1) -> None:
    """Merges and seals in small pieces, so that many kinds of moments come by often."""
    compaction.BLOCK, compaction.FAN_IN = 3, 2
    compaction.SINCE_DELAY_S, compaction.GRACE_S = 0.1, grace_s
    compaction.LARGEST_BYTES = sealing.LARGEST_BYTES = 100_000  # a sealed run has several files


def write_forever(run_dir: Path, log: Path, cut: int = 0, grace_s: float = 0.1, together: int = 1) -> None:
    """Takes the last `cut` steps out, then appends up to `together` steps at a time and merges, without end; tells the log what it is sure of."""
    small_and_hasty(grace_s)
    with RunWriter.open(run_dir) as writer:
        say(log, "open", writer.last_step)
        if cut:  # a resume from an older checkpoint
            say(log, "cutting", writer.last_step - cut)
            writer.supersede(writer.last_step - cut)
            say(log, "cut", writer.last_step)
        for turn in itertools.count():
            first = writer.last_step + 1
            writer.append_steps([make_step_tables(first + n) for n in range(turn % together + 1)])
            say(log, "step", writer.last_step)
            writer.compact()


def seal_and_resume_forever(run_dir: Path, log: Path) -> None:
    """Seals the run, opens it again, adds a step, and so on."""
    small_and_hasty()
    while True:
        say(log, "sealing", 0)
        seal(run_dir)
        say(log, "opening", 0)
        with RunWriter.open(run_dir) as writer:
            writer.append_step(make_step_tables(writer.last_step + 1))
            say(log, "step", writer.last_step)


def take_turns(run_dir: Path, log: Path, seed: int) -> None:
    """Takes the run whenever nobody has it, for a few steps whose content tells who wrote them; names itself with each."""
    small_and_hasty()
    while True:
        try:
            writer = RunWriter.open(run_dir)
        except RunLocked:
            time.sleep(0.005)
            continue
        with writer:
            for _ in range(3):
                writer.append_step(make_step_tables(writer.last_step + 1, groups=1, group_size=2, tokens=3, seed=seed))
                say(log, str(seed), writer.last_step)
            writer.compact()


def hold(run_dir: Path, log: Path, seed: int) -> None:
    """Takes the run, writes a step and keeps it."""
    with RunWriter.open(run_dir) as writer:
        writer.append_step(make_step_tables(writer.last_step + 1, groups=1, group_size=2, tokens=3, seed=seed))
        say(log, str(seed), writer.last_step)
        time.sleep(600)


def say(log: Path, what: str, step: int) -> None:
    """One line per call in one write, so that it is there whole or not at all after a kill."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{what} {step}\n".encode())
    os.close(descriptor)


def thin(run_dir: Path, every: int, block: int) -> None:
    """Thins an ended run, and takes its time between publishing and removing."""
    compaction.SINCE_DELAY_S, compaction.GRACE_S = 0.1, 5.0
    compaction.BLOCK = retention.BLOCK = block
    retain(run_dir, retention.Retention(keep="every", every=every, recent=8), by="a victim")

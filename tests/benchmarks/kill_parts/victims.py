"""The processes that `bench kills` kills with SIGKILL; importable, so that a fork server can start them fast.

Each says in its diary what it is at, so that one can see in the middle of what it was killed.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from grpo_core.trace import encoder
from grpo_core.trace.recorder import Recorder
from grpo_core.trace.tables import to_tables
from storage import compaction, sealing, segments
from storage.layout import read_layout
from storage.segments import RunWriter
from tests.benchmarks.kill_parts import ledger
from tests.trace.worked import step_trace


def write(run_dir: Path, book: Path, diary: Path, version: int, cut: int) -> None:
    """Takes the last `cut` steps out, as a resume does, then writes and merges without end, one to three steps at a time."""
    _prepare(book, diary)
    small_and_hasty()
    say(diary, "opening")
    with RunWriter.open(run_dir) as writer:
        if cut:
            writer.supersede(max(-1, writer.last_step - cut))
        for turn in itertools.count():
            first = writer.last_step + 1
            writer.append_steps([to_tables(step_trace(first + n, attempt=version)) for n in range(turn % 3 + 1)])
            writer.compact()


def pack(run_dir: Path, book: Path, diary: Path, version: int) -> None:
    """Seals the run, takes it apart again, adds a step, and so on."""
    _prepare(book, diary)
    small_and_hasty()
    while True:
        segments.seal(run_dir)
        say(diary, "opening")
        with RunWriter.open(run_dir) as writer:
            writer.append_step(to_tables(step_trace(writer.last_step + 1, attempt=version)))


def record(run_dir: Path, book: Path, diary: Path, version: int, cut: int) -> None:
    """The recorder with its thread and the process beside it, a step every few milliseconds."""
    _prepare(book, diary)
    say(diary, "opening")
    first = read_layout(run_dir).last_step + 1
    recorder = Recorder(run_dir, queue_steps=64, together_s=0.05)
    if cut:
        first = max(0, first - cut)
        recorder.resume_at(first)
    say(diary, "recording")
    for step in itertools.count(first):
        recorder.record(step_trace(step, attempt=version))
        time.sleep(0.005)


def train(run_dir: Path, book: Path, diary: Path) -> None:
    """A trainer, whole: a tiny model, its recorder, its checkpoints."""
    from grpo_core.launch.folder import RunFolder
    from grpo_core.running import run_training

    _prepare(book, diary)
    say(diary, "training")
    folder = RunFolder.open(run_dir.parent.parent, run_dir.name)
    run_training(folder, folder.read_config(), bar=False)


def command(arguments: Sequence[str], book: Path, diary: Path, word: str) -> None:
    """python -m grpo_core …, with its modules loaded already, so that a kill seldom comes while Python starts."""
    from grpo_core.cli import main

    _prepare(book, diary)
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = open(complaint(diary), "w", buffering=1)  # noqa: SIM115
    say(diary, word)
    sys.exit(main(list(arguments)))


def complaint(diary: Path) -> Path:
    """What a command says of itself."""
    return diary.with_suffix(".said")


def small_and_hasty() -> None:
    """Merges in small pieces, so that many kinds of moments come by often."""
    compaction.BLOCK, compaction.FAN_IN = 3, 2
    compaction.SINCE_DELAY_S, compaction.GRACE_S = 0.1, 0.1


def say(diary: Path, word: str) -> None:
    """One line in one write, so that it is there whole or not at all after a kill."""
    descriptor = os.open(diary, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{word}\n".encode())
    os.close(descriptor)


def _prepare(book: Path, diary: Path) -> None:
    """Enter steps in the ledger, and say in the diary whenever the store begins and ends something."""
    ledger.keep(book)
    told: list[str] = []
    RunWriter.append = _told(RunWriter.append, "writing", diary, told)
    RunWriter.supersede = _told(RunWriter.supersede, "superseding", diary, told)
    compaction._merge = _told(compaction._merge, "merging", diary, told)
    encoder.StepEncoder.compact = _told(encoder.StepEncoder.compact, "merging", diary, told)
    segments.seal = _told(sealing.seal, "sealing", diary, told)
    segments.unseal = _told(sealing.unseal, "unsealing", diary, told)


def _told(function: Callable, word: str, diary: Path, told: list[str]) -> Callable:
    def telling(*arguments: object, **options: object) -> object:
        told.append(word)
        say(diary, word)
        try:
            return function(*arguments, **options)
        finally:
            told.pop()
            say(diary, told[-1] if told else "between")

    return telling

"""The real process: what it makes, and what becomes of a recorder whose process dies, hangs, or never starts."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grpo_core import beside
from grpo_core.records import StepTrace
from grpo_core.trace.encoder import StepEncoder
from grpo_core.trace.flat import flatten
from grpo_core.trace.tables import to_tables
from storage.errors import StoreError
from storage.layout import list_segments
from storage.segments import EncodedSteps, RunWriter, encode_steps
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
def encoder() -> Iterator[StepEncoder]:
    with_patience = StepEncoder("rounded", start_after=0, patience_s=60.0)
    yield with_patience
    with_patience.close()


def steps_from(first: int, *traces: StepTrace) -> list[StepTrace]:
    return [replace(trace, step=first + n) for n, trace in enumerate(traces)]


def made_here(traces: Sequence[StepTrace], **missing: int) -> EncodedSteps:
    return encode_steps([to_tables(trace, **missing) for trace in traces], "rounded")


def made_by(encoder: StepEncoder, traces: Sequence[StepTrace], **missing: int) -> EncodedSteps:
    for trace in traces:
        encoder.add(flatten(trace), **missing)
    return encoder.encoded()


def wait_until_up(encoder: StepEncoder) -> None:
    until = time.monotonic() + 60
    while not encoder.up and time.monotonic() < until:
        made_by(encoder, [WORKED])
        time.sleep(0.02)
    assert encoder.up


def test_what_it_makes_is_what_is_made_here(encoder: StepEncoder) -> None:
    wait_until_up(encoder)
    for traces in (steps_from(1, *TRACES), TRACES[:1]):
        assert made_by(encoder, traces, missing_before=2) == made_here(traces, missing_before=2)
    assert encoder.up


def test_a_process_that_comes_up_in_the_middle_of_a_batch_has_the_next_one(encoder: StepEncoder) -> None:
    traces = steps_from(0, WORKED, WORKED, WORKED)
    encoder.add(flatten(traces[0]))
    assert select.select([encoder._process.process.stdout], [], [], 60)[0]
    encoder.add(flatten(traces[1]))
    assert not encoder._beside and encoder.encoded() == made_here(traces[:2])
    encoder.add(flatten(traces[2]))
    assert encoder._beside and encoder.encoded() == made_here(traces[2:])


@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("trace", [TRACES[0], TRACES[3]], ids=["small", "large"])
@pytest.mark.parametrize("known", [0, 2])
def test_a_process_that_dies_or_hangs_is_given_up_and_nothing_is_lost(encoder: StepEncoder, deadly: signal.Signals, trace: StepTrace, known: int) -> None:
    wait_until_up(encoder)
    pid = encoder._process.process.pid
    traces = steps_from(0, trace, trace, trace)
    for step in traces[:known]:
        encoder.add(flatten(step))
    encoder._process._patience_s = 2.0
    os.kill(pid, deadly)
    assert made_by(encoder, traces[known:]) == made_here(traces)
    assert made_by(encoder, traces) == made_here(traces)
    assert not encoder.up and not Path(f"/proc/{pid}").exists()


def test_one_that_dies_before_it_has_encoded_is_done_without(encoder: StepEncoder) -> None:
    wait_until_up(encoder)
    encoder.add(flatten(WORKED))
    os.kill(encoder._process.process.pid, signal.SIGKILL)
    assert encoder.encoded() == made_here([WORKED])


def test_one_that_cannot_start_is_done_without(encoder: StepEncoder, monkeypatch) -> None:
    monkeypatch.setattr(beside.sys, "executable", "/nowhere/python")
    for _ in range(2):
        assert made_by(encoder, [WORKED]) == made_here([WORKED])


def test_one_that_ends_while_it_starts_is_done_without(encoder: StepEncoder) -> None:
    made_by(encoder, [WORKED])
    os.kill(encoder._process.process.pid, signal.SIGKILL)
    encoder._process.process.wait()
    assert made_by(encoder, [WORKED]) == made_here([WORKED]) and encoder._process is None


def test_what_it_cannot_make_is_refused_here_in_the_same_words_and_the_others_stay(encoder: StepEncoder) -> None:
    wait_until_up(encoder)
    before, after = steps_from(0, WORKED, WORKED)
    encoder.add(flatten(before))
    with pytest.raises(ValueError, match="length|expected"):
        encoder.add(replace(flatten(WORKED), texts=["one text for many rollouts"]))
    assert made_by(encoder, [after]) == made_here([before, after])


def test_steps_out_of_order_are_refused_and_gone(encoder: StepEncoder) -> None:
    wait_until_up(encoder)
    with pytest.raises(StoreError, match="step 1 is not after step 2"):
        made_by(encoder, steps_from(2, WORKED) + steps_from(1, WORKED))
    assert made_by(encoder, [WORKED]) == made_here([WORKED])


@pytest.mark.parametrize("alive", [True, False])
def test_segments_are_merged_there_and_here_if_it_is_gone(encoder: StepEncoder, tmp_path, monkeypatch, alive: bool) -> None:
    wait_until_up(encoder)
    by_writer: list[int] = []
    compact = RunWriter.compact
    monkeypatch.setattr(RunWriter, "compact", lambda writer: by_writer.append(1) or compact(writer))
    with RunWriter.open(tmp_path / "one") as writer:
        for step in range(64):
            writer.append_steps([to_tables(replace(WORKED, step=step))])
        if not alive:
            os.kill(encoder._process.process.pid, signal.SIGKILL)
        assert encoder.compact(writer) == 64 and encoder.compact(writer) == 0
    assert bool(by_writer) == (not alive)
    assert (0, 63) in {(s.first, s.last) for s in list_segments(tmp_path / "one" / "steps")}


def test_it_ends_with_a_trainer_that_is_killed() -> None:
    script = (
        "import time\nfrom grpo_core.trace.flat import flatten\nfrom grpo_core.trace.encoder import StepEncoder\nfrom tests.trace.worked import WORKED\n"
        "encoder = StepEncoder('rounded', start_after=0)\nwhile not encoder.up: encoder.add(flatten(WORKED)); encoder.encoded(); time.sleep(0.02)\n"
        "print(encoder._process.process.pid, flush=True)\ntime.sleep(60)"
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

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import pytest

from grpo_core.errors import LaunchError
from grpo_core.launch.folder import RunFolder
from grpo_core.launch.process import Machine, ProcessId, myself, this_machine
from grpo_core.launch.status import Heartbeat, Started, Word, judge, log_tail, read_word, run_status, write_started, write_word
from tests.launch.conftest import Begin, wait_for

NOW = 1_000_000.0
HERE = this_machine()
DEAD = ProcessId(os.getpid(), 1)  # our pid, another process's start
RUNNING = Word(state="running", phase="training", step=7, steps=50, updated_at=NOW - 1, seconds_per_step=0.5, process=myself(), machine=HERE)


def judged(word: Word, started: Started | None = None, *, stop_asked: bool = False) -> tuple[str, str]:
    return judge(word, started, now=NOW, here=HERE, stop_asked=stop_asked)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("running", "")),
        ({"message": "disk full"}, ("running", "disk full")),
        ({"updated_at": NOW - 90}, ("running", "no step for 90 s")),
        ({"updated_at": NOW - 90, "seconds_per_step": 60.0}, ("running", "")),
        ({"updated_at": NOW - 90, "state": "starting", "phase": "loading"}, ("starting", "")),
        ({"updated_at": NOW - 300, "state": "starting", "phase": "loading"}, ("starting", "no word for 300 s; it was busy with: loading")),
        ({"process": DEAD}, ("lost", "the process ended without a final word; steps finished before that: 7")),
        ({"machine": Machine(HERE.host, "earlier boot")}, ("lost", "the machine was restarted; steps finished before that: 7")),
        ({"state": "finished", "process": DEAD, "message": "done"}, ("finished", "done")),
        ({"state": "failed", "process": DEAD, "updated_at": 0.0}, ("failed", "")),
        ({"machine": Machine("elsewhere", "b"), "process": DEAD}, ("running", "runs on elsewhere")),
        (
            {"machine": Machine("elsewhere", "b"), "updated_at": NOW - 700},
            ("lost", "last heard from 700 s ago on elsewhere, whose processes cannot be seen from here"),
        ),
        ({"machine": Machine("elsewhere", "b"), "updated_at": NOW - 700, "seconds_per_step": 100.0}, ("running", "runs on elsewhere")),
        ({"process": None, "machine": None, "state": "starting"}, ("starting", "")),
        (
            {"process": None, "machine": None, "state": "starting", "updated_at": NOW - 21},
            ("lost", "the run was set up but its process never reported; launch it again"),
        ),
    ],
)
def test_judgement(changes: dict, expected: tuple[str, str]) -> None:
    assert judged(replace(RUNNING, **changes)) == expected


def test_a_stop_in_progress_shows_only_while_the_process_lives() -> None:
    assert judged(RUNNING, stop_asked=True)[0] == "stopping"
    assert judged(replace(RUNNING, process=DEAD), stop_asked=True)[0] == "lost"
    assert judged(replace(RUNNING, state="finished"), stop_asked=True)[0] == "finished"


@pytest.mark.parametrize(
    ("exit_code", "how"),
    [(-9, "the process was killed by SIGKILL"), (1, "the process ended with exit code 1 and without a final word; its log has the reason")],
)
def test_the_launcher_knows_how_a_child_died_before_its_first_word(exit_code: int, how: str) -> None:
    unborn = Word(steps=50, updated_at=NOW - 1)
    started = Started(process=DEAD, machine=HERE, cwd="/", exit_code=exit_code)
    assert judged(unborn, started) == ("lost", f"{how}; steps finished before that: 0")


def test_heartbeat_from_first_phase_to_last_word(folder: RunFolder) -> None:
    write_word(folder, Word(steps=50, started_at=5.0, attempt=2))
    heartbeat = Heartbeat(folder)
    heartbeat.phase("warming up the tiny model", 3, 10)
    status = run_status(folder.store_root, folder.run_id)
    assert (status.state, status.phase, status.phase_done, status.phase_total) == ("starting", "warming up the tiny model", 3, 10)
    assert (status.pid, status.host, status.attempt, status.started_at, status.eta_s) == (os.getpid(), HERE.host, 2, 5.0, None)

    heartbeat.step(10, 0.5, missing_steps=1)
    status = run_status(folder.store_root, folder.run_id)
    assert (status.state, status.step, status.steps, status.missing_steps, status.eta_s) == ("running", 10, 50, 1, 20.0)

    heartbeat.finish("finished", 0, "All 50 steps done.")
    status = run_status(folder.store_root, folder.run_id)
    assert (status.state, status.exit_code, status.message, status.eta_s, status.alive) == ("finished", 0, "All 50 steps done.", None, False)
    assert status.ended_at >= status.updated_at - 1


def test_phases_are_written_sparingly_but_ends_and_changes_at_once(folder: RunFolder) -> None:
    heartbeat = Heartbeat(folder)
    for done in range(1, 101):
        heartbeat.phase("warming up", done, 100)
        if done == 1:
            assert read_word(folder).phase == "warming up"
    assert read_word(folder).phase_done == 100
    heartbeat.phase("sealing")
    assert read_word(folder).phase == "sealing"


def test_a_heartbeat_that_cannot_be_written_does_not_end_the_run(folder: RunFolder) -> None:
    heartbeat = Heartbeat(folder)
    folder.status.unlink()
    folder.status.mkdir()  # cannot be replaced by a file
    heartbeat.step(3, 0.1)
    heartbeat.finish("failed", 1, "no room")


def test_a_run_that_another_process_trains_is_not_taken_over(begin: Begin) -> None:
    folder, child = begin("polite")
    with pytest.raises(LaunchError, match=f"is running already, as process {child.pid}"):
        Heartbeat(folder)


def test_a_failure_keeps_its_message(begin: Begin) -> None:
    folder, child = begin("failing")
    child.wait()
    status = run_status(folder.store_root, folder.run_id)
    assert (status.state, status.exit_code, status.message, status.step) == ("failed", 1, "the reward is made of cheese", 3)


def test_kill_9_is_lost_at_once_even_unreaped(begin: Begin) -> None:
    folder, child = begin("polite")
    os.kill(child.pid, signal.SIGKILL)
    status = wait_for(folder, lambda s: not s.alive, patience_s=10)
    assert status.state == "lost" and status.step >= 3
    assert status.ended_at == status.updated_at


def test_without_a_readable_status_the_run_is_not_believed_alive(folder: RunFolder) -> None:
    folder.status.write_text("{ torn")
    assert run_status(folder.store_root, folder.run_id).state == "starting"  # config.json is from just now
    os.utime(folder.config, (time.time() - 60, time.time() - 60))
    status = run_status(folder.store_root, folder.run_id)
    assert (status.state, status.step, status.steps, status.pid) == ("lost", 0, 50, None)


def test_words_of_a_newer_version_are_read_for_what_is_known(folder: RunFolder) -> None:
    folder.status.write_text('{"state": "finished", "step": 50, "steps": 50, "mood": "fine"}')
    assert run_status(folder.store_root, folder.run_id).state == "finished"


def test_log_tail(folder: RunFolder) -> None:
    assert log_tail(folder.store_root, folder.run_id) == ""
    folder.log.write_bytes(b"\xff early\n" + b"".join(b"line %d\n" % i for i in range(10_000)))
    assert log_tail(folder.store_root, folder.run_id, 2) == "line 9998\nline 9999"


def test_started_is_kept_beside_the_word(folder: RunFolder) -> None:
    write_started(folder, Started(process=myself(), machine=HERE, cwd="/tmp"))
    status = run_status(folder.store_root, folder.run_id)
    assert (status.state, status.pid) == ("starting", os.getpid())

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from grpo_core.launch.folder import RunFolder
from grpo_core.launch.process import Machine, ProcessId, identify, this_machine, wait_until_gone
from grpo_core.launch.status import Started, read_word, run_status, write_started, write_word
from grpo_core.launch.stop import stop_run
from tests.launch.conftest import Begin, wait_for


def stop(folder: RunFolder, grace_s: float):
    return stop_run(folder.store_root, folder.run_id, grace_s=grace_s)


def test_a_polite_run_stops_when_asked(begin: Begin) -> None:
    folder, child = begin("polite")
    result = stop(folder, grace_s=30)
    status = run_status(folder.store_root, folder.run_id)
    assert result.outcome == "stopped"
    assert result.sentence == f"Stopped after step {status.step}; checkpoint written."
    assert (status.state, status.exit_code, child.wait()) == ("stopped", 0, 0)


def test_a_deaf_run_is_terminated_and_its_status_says_so(begin: Begin) -> None:
    folder, child = begin("deaf")
    result = stop(folder, grace_s=0.3)
    status = run_status(folder.store_root, folder.run_id)
    assert result.outcome == "terminated" and child.wait() == -signal.SIGTERM
    assert (status.state, status.message) == ("stopped", result.sentence)
    assert result.sentence == f"Terminated: it did not react for 0 s; steps finished before that: {status.step}."


def test_a_stubborn_run_is_killed_with_its_whole_group(begin: Begin, monkeypatch) -> None:
    monkeypatch.setattr("grpo_core.launch.stop.TERM_PATIENCE_S", 0.3)
    folder, child = begin("stubborn")
    helper = identify(int((folder.path / "helper.pid").read_text()))
    result = stop(folder, grace_s=0.3)
    assert result.outcome == "killed" and child.wait() == -signal.SIGKILL
    assert run_status(folder.store_root, folder.run_id).state == "stopped"
    assert helper is not None and wait_until_gone(helper, 10)


def test_what_a_polite_run_leaves_behind_in_its_group_is_cleared_away(begin: Begin) -> None:
    folder, _ = begin("messy")
    helper = identify(int((folder.path / "helper.pid").read_text()))
    assert stop(folder, grace_s=30).outcome == "stopped"
    assert helper is not None and wait_until_gone(helper, 10)


def test_a_hung_loop_says_how_long_it_has_been_silent_and_can_be_stopped(begin: Begin) -> None:
    folder, _ = begin("hung")
    time.sleep(0.2)
    word = read_word(folder)
    write_word(folder, replace(word, updated_at=time.time() - 100))
    assert run_status(folder.store_root, folder.run_id).message == "no step for 100 s"
    assert stop(folder, grace_s=0.2).outcome == "terminated"


def test_a_stop_while_stopping_is_fine_and_a_stop_afterwards_is_refused_in_a_sentence(begin: Begin) -> None:
    folder, _ = begin("polite")
    folder.stop_file.touch()
    assert stop(folder, grace_s=30).outcome in ("stopped", "already_over")
    again = stop(folder, grace_s=30)
    assert again.outcome == "already_over" and again.sentence.startswith("Nothing to stop: the run is stopped already, after step")


def test_a_recycled_pid_is_not_touched(folder: RunFolder) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        process = identify(stranger.pid)
        word = read_word(folder)
        write_word(folder, replace(word, state="running", step=4, process=ProcessId(process.pid, process.started - 7), machine=this_machine()))
        assert stop(folder, grace_s=0.1).outcome == "already_over"
        assert run_status(folder.store_root, folder.run_id).state == "lost"
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_run_on_another_host_is_asked_but_never_signalled(folder: RunFolder) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        elsewhere = Machine("elsewhere", this_machine().boot)
        write_word(folder, replace(read_word(folder), state="running", process=identify(stranger.pid), machine=elsewhere, updated_at=time.time()))
        result = stop(folder, grace_s=0.3)
        assert result.outcome == "survived" and "on elsewhere cannot be reached from here" in result.sentence
        assert folder.stop_file.exists() and stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


ORPHAN = """
import subprocess, sys
subprocess.Popen([sys.executable, "-m", "tests.launch.child", "polite", sys.argv[1], sys.argv[2]], start_new_session=True)
"""


def test_a_run_outlives_its_launcher_and_still_stops(folder: RunFolder) -> None:
    subprocess.run([sys.executable, "-c", ORPHAN, str(folder.store_root), folder.run_id], check=True)
    assert wait_for(folder, lambda status: status.step >= 3).state == "running"
    assert stop(folder, grace_s=30).outcome == "stopped"


def test_a_child_that_died_before_its_first_word_is_over(folder: RunFolder) -> None:
    write_started(folder, Started(process=ProcessId(1, 1), machine=this_machine(), cwd=str(Path.cwd()), exit_code=1))
    result = stop(folder, grace_s=0.1)
    assert (result.outcome, result.sentence) == ("already_over", "Nothing to stop: the run is lost already, after step 0.")

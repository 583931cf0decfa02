from __future__ import annotations

import os
import signal
import subprocess
import sys

from grpo_core.launch.process import Machine, ProcessId, identify, is_alive, myself, send, this_machine, wait_until_gone

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def test_own_identity_is_stable_and_alive() -> None:
    assert myself() == identify(os.getpid())
    assert is_alive(myself())
    assert this_machine() == this_machine() == Machine(**{"host": this_machine().host, "boot": this_machine().boot})


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    process = identify(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, but not reaped: the pid still exists
    os.kill(child.pid, 0)
    assert identify(child.pid) is None
    assert process is None or not is_alive(process)
    child.wait()


def test_a_name_with_spaces_and_parentheses_does_not_shift_the_fields(tmp_path) -> None:
    program = tmp_path / "a) Z (b"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(program), "600"])
    try:
        process = identify(child.pid)
        assert process is not None and process.started > 0
        assert send(process, signal.SIGKILL)
    finally:
        child.kill()
        child.wait()


def test_a_recycled_pid_is_never_signalled() -> None:
    child = subprocess.Popen(SLEEP, start_new_session=True)
    try:
        now = identify(child.pid)
        before = ProcessId(now.pid, now.started - 1)  # somebody who had this pid earlier
        assert not is_alive(before)
        assert not send(before, signal.SIGKILL)
        assert child.poll() is None and is_alive(now)
        assert send(now, signal.SIGKILL) and wait_until_gone(now, 10)
    finally:
        child.kill()
        child.wait()


def test_a_process_that_leads_no_group_is_signalled_alone() -> None:
    child = subprocess.Popen(SLEEP)  # in the group of this test, which must survive
    process = identify(child.pid)
    assert send(process, signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM
    assert not send(process, signal.SIGTERM)

"""Process identity: a pid alone is not one, since the system hands it out again after the process has died."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class ProcessId:
    """`started` is in clock ticks since boot on Linux (/proc/<pid>/stat, field 22), elsewhere in hundredths of a second since 1970."""

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a pid means something: one boot of one host."""

    host: str
    boot: str


@cache
def this_machine() -> Machine:
    boot_id = PROC / "sys/kernel/random/boot_id"
    boot = boot_id.read_text().strip() if boot_id.exists() else str(int(psutil.boot_time()))
    return Machine(socket.gethostname(), boot)


def identify(pid: int) -> ProcessId | None:
    """Who has this pid now; None if nobody does, or only a zombie."""
    if (PROC / "self/stat").exists():
        return _identify_linux(pid)
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        return ProcessId(pid, int(process.create_time() * 100))
    except psutil.Error:
        return None


def _identify_linux(pid: int) -> ProcessId | None:
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    # The second field is the command in parentheses and may hold spaces and parentheses itself.
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else ProcessId(pid, int(rest[18]))


def myself() -> ProcessId:
    me = identify(os.getpid())
    assert me is not None
    return me


def is_alive(process: ProcessId) -> bool:
    return identify(process.pid) == process


def send(process: ProcessId, number: signal.Signals) -> bool:
    """Signal the process, and its whole group if it leads one; False when it is gone, also when its pid is somebody else's by now.

    Raises PermissionError when the process belongs to another user.
    """
    if not is_alive(process):
        return False
    try:
        leads_group = os.getpgid(process.pid) == process.pid
        os.killpg(process.pid, number) if leads_group else os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def kill_leftovers(leader: ProcessId) -> None:
    """Kill what is left in the group of a leader that has just died; its pid cannot be reused while the group exists."""
    if identify(leader.pid) is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader.pid, signal.SIGKILL)


def wait_until_gone(process: ProcessId, patience_s: float) -> bool:
    """Wait for the process to end; False if it has not after `patience_s` seconds."""
    deadline = time.monotonic() + patience_s
    while is_alive(process):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True

"""Stopping a run: asking first, then insisting, and saying how it ended."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from grpo_core.errors import LaunchError
from grpo_core.launch.folder import RunFolder
from grpo_core.launch.process import ProcessId, kill_leftovers, send, this_machine, wait_until_gone
from grpo_core.launch.status import FINAL, RunStatus, Word, behind, read_started, read_word, run_status, write_word
from storage.cached import check_local

TERM_PATIENCE_S = 5.0
KILL_PATIENCE_S = 3.0
SEALING_PATIENCE_S = 600.0
"""A run that is sealing has stopped training and only packs its records, which is worth waiting for."""


@dataclass(frozen=True, slots=True)
class StopResult:
    """How a stop went: `outcome` is stopped (asked), terminated (SIGTERM), killed (SIGKILL), already_over or survived."""

    outcome: str
    sentence: str


def stop_run(store_root: Path, run_id: str, *, grace_s: float = 30.0) -> StopResult:
    """Ask through the STOP file and wait `grace_s` seconds; then SIGTERM, then SIGKILL, to the run's whole process group.

    Blocks until the run is over. Raises RunNotFound, and LaunchError when the process belongs to another user.
    """
    folder = RunFolder.open(store_root, run_id)
    status = run_status(store_root, run_id)
    if not status.alive:
        return StopResult("already_over", f"Nothing to stop: the run is {status.state} already, after step {status.step}.")
    ask_to_stop(folder)
    process = _process_of(folder)
    if process is None:
        return _wait_for_words(folder, grace_s)
    if wait_until_gone(process, grace_s) or (_sealing(folder) and wait_until_gone(process, SEALING_PATIENCE_S)):
        return _after(folder, process, "stopped", grace_s)
    for outcome, number, patience_s in (("terminated", signal.SIGTERM, TERM_PATIENCE_S), ("killed", signal.SIGKILL, KILL_PATIENCE_S)):
        try:
            send(process, number)
        except PermissionError:
            raise LaunchError(f"run {run_id} does not react and its process {process.pid} belongs to another user; stop it as that user") from None
        if wait_until_gone(process, patience_s):
            return _after(folder, process, outcome, grace_s)
    return StopResult("survived", f"Process {process.pid} survived SIGKILL; it is stuck in the system, probably waiting for a disk or a device.")


def stop_runs(store_root: Path, run_ids: Sequence[str], say: Callable[[str], None], *, leave: Callable[[], bool] = lambda: False) -> None:
    """Ask all runs to stop, then see each of them to its end and say how it ended, until `leave` says to go."""
    for run_id in run_ids:
        ask_to_stop(RunFolder.open(store_root, run_id))
    stoppers = [threading.Thread(target=lambda run_id=run_id: say(f"{run_id}: {stop_run(store_root, run_id).sentence}"), daemon=True) for run_id in run_ids]
    for stopper in stoppers:
        stopper.start()
    while any(stopper.is_alive() for stopper in stoppers) and not leave():
        time.sleep(0.1)


def ask_to_stop(folder: RunFolder) -> None:
    """Ask the run to finish its step, write a checkpoint and end; returns at once."""
    check_local(folder.store_root)
    folder.stop_file.touch()


def _process_of(folder: RunFolder) -> ProcessId | None:
    """The live process behind the run; None on another host, or when it is not born yet after a moment."""
    for _ in range(40):
        process, machine = behind(read_word(folder) or Word(), read_started(folder))
        if process is not None and machine is not None:
            return process if machine == this_machine() else None
        time.sleep(0.05)
    return None


def _sealing(folder: RunFolder) -> bool:
    word = read_word(folder)
    return word is not None and word.phase == "sealing"


def _wait_for_words(folder: RunFolder, grace_s: float) -> StopResult:
    """The only way with a process that cannot be seen: the STOP file may reach it over a shared disk."""
    deadline = time.monotonic() + grace_s
    while (status := run_status(folder.store_root, folder.run_id)).alive and time.monotonic() < deadline:
        time.sleep(0.2)
    if status.alive:
        where = f"on {status.host}" if status.host else "of this run"
        return StopResult("survived", f"Asked to stop, but the process {where} cannot be reached from here and has not ended after {grace_s:.0f} s.")
    return StopResult("stopped", _how_it_ended(status))


def _after(folder: RunFolder, process: ProcessId, outcome: str, grace_s: float) -> StopResult:
    kill_leftovers(process)
    word = read_word(folder) or Word()
    if word.state not in FINAL and outcome != "stopped":
        how = "Terminated" if outcome == "terminated" else "Killed"
        message = f"{how}: it did not react for {grace_s:.0f} s; steps finished before that: {word.step}."
        write_word(folder, replace(word, state="stopped", phase="stopped", ended_at=time.time(), updated_at=time.time(), message=message), durable=True)
        return StopResult(outcome, message)
    return StopResult(outcome, _how_it_ended(run_status(folder.store_root, folder.run_id)))


def _how_it_ended(status: RunStatus) -> str:
    if status.state == "stopped":
        return status.message or f"Stopped after step {status.step}."
    detail = f" {status.message}" if status.message else ""
    return f"The run {'finished' if status.state == 'finished' else 'ended as ' + status.state} after step {status.step}.{detail}"


class StopRequests:
    """Whether the run was asked to stop, by the STOP file or a signal.

    The first signal asks; a second one, or one after a STOP file that had no effect, interrupts the step (KeyboardInterrupt).
    """

    def __init__(self, folder: RunFolder) -> None:
        self._stop_file = folder.stop_file
        self.signalled = False
        self.ending = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def asked(self) -> bool:
        return self.signalled or self._stop_file.exists()

    def _on_signal(self, *_: object) -> None:
        if self.ending:
            return
        if self.asked():
            raise KeyboardInterrupt
        self.signalled = True
        print("stopping after this step; Ctrl-C again stops at once", file=sys.stderr)

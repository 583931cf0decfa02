"""A run's status: what the process said last, judged against whether the process is still there.

status.json holds the word of the trainer process (and of its launcher before it), process.json what the launcher saw.
A word such as "running" is only as true as the process behind it, so readers call `run_status` and never read the files.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from grpo_core.errors import LaunchError
from grpo_core.launch.folder import RunFolder, read_json, replace_file
from grpo_core.launch.process import Machine, ProcessId, is_alive, myself, this_machine

FINAL = ("finished", "stopped", "failed")
ALIVE = ("starting", "running", "stopping")

UNBORN_S = 20.0
"""How long a launched run may stay without a process before it counts as lost."""
SILENT_START_S = 120.0
SILENT_STEP_S = 30.0
"""Silence after which a status says so, while starting and between steps (or 5 steps' time, if longer)."""
FOREIGN_SILENCE_S = 600.0
"""Silence after which a run on another host, whose process cannot be seen from here, counts as lost (or 10 steps' time)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """The derived truth about a run; times in s since 1970, `step` counts finished steps, None where not available.

    `state` is starting, running, stopping, finished, stopped, failed or lost.
    """

    run_id: str
    state: str
    phase: str
    phase_done: int
    phase_total: int
    step: int
    steps: int
    started_at: float | None
    updated_at: float | None
    ended_at: float | None
    seconds_per_step: float | None
    eta_s: float | None
    exit_code: int | None
    message: str
    pid: int | None
    host: str | None
    missing_steps: int
    attempt: int

    @property
    def alive(self) -> bool:
        return self.state in ALIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """The content of status.json: what a run last said about itself."""

    state: str = "starting"
    phase: str = "starting"
    phase_done: int = 0
    phase_total: int = 0
    step: int = 0
    steps: int = 0
    started_at: float = 0.0
    updated_at: float = 0.0
    ended_at: float | None = None
    seconds_per_step: float | None = None
    exit_code: int | None = None
    message: str = ""
    missing_steps: int = 0
    attempt: int = 0
    process: ProcessId | None = None
    machine: Machine | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The content of process.json: the process a launcher started, and how it ended if the launcher saw that."""

    process: ProcessId
    machine: Machine
    cwd: str
    exit_code: int | None = None


def read_word(folder: RunFolder) -> Word | None:
    """What status.json says, or None if it is missing or damaged."""
    return _restore(Word, read_json(folder.status))


def write_word(folder: RunFolder, word: Word, *, durable: bool = False) -> None:
    replace_file(folder.status, json.dumps(asdict(word), indent=1) + "\n", durable=durable)


def read_started(folder: RunFolder) -> Started | None:
    return _restore(Started, read_json(folder.process))


def write_started(folder: RunFolder, started: Started) -> None:
    replace_file(folder.process, json.dumps(asdict(started), indent=1) + "\n")


def _restore(kind: type, content: dict | None):
    """A Word or Started from JSON. Settings a newer version added are left out; damaged content gives None."""
    if content is None:
        return None
    try:
        known = {f.name: content[f.name] for f in fields(kind) if f.name in content}
        for name, part in (("process", ProcessId), ("machine", Machine)):
            if known.get(name) is not None:
                known[name] = part(**known[name])
        return kind(**known)
    except TypeError:
        return None


def run_status(store_root: Path, run_id: str) -> RunStatus:
    """The truth about a run, derived anew from its folder and the process table. Raises RunNotFound."""
    folder = RunFolder.open(store_root, run_id)
    word = read_word(folder) or _silence(folder)
    state, message = _judge_now(folder, word)
    if state == "lost":
        # The process may have said its final word between our reading it and our looking for the process.
        word = read_word(folder) or word
        state, message = _judge_now(folder, word)
    started = read_started(folder)
    return _status(folder, word, started, state, message or _not_mirrored(folder))


def _not_mirrored(folder: RunFolder) -> str:
    trouble = read_json(folder.mirror) or {}
    return f"not mirrored to {trouble.get('url')}: {trouble.get('why')}" if trouble else ""


def _judge_now(folder: RunFolder, word: Word) -> tuple[str, str]:
    return judge(word, read_started(folder), now=time.time(), here=this_machine(), stop_asked=folder.stop_file.exists())


def judge(word: Word, started: Started | None, *, now: float, here: Machine, stop_asked: bool) -> tuple[str, str]:
    """(state, message): the word if it is final, else what the process behind it allows to be said."""
    if word.state in FINAL:
        return word.state, word.message
    process, machine = behind(word, started)
    silent_s = now - word.updated_at
    if process is None or machine is None:
        if silent_s < UNBORN_S:
            return "starting", word.message
        return "lost", "the run was set up but its process never reported; launch it again"
    if machine.host != here.host:
        return _judge_foreign(word, machine, silent_s, stop_asked)
    if machine != here or not is_alive(process):
        return "lost", _how_it_died(word, started, rebooted=machine != here)
    state = "stopping" if stop_asked else word.state
    limit_s = max(SILENT_STEP_S, 5 * (word.seconds_per_step or 0)) if word.state == "running" else SILENT_START_S
    if silent_s > limit_s:
        return state, f"no step for {silent_s:.0f} s" if word.phase == "training" else f"no word for {silent_s:.0f} s; it was busy with: {word.phase}"
    return state, word.message


def behind(word: Word, started: Started | None) -> tuple[ProcessId | None, Machine | None]:
    """The process behind a word: as it says itself, or as its launcher saw it."""
    if word.process is not None:
        return word.process, word.machine
    return (started.process, started.machine) if started else (None, None)


def _judge_foreign(word: Word, machine: Machine, silent_s: float, stop_asked: bool) -> tuple[str, str]:
    if silent_s > max(FOREIGN_SILENCE_S, 10 * (word.seconds_per_step or 0)):
        return "lost", f"last heard from {silent_s:.0f} s ago on {machine.host}, whose processes cannot be seen from here"
    return ("stopping" if stop_asked else word.state), word.message or f"runs on {machine.host}"


def _how_it_died(word: Word, started: Started | None, *, rebooted: bool) -> str:
    if rebooted:
        how = "the machine was restarted"
    elif started and started.exit_code is not None and started.exit_code < 0:
        how = f"the process was killed by {signal.Signals(-started.exit_code).name}"
    elif started and started.exit_code is not None:
        how = f"the process ended with exit code {started.exit_code} and without a final word; its log has the reason"
    else:
        how = "the process ended without a final word"
    return f"{how}; steps finished before that: {word.step}"


def _silence(folder: RunFolder) -> Word:
    """The word of a folder without a readable status.json: as if last heard from when config.json was written."""
    return Word(steps=folder.read_config().steps, updated_at=folder.config.stat().st_mtime)


def _status(folder: RunFolder, word: Word, started: Started | None, state: str, message: str) -> RunStatus:
    process, machine = behind(word, started)
    left = word.steps - word.step
    known_pace = state in ALIVE and word.seconds_per_step is not None
    exit_code = word.exit_code if word.exit_code is not None or started is None else started.exit_code
    return RunStatus(
        run_id=folder.run_id,
        state=state,
        phase=word.phase,
        phase_done=word.phase_done,
        phase_total=word.phase_total,
        step=word.step,
        steps=word.steps,
        started_at=word.started_at or None,
        updated_at=word.updated_at or None,
        ended_at=word.updated_at if state == "lost" else word.ended_at,
        seconds_per_step=word.seconds_per_step,
        eta_s=left * word.seconds_per_step if known_pace else None,
        exit_code=exit_code,
        message=message,
        pid=process.pid if process else None,
        host=machine.host if machine else None,
        missing_steps=word.missing_steps,
        attempt=word.attempt,
    )


def log_tail(store_root: Path, run_id: str, lines: int = 40) -> str:
    """The last lines of the run's log, as text; empty if it has none. Raises RunNotFound."""
    log = RunFolder.open(store_root, run_id).log
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 400 * lines))
        tail = file.read().decode("utf-8", errors="replace")
    return "\n".join(tail.splitlines()[-lines:])


class Heartbeat:
    """The word of the trainer process, called by the step loop itself so that a hung loop falls silent.

    Takes over the word its launcher wrote (attempt, steps, steps missing so far) and puts its own process behind it.
    Raises LaunchError when another live process has the run.
    """

    BETWEEN_PHASES_S = 0.2

    def __init__(self, folder: RunFolder) -> None:
        word = read_word(folder) or _silence(folder)
        other, machine = behind(word, read_started(folder))
        if word.state not in FINAL and other not in (None, myself()) and machine == this_machine() and is_alive(other):
            raise LaunchError(f"run {folder.run_id} is {word.state} already, as process {other.pid}")
        self._folder = folder
        self._missing_before = word.missing_steps
        self._word = replace(word, process=myself(), machine=this_machine())
        self._say()

    @property
    def attempt(self) -> int:
        return self._word.attempt

    @property
    def step_count(self) -> int:
        return self._word.step

    def phase(self, name: str, done: int = 0, total: int = 0) -> None:
        """What the run is busy with, outside of or between steps; written at most five times a second."""
        recent = time.time() - self._word.updated_at < self.BETWEEN_PHASES_S
        same = self._word.phase == name
        if not (same and recent and done < total):
            self._say(phase=name, phase_done=done, phase_total=total)

    def step(self, done: int, seconds_per_step: float | None, *, missing_steps: int = 0, message: str = "") -> None:
        """`done` steps are finished; `missing_steps` of this attempt's the recorder had to drop."""
        self._say(
            state="running",
            phase="training",
            phase_done=done,
            phase_total=self._word.steps,
            step=done,
            seconds_per_step=seconds_per_step,
            missing_steps=self._missing_before + missing_steps,
            message=message,
        )

    def finish(self, state: str, exit_code: int, message: str = "") -> None:
        """The final word: finished, stopped or failed."""
        assert state in FINAL, state
        self._say(durable=True, state=state, phase=state, ended_at=time.time(), exit_code=exit_code, message=message)

    def _say(self, *, durable: bool = False, **changes) -> None:
        self._word = replace(self._word, updated_at=time.time(), **changes)
        with suppress(OSError):  # a full disk silences the heartbeat, which readers notice; it must not end the run
            write_word(self._folder, self._word, durable=durable)

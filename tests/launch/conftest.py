from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grpo_core.config import make_config
from grpo_core.launch.folder import RunFolder
from grpo_core.launch.status import RunStatus, Word, run_status, write_word

Begin = Callable[[str], tuple[RunFolder, subprocess.Popen]]


@pytest.fixture
def folder(store_root: Path) -> RunFolder:
    """A prepared run that no process has taken up yet."""
    made = RunFolder.create(store_root, make_config({"steps": 50}))
    write_word(made, Word(steps=50, started_at=time.time(), updated_at=time.time()))
    return made


@pytest.fixture
def begin(folder: RunFolder) -> Iterator[Begin]:
    """Start a stand-in trainer of some kind on the run, and wait until it is training."""
    children = []

    def start(kind: str) -> tuple[RunFolder, subprocess.Popen]:
        command = [sys.executable, "-m", "tests.launch.child", kind, str(folder.store_root), folder.run_id]
        children.append(subprocess.Popen(command, start_new_session=True))
        wait_for(folder, lambda status: status.step >= 3)
        return folder, children[-1]

    yield start
    for child in children:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def wait_for(folder: RunFolder, reached: Callable[[RunStatus], bool], patience_s: float = 180.0) -> RunStatus:
    deadline = time.monotonic() + patience_s
    while not reached(status := run_status(folder.store_root, folder.run_id)):
        assert time.monotonic() < deadline and status.state != "failed", status
        time.sleep(0.02)
    return status

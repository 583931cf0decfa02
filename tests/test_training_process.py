"""`python -m grpo_core train` and `resume` in the foreground, as a person runs them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from grpo_core.launch.folder import RunFolder
from grpo_core.launch.status import run_status
from storage.queries.steps import step_series
from storage.reader import Store
from tests.launch.conftest import wait_for

pytestmark = pytest.mark.xdist_group("processes")

ROOT = Path(__file__).resolve().parents[1]
QUICK = ["--warmup-steps", "3", "--prompts-per-step", "2", "--group-size", "2", "--eval-every", "0", "--device", "cpu"]

Begun = subprocess.Popen


@pytest.fixture
def begin(store_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Start a command of the CLI in `tmp_path`, as its own group, and see to its end."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    children: list[Begun] = []

    def start(*arguments: str) -> Begun:
        command = [sys.executable, "-m", "grpo_core", *arguments, "--store", str(store_root)]
        children.append(subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True))
        return children[-1]

    yield start
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate()


def the_run(store_root: Path, child: Begun) -> RunFolder:
    """The only run of the store, once it is there."""
    deadline = time.monotonic() + 180
    while not (ids := Store(store_root).run_ids()):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    return RunFolder.open(store_root, ids[0])


def test_ctrl_c_finishes_the_step_and_resume_goes_on_to_the_end(begin, store_root: Path) -> None:
    child = begin("train", *QUICK, "--steps", "4000")
    folder = the_run(store_root, child)
    wait_for(folder, lambda status: status.step >= 2)
    child.send_signal(signal.SIGINT)
    _, shown = child.communicate(timeout=240)
    status = run_status(store_root, folder.run_id)
    assert child.returncode == 0, shown
    assert status.state == "stopped" and shown.endswith(f"Stopped after step {status.step}; checkpoint written.\n")
    assert "training:" in shown and "reward " in shown  # the progress bar
    assert "Traceback" not in shown

    again = begin("resume", folder.run_id, "--steps", str(status.step + 3))
    _, shown = again.communicate(timeout=240)
    ended = run_status(store_root, folder.run_id)
    assert again.returncode == 0, shown
    assert (ended.state, ended.step, ended.attempt) == ("finished", status.step + 3, 1)
    series = step_series(Store(store_root), folder.run_id)
    assert series["step"].tolist() == list(range(ended.step))
    assert series["attempt"].tolist() == [0] * status.step + [1] * 3
    assert folder.read_config().steps == status.step + 3


SLEEPY = "import time\n\ndef sleepy(prompt, completion) -> float:\n    time.sleep(600)\n    return 1.0\n"


def test_a_second_ctrl_c_interrupts_a_step_that_does_not_end(begin, store_root: Path, tmp_path: Path) -> None:
    (tmp_path / "my_rewards.py").write_text(SLEEPY)
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"prompt": f"{i}", "answer": f"{i}"}) + "\n" for i in range(8)))
    child = begin("train", *QUICK, "--task", "dataset", "--data", "data.jsonl", "--rewards", "my_rewards:sleepy")
    folder = the_run(store_root, child)
    wait_for(folder, lambda status: status.state == "running")
    time.sleep(1)  # into the reward of the first step
    child.send_signal(signal.SIGINT)
    time.sleep(1)
    assert child.poll() is None
    child.send_signal(signal.SIGINT)
    _, shown = child.communicate(timeout=240)
    assert child.returncode == 1 and "Traceback" not in shown
    assert shown.endswith("Stopped in the middle of a step; steps finished before that: 0.\n")
    assert run_status(store_root, folder.run_id).state == "stopped"


def test_bad_input_found_late_is_one_line_a_failed_run_and_exit_code_2(begin, store_root: Path, tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text('{"prompt": "1", "answer": "1"}\n{"prompt": "2"}\n')
    child = begin("train", *QUICK, "--task", "dataset", "--data", "data.jsonl")
    _, shown = child.communicate(timeout=240)
    errors = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert child.returncode == 2 and len(errors) == 1 and "Traceback" not in shown, shown
    assert "data.jsonl" in errors[0] and "answer" in errors[0] and "2" in errors[0]
    status = run_status(store_root, Store(store_root).run_ids()[0])
    assert (status.state, status.exit_code, f"error: {status.message}") == ("failed", 2, errors[0])


def test_a_fault_of_ours_or_of_user_code_leaves_its_traceback_in_the_log_alone(begin, store_root: Path, tmp_path: Path) -> None:
    (tmp_path / "my_rewards.py").write_text("import sys\n\ndef leave(prompt, completion) -> float:\n    sys.exit(3)\n")
    (tmp_path / "data.jsonl").write_text("".join(json.dumps({"prompt": f"{i}", "answer": f"{i}"}) + "\n" for i in range(8)))
    child = begin("train", *QUICK, "--task", "dataset", "--data", "data.jsonl", "--rewards", "my_rewards:leave")
    _, shown = child.communicate(timeout=240)
    folder = the_run(store_root, child)
    assert child.returncode == 1 and "Traceback" not in shown, shown
    assert f"error: SystemExit: 3 (details in {folder.log})" in shown
    assert "Traceback" in folder.log.read_text()
    assert run_status(store_root, folder.run_id).state == "failed"

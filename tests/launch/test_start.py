"""Launching the real trainer process, on very short runs of the tiny model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from grpo_core.beside import PROJECT_ROOT
from grpo_core.config import RunConfig, make_config
from grpo_core.errors import LaunchError
from grpo_core.launch.folder import RunFolder
from grpo_core.launch.process import identify
from grpo_core.launch.start import child_environment, create_run, launch, prepare_resume, resume_run
from grpo_core.launch.status import RunStatus, log_tail, read_started, read_word, run_status, write_word
from grpo_core.launch.stop import stop_run
from storage.catalog import Catalog
from tests.launch.conftest import wait_for

pytestmark = pytest.mark.xdist_group("processes")


def config(**changes: object) -> RunConfig:
    quick = {"warmup_steps": 3, "steps": 2, "prompts_per_step": 2, "group_size": 2, "eval_every": 0, "device": "cpu"}
    return make_config({**quick, **changes})


def over(folder: RunFolder) -> RunStatus:
    status = wait_for(folder, lambda status: not status.alive, patience_s=120)
    assert status.state == "finished", log_tail(folder.store_root, folder.run_id)
    return status


def test_a_launched_run_finishes_and_is_in_the_catalogue(store_root: Path) -> None:
    run_id = launch(store_root, config(name="a first run"))
    folder = RunFolder.open(store_root, run_id)
    status = over(folder)
    assert (status.state, status.step, status.exit_code, status.message) == ("finished", 2, 0, "All 2 steps done.")
    assert "step 1: reward" in log_tail(store_root, run_id)
    annotation = Catalog(store_root).annotations().iloc[0]
    assert (annotation["run_id"], annotation["name"]) == (run_id, "a first run")
    command = Catalog(store_root).launches(run_id)["command"].iloc[0]
    assert command.startswith("python -m grpo_core train --name 'a first run' --steps 2 --device cpu")


def test_one_press_starts_one_run_however_often_it_arrives(store_root: Path) -> None:
    got: list[str] = []
    presses = [threading.Thread(target=lambda: got.append(launch(store_root, config(), nonce="form 17"))) for _ in range(4)]
    for press in presses:
        press.start()
    for press in presses:
        press.join()
    assert len(got) == 4 and len(set(got)) == 1
    assert [p.name for p in (store_root / "runs").iterdir()] == got[:1]
    assert len(Catalog(store_root).launches(got[0])) == 1
    other = launch(store_root, config(), nonce="form 18")
    assert other != got[0]
    for run_id in (got[0], other):
        stop_run(store_root, run_id, grace_s=0)


def test_a_run_outlives_the_process_that_launched_it(store_root: Path) -> None:
    script = (
        "import sys, pathlib; from grpo_core.launch.start import launch; from grpo_core.config import make_config\n"
        f"print(launch(pathlib.Path(sys.argv[1]), make_config({config().model_dump()!r})))"
    )
    run_id = subprocess.run([sys.executable, "-c", script, str(store_root)], check=True, capture_output=True, text=True).stdout.strip()
    over(RunFolder.open(store_root, run_id))


def test_a_child_that_dies_before_it_can_say_a_word_is_lost_with_the_reason_at_hand(store_root: Path, monkeypatch) -> None:
    monkeypatch.setattr("grpo_core.launch.start.sys.executable", "/bin/false")
    folder = RunFolder.open(store_root, launch(store_root, config()))
    status = wait_for(folder, lambda s: s.state == "lost" and s.exit_code is not None, patience_s=10)
    assert status.message == "the process ended with exit code 1 and without a final word; its log has the reason; steps finished before that: 0"


def test_a_program_that_cannot_be_started_is_a_failed_run_and_a_sentence(store_root: Path, monkeypatch) -> None:
    monkeypatch.setattr("grpo_core.launch.start.sys.executable", "/no/such/python")
    with pytest.raises(LaunchError, match="cannot start /no/such/python: No such file or directory"):
        launch(store_root, config())
    (run,) = (store_root / "runs").iterdir()
    assert run_status(store_root, run.name).state == "failed"


def test_a_run_has_a_session_of_its_own_and_a_kill_is_seen_with_its_signal(store_root: Path) -> None:
    folder = RunFolder.open(store_root, launch(store_root, config(steps=5000)))
    started = read_started(folder)
    assert started.cwd == str(Path.cwd()) and started.process == identify(started.process.pid)
    status = wait_for(folder, lambda s: s.step >= 2)
    assert status.pid == started.process.pid == os.getsid(status.pid) == os.getpgid(status.pid) != os.getsid(0)
    assert os.readlink(f"/proc/{status.pid}/fd/0") == "/dev/null"
    os.kill(status.pid, signal.SIGKILL)
    status = wait_for(folder, lambda s: s.exit_code is not None, patience_s=10)
    assert (status.state, status.exit_code) == ("lost", -9)
    assert status.message.startswith("the process was killed by SIGKILL; steps finished before that: ")


def test_a_run_that_is_still_warming_up_stops_at_once(store_root: Path) -> None:
    folder = RunFolder.open(store_root, launch(store_root, config(warmup_steps=50_000)))
    wait_for(folder, lambda s: s.phase_done >= 2 and s.phase.startswith("warming up"))
    stopped = stop_run(store_root, folder.run_id, grace_s=60)
    assert (stopped.outcome, stopped.sentence) == ("stopped", "Stopped while warming up the tiny model; steps finished before that: 0.")
    assert run_status(store_root, folder.run_id).exit_code == 0


def test_stop_then_resume_goes_on_where_it_was(store_root: Path) -> None:
    run_id = launch(store_root, config(steps=400))
    folder = RunFolder.open(store_root, run_id)
    wait_for(folder, lambda s: s.step >= 2)
    stopped = stop_run(store_root, run_id, grace_s=60)
    done = run_status(store_root, run_id).step
    assert (stopped.outcome, stopped.sentence) == ("stopped", f"Stopped after step {done}; checkpoint written.")
    resume_run(store_root, run_id, steps=done + 2)
    with pytest.raises(LaunchError, match=f"run {run_id} is (starting|running); only a run that has ended can be resumed"):
        resume_run(store_root, run_id)
    status = over(folder)
    assert (status.state, status.step, status.steps, status.attempt) == ("finished", done + 2, done + 2, 1)
    assert not folder.stop_file.exists()
    with pytest.raises(LaunchError, match=f"has made {done + 2} steps already, so steps={done + 2} leaves nothing to do; try --steps {done + 102}"):
        resume_run(store_root, run_id)
    assert len(Catalog(store_root).launches(run_id)) == 2


def test_of_two_resumes_at_once_one_is_refused(store_root: Path) -> None:
    folder = create_run(store_root, config())
    (folder.checkpoints / "step-00000001").mkdir(parents=True)
    (folder.checkpoints / "step-00000001" / "trainer.pt").touch()
    word = read_word(folder)
    write_word(folder, type(word)(state="stopped", step=1, steps=2, updated_at=time.time()))
    outcomes = []

    def press() -> None:
        try:
            prepare_resume(folder)
            outcomes.append("resumed")
        except LaunchError as error:
            outcomes.append(str(error))

    presses = [threading.Thread(target=press) for _ in range(2)]
    for thread in presses:
        thread.start()
    for thread in presses:
        thread.join()
    assert sorted(outcomes) == sorted(["resumed", f"run {folder.run_id} is starting; only a run that has ended can be resumed"])
    assert read_word(folder).attempt == 1


def test_a_run_without_a_checkpoint_says_how_to_begin_anew(store_root: Path) -> None:
    folder = create_run(store_root, config(seed=5))
    write_word(folder, type(read_word(folder))(state="failed", steps=2))
    with pytest.raises(LaunchError, match="ended before its first checkpoint.*start it anew: python -m grpo_core train --seed 5 "):
        resume_run(store_root, folder.run_id)


def test_a_run_sees_what_it_needs_of_the_environment_and_no_secrets() -> None:
    everything = {"PATH": "/bin", "LC_ALL": "C", "CUDA_VISIBLE_DEVICES": "1", "HF_HOME": "/h", "GROUPSCOPE_STORE": "s", "https_proxy": "p"}
    secret = {"AWS_SECRET_ACCESS_KEY": "x", "GROUPSCOPE_TOKEN": "x", "GITHUB_TOKEN": "x", "MY_PATH": "x"}
    assert child_environment({**everything, **secret}, PROJECT_ROOT) == everything
    assert child_environment({"PYTHONPATH": "/mine"}, Path("/tmp"))["PYTHONPATH"] == f"{PROJECT_ROOT}{os.pathsep}/mine"

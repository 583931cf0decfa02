"""Starting runs: each as a process group of its own, without a shell, and independent of whoever started it."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from grpo_core.beside import PROJECT_ROOT
from grpo_core.config import RunConfig
from grpo_core.errors import LaunchError
from grpo_core.launch.folder import MIRROR_VARIABLE, RunFolder, catalog_place
from grpo_core.launch.process import ProcessId, identify, this_machine
from grpo_core.launch.status import Started, Word, read_started, read_word, run_status, write_started, write_word
from storage.catalog import Catalog

NONCE_PATIENCE_S = 10.0

PASSED_ON = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_*", "TZ", "TMPDIR", "XDG_*", "VIRTUAL_ENV", "CONDA_*", "PYTHON*", "GROUPSCOPE_*",
    "LD_LIBRARY_PATH", "OMP_*", "MKL_*", "CUDA_*", "NVIDIA_*", "TORCH*", "PYTORCH*", "HF_*", "TRANSFORMERS_*",
    "SSL_CERT_*", "REQUESTS_CA_BUNDLE", "*_proxy", "*_PROXY", "PGPASSFILE", "PGSERVICEFILE", "PGSSL*",
)  # fmt: skip
"""Environment variables a run sees: what Python, torch and the model hub read, and none of the launcher's other secrets."""
PASSED_ON_TO_MIRROR = ("AWS_*", "FSSPEC_*", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_STORAGE_*")
"""What else it sees where GROUPSCOPE_MIRROR has it copied elsewhere."""
APP_TOKEN = "GROUPSCOPE_TOKEN"
"""Opens the app, which can start programs: not for a run and the reward functions in it."""


def launch(store_root: Path, config: RunConfig, *, nonce: str | None = None) -> str:
    """Start a run in the background and return its id at once.

    `nonce` names one press of a button: a second call with it starts nothing and returns the same run.
    Raises LaunchError when the process cannot be started.
    """
    return press(store_root, nonce, lambda catalog, suffix: create_run(store_root, config, catalog=catalog, suffix=suffix))


def press(store_root: Path, nonce: str | None, create: Callable[[Catalog, str | None], RunFolder], *, cwd: Path | None = None) -> str:
    """Start, in the folder `cwd` or the present one, what `create` (catalogue, ending of the run id → prepared folder) makes.

    Only the first press with a nonce does.
    """
    suffix = hashlib.sha256(nonce.encode()).hexdigest()[:12] if nonce else None
    catalog = Catalog(catalog_place(store_root))
    if suffix and not catalog.claim(nonce):
        return _run_of_nonce(store_root, suffix)
    folder = create(catalog, suffix)
    _spawn(folder, cwd=cwd or Path.cwd())
    return folder.run_id


def create_run(store_root: Path, config: RunConfig, *, catalog: Catalog | None = None, suffix: str | None = None) -> RunFolder:
    """The folder of a new run, with its first word, in the catalogue; no process yet."""
    catalog = catalog or Catalog(catalog_place(store_root))
    folder = RunFolder.create(store_root, config, suffix=suffix)
    begin_run(folder, config, catalog, command=shlex.join(command_line(config)))
    return folder


def begin_run(folder: RunFolder, config: RunConfig, catalog: Catalog, *, command: str, step: int = 0) -> None:
    """A new folder's first word, after `step` steps that another run has done for it, and its place in the catalogue."""
    now = time.time()
    write_word(folder, Word(step=step, steps=config.steps, started_at=now, updated_at=now))
    catalog.register(folder.run_id, config.title)
    catalog.record_launch(folder.run_id, command, now)


def command_line(config: RunConfig) -> list[str]:
    """The command a person could type for this run: one flag for every setting that differs from its default."""
    settings = {name: getattr(config, name) for name, field in RunConfig.model_fields.items() if getattr(config, name) != field.default}
    return ["python", "-m", "grpo_core", "train", *flags(settings)]


def flags(settings: Mapping[str, object]) -> list[str]:
    """Settings as command-line flags; an empty one (None, "" or ()) becomes an empty flag, which takes the default."""
    command = []
    for name, value in settings.items():
        values = value if isinstance(value, tuple | list) and value else (value,)
        command += [part for one in values for part in _spell(flag(name), "" if one in (None, (), []) else str(one))]
    return command


def flag(option: str) -> str:
    """The command-line flag of a RunConfig option."""
    return "--" + option.replace("_", "-")


def _spell(name: str, value: str) -> list[str]:
    return [f"{name}={value}"] if value.startswith("-") else [name, value]


def resume_run(store_root: Path, run_id: str, *, steps: int | None = None) -> None:
    """Go on with a run in the background from its newest checkpoint; `steps` raises its number of steps.

    Raises LaunchError where that cannot be, with the reason.
    """
    folder = RunFolder.open(store_root, run_id)
    cwd = home(folder)
    prepare_resume(folder, steps=steps)
    _spawn(folder, cwd=cwd)


def home(folder: RunFolder) -> Path:
    """Where a launcher started the run, which its data and rewards may be named relative to; the present folder if that is not known."""
    started = read_started(folder)
    return Path(started.cwd) if started and Path(started.cwd).is_dir() else Path.cwd()


def prepare_resume(folder: RunFolder, *, steps: int | None = None) -> None:
    """Check that a run may go on, and give it the next attempt; the caller starts the process. Raises LaunchError."""
    folder.check_trained_here()
    with FileLock(folder.launch_lock):  # of two that resume at once, the second finds the run starting
        status = run_status(folder.store_root, folder.run_id)
        config = folder.read_config()
        target = config.steps if steps is None else steps
        _check_resumable(folder, status.state, status.step, target)
        if target != config.steps:
            folder.write_config(config.with_changes(steps=target))
        folder.stop_file.unlink(missing_ok=True)
        folder.process.unlink(missing_ok=True)
        now = time.time()
        word = Word(steps=target, step=status.step, started_at=now, updated_at=now, missing_steps=status.missing_steps, attempt=status.attempt + 1)
        write_word(folder, word, durable=True)
        Catalog(catalog_place(folder.store_root)).record_launch(folder.run_id, f"python -m grpo_core resume {folder.run_id}", now)


def _check_resumable(folder: RunFolder, state: str, done: int, target: int) -> None:
    run_id = folder.run_id
    if state not in ("stopped", "lost", "failed", "finished"):
        raise LaunchError(f"run {run_id} is {state}; only a run that has ended can be resumed")
    if target < done or (state == "finished" and target == done):
        more = done + 100
        raise LaunchError(f"run {run_id} has made {done} steps already, so steps={target} leaves nothing to do; try --steps {more}")
    if not folder.has_checkpoint():
        again = shlex.join(command_line(folder.read_config()))
        raise LaunchError(f"run {run_id} ended before its first checkpoint, so there is nothing to resume from; start it anew: {again}")


def _spawn(folder: RunFolder, *, cwd: Path) -> None:
    """Start `train --run` on a prepared folder; its output goes to log.txt. Raises LaunchError."""
    command = [sys.executable, "-m", "grpo_core", "train", "--store", str(folder.store_root), "--run", folder.run_id]
    try:
        with folder.log.open("ab") as log:
            child = subprocess.Popen(
                command, cwd=cwd, env=child_environment(os.environ, cwd), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
    except OSError as error:
        message = f"cannot start {command[0]}: {error.strerror}"
        write_word(folder, replace(read_word(folder) or Word(), state="failed", ended_at=time.time(), message=message))
        raise LaunchError(message) from None
    process = identify(child.pid) or ProcessId(child.pid, 0)  # 0 matches no process: it has died already
    started = Started(process=process, machine=this_machine(), cwd=str(cwd))
    write_started(folder, started)
    threading.Thread(target=_reap, args=(folder, child, started), daemon=True, name=f"reap-{folder.run_id}").start()


def _reap(folder: RunFolder, child: subprocess.Popen, started: Started) -> None:
    """Wait for the child, so that it leaves no zombie and its exit code is known for as long as the launcher lives."""
    exit_code = child.wait()
    if read_started(folder) == started:  # not deleted, and not resumed since
        write_started(folder, replace(started, exit_code=exit_code))


def child_environment(environment: Mapping[str, str], cwd: Path) -> dict[str, str]:
    """The allow-listed variables; the project is put on PYTHONPATH when the run starts in another folder."""
    patterns = PASSED_ON + (PASSED_ON_TO_MIRROR if environment.get(MIRROR_VARIABLE) else ())
    passed = {name: value for name, value in environment.items() if name != APP_TOKEN and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}
    if cwd.resolve() != PROJECT_ROOT:
        passed["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT_ROOT), passed.get("PYTHONPATH")]))
    return passed


def _run_of_nonce(store_root: Path, suffix: str) -> str:
    """The run that the nonce's first claimant made; it may be a moment away."""
    deadline = time.monotonic() + NONCE_PATIENCE_S
    while time.monotonic() < deadline:
        for config in (Path(store_root) / "runs").glob(f"*-{suffix}/config.json"):
            return config.parent.name
        time.sleep(0.05)
    raise LaunchError("this form was sent before, but its run did not come up; open the launch page anew and send it again")

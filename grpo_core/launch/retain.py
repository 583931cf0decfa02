"""Thinning the tokens of a run's old steps by a policy: what that would free, and doing it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from grpo_core.config import RunConfig
from grpo_core.errors import ConfigError, LaunchError
from grpo_core.launch.folder import RunFolder, catalog_place
from grpo_core.launch.start import child_environment
from grpo_core.launch.status import run_status
from storage.cached import check_local
from storage.queries.retention import alert_steps, named_groups
from storage.retention import RECENT, Plan, Retention, plan, survey
from storage.thinning import Thinning, make_plan, retain
from storage.transfer import Progress, no_progress

GB = 1_000_000_000
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def retention_of(config: RunConfig) -> Retention:
    """The policy a run's settings ask for."""
    return Retention(
        keep=config.retention,
        every=config.retention_every if config.retention == "every" else 0,
        budget_bytes=max(1, round(config.retention_budget * GB)) if config.retention == "budget" else 0,
        recent=config.retention_recent,
    )


def bytes_of(text: str) -> int:
    """A size as people write it: `500MB`, `1.5 GiB`, `2g`, or a number of bytes. Raises ConfigError."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"{text[:40]!r} is no size; write a number and a unit, e.g. 500MB, 2GB or 1.5GiB")
    return round(float(found[1]) * (1024 if found[3] else 1000) ** _POWERS[found[2].lower()])


def plan_retention(store_root: Path, run_id: str, retention: Retention) -> Plan:
    """What a policy would take of a run as it is now, and what stays; nothing is changed. Raises StoreError."""
    check_local(store_root)
    return make_plan(RunFolder.open(store_root, run_id).path, retention, alerts=alert_steps(catalog_place(store_root), run_id))


def outlook(store_root: Path, run_id: str) -> Callable[[Retention], Plan]:
    """The same for any policy, with the run looked at once. Raises StoreError."""
    check_local(store_root)
    found = survey(RunFolder.open(store_root, run_id).path)
    named, alerts = named_groups(found.layout), alert_steps(catalog_place(store_root), run_id)
    return lambda retention: plan(retention, found, named, alerts=alerts)


def retain_command(run_id: str, retention: Retention) -> list[str]:
    """What a person types to apply a policy; it asks before it takes anything."""
    size = f"{retention.budget_bytes // 10**6}MB" if retention.budget_bytes % 10**6 == 0 else str(retention.budget_bytes)
    value = {"every": ["--every", str(retention.every)], "budget": ["--budget", size]}.get(retention.keep, [])
    recent = [] if retention.recent == RECENT else ["--recent", str(retention.recent)]
    return ["python", "-m", "grpo_core", "retain", run_id, "--keep", retention.keep, *value, *recent]


def retain_beside(store_root: Path, run_id: str, retention: Retention, *, by: str) -> str:
    """Applies a policy in a process of its own, which finishes even if this one ends; returns its last line.

    Raises LaunchError with the sentence that it ended with where something is wrong.
    """
    command = [sys.executable, *retain_command(run_id, retention)[1:], "--yes", "--by", by, "--store", str(store_root)]
    cwd = Path.cwd()
    try:
        done = subprocess.run(
            command, cwd=cwd, env=child_environment(os.environ, cwd), stdin=subprocess.DEVNULL, capture_output=True, text=True, start_new_session=True
        )
    except OSError as error:
        raise LaunchError(f"cannot start {command[0]}: {error.strerror}") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        raise LaunchError(said[-1].removeprefix("error: "))
    return (done.stdout.strip().splitlines() or [""])[-1]


def retain_run(store_root: Path, run_id: str, retention: Retention, *, by: str, progress: Progress = no_progress) -> tuple[Thinning, ...]:
    """Applies a policy to a run that has ended; says what was taken, file by file.

    Raises LaunchError while the run has a process, and StoreError as storage.thinning.retain does.
    """
    check_local(store_root)
    status = run_status(store_root, run_id)
    if status.alive:
        raise LaunchError(
            f"run {run_id} is {status.state}, and only its own process may take its tokens; stop it first, "
            "or start runs with --retention, which thins while they train"
        )
    return retain(RunFolder.open(store_root, run_id).path, retention, by=by, alerts=alert_steps(catalog_place(store_root), run_id), progress=progress)

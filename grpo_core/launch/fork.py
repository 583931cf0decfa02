"""Forks: a new run that begins with the checkpoint of another and goes on with changed settings.

Where a run comes from is in its folder, in fork.json; the checkpoint it begins with is its own, so the parent may be deleted.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from grpo_core.config import RunConfig
from grpo_core.errors import ConfigError, LaunchError
from grpo_core.launch.folder import RunFolder, catalog_place, read_json, replace_file
from grpo_core.launch.start import begin_run, command_line, flags, home, press
from grpo_core.methods import METHODS, method_name
from storage.catalog import Catalog

INHERITED = (
    "model", "dtype", "warmup_steps", "lora_rank", "lora_alpha",
    "task", "data", "split", "prompt_column", "answer_column", "gold_column", "system_prompt", "chat_template", "probe_answers",
    "paraphrases",
)  # fmt: skip
"""Options that a fork has from its parent: the checkpoint's weights, its place in the data and its probe set are made for them."""

POOL = {"vas": ("seed", "vas_pool"), "solvable": ("seed", "filter_pool")}
"""What chooses the prompts that a sampler has figures of, by prompt_sampler."""


@dataclass(frozen=True, slots=True)
class Fork:
    """Where a run comes from: the run it goes on from, the steps that run had done, and the settings that differ from its."""

    parent: str
    step: int
    changes: Mapping[str, object] = field(default_factory=dict)


def read_fork(folder: RunFolder) -> Fork | None:
    """None for a run that began by itself, or whose fork.json is damaged."""
    content = read_json(folder.fork) or {}
    parent, step, changes = content.get("parent"), content.get("step"), content.get("changes")
    known = isinstance(parent, str) and isinstance(step, int) and isinstance(changes, dict)
    return Fork(parent, step, changes) if known else None


def fork_run(store_root: Path, parent: str, *, step: int, changes: Mapping[str, object], nonce: str | None = None) -> str:
    """Start a fork of a run in the background, as `launch` does, and return its id; arguments as for `create_fork`."""
    cwd = home(RunFolder.open(store_root, parent))
    return press(
        store_root, nonce, lambda catalog, suffix: create_fork(store_root, parent, step=step, changes=changes, catalog=catalog, suffix=suffix), cwd=cwd
    )


def create_fork(
    store_root: Path, parent: str, *, step: int, changes: Mapping[str, object], catalog: Catalog | None = None, suffix: str | None = None
) -> RunFolder:
    """The folder of a fork, with its checkpoint and its first word, in the catalogue; no process yet.

    It goes on after `step` steps of `parent`, with its config but for `changes` (RunConfig options); 0 starts again from the start model.
    Options that the parent's method reads and a changed method does not are left out. Raises ConfigError for settings that
    cannot be, RunNotFound, and LaunchError when the parent has no checkpoint there or was imported.
    """
    origin = RunFolder.open(store_root, parent)
    origin.check_trained_here()
    before = origin.read_config()
    config = forked_config(before, step, changes)
    checkpoint = _checkpoint(origin, step)
    fork = Fork(parent, step, _differences(before, config, changes))
    catalog = catalog or Catalog(catalog_place(store_root))
    folder = RunFolder.create(store_root, config, suffix=suffix)
    try:
        replace_file(folder.fork, json.dumps(asdict(fork), indent=1) + "\n", durable=True)
        if checkpoint:
            _take_over(checkpoint, folder.checkpoints)
    except OSError as error:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise LaunchError(
            f"cannot take over the checkpoint of run {parent} at step {step}: {error.strerror}; it may just have been deleted, try another"
        ) from None
    begin_run(folder, config, catalog, command=shlex.join(fork_command(parent, step, fork.changes)), step=step)
    return folder


def forked_config(before: RunConfig, step: int, changes: Mapping[str, object]) -> RunConfig:
    """The parent's config with `changes`. Raises ConfigError for what a fork cannot change, and for settings that do not fit."""
    settings = {"name": f"{before.title[:80]}, from step {step}", **changes}
    config = before.with_changes(**_unread_knobs(settings), **settings)
    pool = POOL.get(config.prompt_sampler, ()) if before.prompt_sampler == config.prompt_sampler else ()
    inherited = (*INHERITED, *pool)
    fixed = [name for name in inherited if getattr(config, name) != getattr(before, name)]
    if fixed:
        raise ConfigError(f"a fork goes on with its parent's weights and data, so {', '.join(fixed)} cannot change; start a new run with `train` for that")
    if config.steps <= step:
        raise ConfigError(f"steps={config.steps} leaves nothing to do after step {step}; try steps={step + max(before.steps - step, 100)}")
    return config


def _unread_knobs(settings: Mapping[str, object]) -> dict[str, object]:
    """Defaults for what only other methods read, where the method is changed."""
    method = METHODS.get(method_name(str(settings.get("method"))) or "")
    knobs = frozenset().union(*(m.knobs for m in METHODS.values())) - (method.knobs if method else frozenset())
    return {name: RunConfig.model_fields[name].default for name in sorted(knobs - set(settings))} if method else {}


def _differences(before: RunConfig, config: RunConfig, changes: Mapping[str, object]) -> dict[str, object]:
    after, then = config.model_dump(mode="json"), before.model_dump(mode="json")
    return {name: value for name, value in after.items() if value != then[name] and (name != "name" or name in changes)}


def _checkpoint(origin: RunFolder, step: int) -> Path | None:
    there = origin.checkpoint_steps()
    if step != 0 and step not in there:
        known = f"it has some at {', '.join(map(str, there))}, and step 0 starts again" if there else "it has none; step 0 starts again"
        raise LaunchError(f"run {origin.run_id} has no checkpoint at step {step}; {known}")
    return origin.checkpoints / f"step-{step:08d}" if step else None


def _take_over(checkpoint: Path, target: Path) -> None:
    """The same files under another name where the disk can do that, which costs no room: a checkpoint is never written to again."""
    draft = target / f".{checkpoint.name}.{os.getpid()}"
    shutil.copytree(checkpoint, draft, copy_function=_link_or_copy)
    draft.rename(target / checkpoint.name)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(source, target)


def fork_command(parent: str, step: int, changes: Mapping[str, object]) -> list[str]:
    """The command a person could type for a fork."""
    return ["python", "-m", "grpo_core", "fork", parent, "--step", str(step), *flags(changes)]


def repeating_command(fork: Fork | None, config: RunConfig) -> list[str]:
    """The command that makes the same run again: `train`, or `fork` for a fork."""
    return fork_command(fork.parent, fork.step, fork.changes) if fork else command_line(config)

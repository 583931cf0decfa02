"""The loop around the step: resume, stop, checkpoints, progress. Knows nothing of where traces go or who asks it to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from grpo_core.config import RunConfig
from grpo_core.records import StepTrace
from grpo_core.trainer import checkpoint
from grpo_core.trainer.checkpoint import Needed, Position, nothing_needed
from grpo_core.trainer.state import Progress, build_state
from grpo_core.trainer.step import run_step


@dataclass(frozen=True, slots=True)
class Start:
    """What is known once the model is loaded: the text of every token id, and the step the loop begins with."""

    pieces: list[str]
    first_step: int


@dataclass(frozen=True, slots=True)
class TrainResult:
    """Steps done in the run's whole life, whether it was stopped before its last, and whether a checkpoint holds where it stands."""

    steps_done: int
    stopped: bool
    saved: bool


def train(
    config: RunConfig,
    *,
    cache_dir: Path,
    checkpoint_dir: Path,
    record: Callable[[StepTrace], None],
    flush: Callable[[], None],
    on_start: Callable[[Start], None],
    progress: Progress,
    should_stop: Callable[[], bool],
    save_when_stopped: Callable[[], bool] = lambda: True,
    needed: Needed = nothing_needed,
    resume: bool = False,
    attempt: int = 0,
) -> TrainResult:
    """Train to `config.steps`, or until `should_stop` says so after a step; a checkpoint is written either way, unless a stop is not to.

    `needed` says which older checkpoints are to be kept besides the newest.

    `record` gets every step's trace; `flush` is called before a checkpoint, so that no checkpoint is ahead of the store.
    `progress` gets (phase, done, total) of whatever takes time outside of steps. Raises the named errors of config, task and model.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    progress("loading the model", 0, 0)
    state = build_state(config, cache_dir=cache_dir, progress=progress)
    position = checkpoint.load_newest(state, checkpoint_dir) if resume else Position(0, 0.0)
    on_start(Start(state.policy.pieces(), position.steps_done))
    stopped = saved = False
    while position.steps_done < config.steps and not stopped:
        step = position.steps_done
        trace = run_step(state, step, attempt=attempt, elapsed_s=position.elapsed_s, last=step + 1 == config.steps)
        record(trace)
        position = Position(step + 1, trace.elapsed_s)
        stopped = should_stop() and position.steps_done < config.steps
        over = position.steps_done == config.steps or (stopped and save_when_stopped())
        saved = over or _due(config, position.steps_done)
        if saved:
            progress("writing a checkpoint", position.steps_done, config.steps)
            flush()
            checkpoint.save(state, checkpoint_dir, position, needed)
    return TrainResult(position.steps_done, stopped, saved)


def _due(config: RunConfig, steps_done: int) -> bool:
    return bool(config.checkpoint_every) and steps_done % config.checkpoint_every == 0


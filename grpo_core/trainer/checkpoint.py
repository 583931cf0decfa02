"""Checkpoints: the model as transformers saves it, and everything else a run needs to go on bit for bit."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from grpo_core.errors import ModelError, TaskError
from grpo_core.trainer.state import TrainState

_NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands: steps done, and seconds of training they took."""

    steps_done: int
    elapsed_s: float


Needed = Callable[[Iterable[int]], Collection[int]]
"""Which of these checkpoints, by steps done, must stay although they are old."""


def nothing_needed(checkpoints: Iterable[int]) -> Collection[int]:
    return ()


def save(state: TrainState, folder: Path, position: Position, needed: Needed = nothing_needed) -> Path:
    """Write step-<steps done>/ under `folder`, whole or not at all, and delete all but the newest `checkpoints_kept` and those `needed`.

    Raises OSError when the disk is full; earlier checkpoints are untouched.
    """
    target = folder / f"step-{position.steps_done:08d}"
    draft = folder / f".{target.name}.{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        state.model.save_pretrained(draft)
        state.policy.tokenizer.save_pretrained(draft)
        rest = {
            "optimizer": state.optimizer.state_dict(),
            "schedule": state.schedule.state_dict(),
            "sampler": state.sampler.state(),
            "memories": state.memories.state(),
            "first_entropy": state.memory.first_entropy,
            "probe_start": state.memory.probe_start,
            "preferences": None if state.preferences is None else (state.config.preferences, state.preferences.fingerprint),
            "elapsed_s": position.elapsed_s,
        }
        with open(draft / "trainer.pt", "wb") as handle:  # given a path, torch does not say that the disk is full
            torch.save(rest, handle)
        for file in draft.iterdir():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        if target.exists():
            shutil.rmtree(target)
        draft.rename(target)
    except Exception as error:
        raise (_of_the_system(error) or error) from error.__cause__
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    prune(folder, state.config.checkpoints_kept, needed)
    return target


def _of_the_system(error: BaseException | None) -> OSError | None:
    """The system's error behind one of torch's or safetensors', which name it in passing."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        if isinstance(error, SafetensorError) and (code := re.search(r"os error (\d+)", str(error))):
            return OSError(int(code[1]), os.strerror(int(code[1])))
        error = error.__context__
    return None


def prune(folder: Path, kept: int, needed: Needed = nothing_needed) -> None:
    """Delete all checkpoints but the newest `kept` and those `needed`."""
    found = checkpoints(folder)
    stay = needed([steps_done(path) for path in found])
    for path in found[:-kept]:
        if steps_done(path) not in stay:
            shutil.rmtree(path)


def steps_done(checkpoint: Path) -> int:
    return int(_NAME.fullmatch(checkpoint.name).group(1))


def checkpoints(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first."""
    return sorted(p for p in folder.glob("step-*") if _NAME.fullmatch(p.name) and (p / "trainer.pt").exists())


def load_newest(state: TrainState, folder: Path) -> Position:
    """Bring `state` to the newest readable checkpoint; a damaged one is passed over for the one before.

    Learning rate and weight decay are those of the state's own config: a fork may have changed them. Raises ModelError when there is none.
    """
    found = checkpoints(folder)
    for path in reversed(found):
        try:
            saved = torch.load(path / "trainer.pt", map_location="cpu", weights_only=False)
            weights = _weights(path)
        except Exception:  # whatever torch and safetensors raise on a torn file
            continue
        _load_weights(state, weights)
        state.optimizer.load_state_dict(saved["optimizer"])
        state.schedule.load_state_dict(saved["schedule"])
        _take_rates(state)
        state.sampler.restore(saved["sampler"])
        state.memories.restore(saved.get("memories", {}))  # older checkpoints have none
        state.memory.first_entropy, state.memory.probe_start = saved.get("first_entropy"), saved.get("probe_start")  # older checkpoints have none
        _check_preferences(state, saved.get("preferences"))
        return Position(steps_done(path), saved["elapsed_s"])
    raise ModelError(f"no readable checkpoint among {len(found)} in {folder}, so there is nothing to resume from; start a new run with the same config")


def _check_preferences(state: TrainState, saved: tuple[str, str] | None) -> None:
    """Raise TaskError when the same file no longer says what it said; a fork may name another."""
    if saved and state.preferences is not None and saved[0] == state.config.preferences and saved[1] != state.preferences.fingerprint:
        raise TaskError(f"{saved[0]} has changed since the checkpoint was written; put the old preferences back, or start a new run")


def _take_rates(state: TrainState) -> None:
    schedule, config = state.schedule, state.config
    schedule.base_lrs = [config.lr for _ in schedule.base_lrs]
    for group, share in zip(state.optimizer.param_groups, schedule.lr_lambdas, strict=True):
        group.update(initial_lr=config.lr, lr=config.lr * share(schedule.last_epoch), weight_decay=config.weight_decay)


def _weights(path: Path) -> dict[str, torch.Tensor]:
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"no weights in {path}")
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def _load_weights(state: TrainState, weights: dict[str, torch.Tensor]) -> None:
    if hasattr(state.model, "peft_config"):
        from peft import set_peft_model_state_dict  # only LoRA runs need it

        set_peft_model_state_dict(state.model, weights)
        return
    missing, unexpected = state.model.load_state_dict(weights, strict=False)
    tied = set(getattr(state.model, "_tied_weights_keys", None) or ())
    if unexpected or set(missing) - tied:
        raise ModelError(f"the checkpoint does not fit the model: missing {sorted(set(missing) - tied)}, unexpected {sorted(unexpected)}")

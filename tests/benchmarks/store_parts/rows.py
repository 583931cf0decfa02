"""The same rollouts as users keep them today: JSON lines, tables of Weights & Biases, TRL's parquet of completions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from grpo_core.records import GroupTrace, RolloutTrace, StepTrace
from storage.publish import sync

LISTS = ("token_ids", "logp", "logp_sampling", "entropy", "logp_delta", "logp_ref", "clipped")


def rows(trace: StepTrace) -> Iterator[dict[str, object]]:
    """One row per rollout with its per-token arrays; advantages and weights, equal for all its tokens, as one number."""
    return (_row(trace.step, group, rollout) for group in trace.groups for rollout in group.rollouts)


def append_jsonl(path: Path, trace: StepTrace, *, decimals: int | None = None) -> None:
    """The step's rows at the end of a file, flushed to disk."""
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(_plain(row, decimals)) + "\n" for row in rows(trace))
    sync(path)


def write_wandb_table(path: Path, trace: StepTrace) -> None:
    """The step as wandb.Table leaves it, a JSON file of its own: {"columns": […], "data": [[…], …]}."""
    table = [_plain(row) for row in rows(trace)]
    document = {"columns": list(table[0]), "data": [list(row.values()) for row in table], "ncols": len(table[0]), "nrows": len(table)}
    path.write_text(json.dumps(document), encoding="utf-8")
    sync(path)


def write_parquet(path: Path, trace: StepTrace) -> None:
    """The step as a parquet file of its own through pandas, as TRL writes its completions, with the per-token arrays beside them."""
    pd.DataFrame(list(rows(trace))).to_parquet(path)
    sync(path)


def write_trl_parquet(path: Path, trace: StepTrace) -> None:
    """What TRL's log_completions keeps: text, rewards and advantage of each rollout, nothing per token."""
    kept = [{name: value for name, value in row.items() if name not in (*LISTS, "weight", "length")} for row in rows(trace)]
    pd.DataFrame(kept).to_parquet(path)
    sync(path)


def read_jsonl_lines(path: Path, lines: int) -> list[dict]:
    """The last `lines` rows, their arrays as numpy."""
    with open(path, encoding="utf-8") as file:
        return [_arrays(json.loads(line)) for line in file.readlines()[-lines:]]


def read_wandb_table(path: Path) -> list[dict]:
    """All rows, their arrays as numpy."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return [_arrays(dict(zip(document["columns"], row))) for row in document["data"]]


def _row(step: int, group: GroupTrace, rollout: RolloutTrace) -> dict[str, object]:
    written = rollout.completion
    return {
        "step": step,
        "prompt": group.prompt.text,
        "completion": written.text,
        **{f"reward_{name}": value for name, value in rollout.reward.parts.items()},
        "advantage": float(rollout.advantages[0]),
        "weight": float(rollout.weights[0]),
        "length": len(written.token_ids),
        "token_ids": written.token_ids,
        "logp": written.logp,
        "logp_sampling": written.logp_sampling if rollout.logp_ref is not None else None,  # the same numbers without another engine
        "entropy": written.entropy,
        "logp_delta": rollout.logp_delta,
        "logp_ref": rollout.logp_ref,
        "clipped": rollout.clipped,
    }


def _plain(row: dict[str, object], decimals: int | None = None) -> dict[str, object]:
    return {name: _listed(value, decimals) if isinstance(value, np.ndarray) else value for name, value in row.items()}


def _listed(values: np.ndarray, decimals: int | None) -> list:
    return (values if decimals is None or values.dtype != "f4" else values.astype("f8").round(decimals)).tolist()


def _arrays(row: dict[str, object]) -> dict[str, object]:
    return {name: np.asarray(value) if isinstance(value, list) else value for name, value in row.items()}

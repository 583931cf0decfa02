"""Small steps and statuses made by hand for tests of the store and of whatever reads it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from grpo_core.launch.status import RunStatus
from storage.schema import STEPS, TABLES

TEXTS = ("12+30=42", "<b>bold</b><script>alert(1)</script>", "naïve — 日本語 🙂", "", "line\nbreak\t|pipe| `code`", "'; drop table steps; --")


def make_step_tables(step: int, groups: int = 2, group_size: int = 4, tokens: int = 16, seed: int = 0) -> dict[str, pa.Table]:
    """One step as Arrow tables of schema.TABLES, the same for the same arguments.

    Rewards are 0 or 1; the last rollout of every group failed scoring; odd rollouts were not rescored; logp_ref is
    missing everywhere. Rollout r of a group has `tokens - r % 3` tokens, at least 0.
    """
    rng = np.random.default_rng([seed, step])
    rollouts = [_rollout(rng, step, g, r, group_size, tokens) for g in range(groups) for r in range(group_size)]
    group_rows = [_group(step, g, [r for r in rollouts if r["group_index"] == g]) for g in range(groups)]
    rows = {"steps": [_step(step, group_rows, rollouts)], "groups": group_rows, "rollouts": rollouts}
    return {name: _table(name, found) for name, found in rows.items()}


def status_of(**changes) -> RunStatus:
    """A running run's status with some fields changed."""
    known = dict(
        run_id="r", state="running", phase="training", phase_done=0, phase_total=0, step=84, steps=150, started_at=0.0, updated_at=90.0, ended_at=None,
        seconds_per_step=1.0, eta_s=130.0, exit_code=None, message="", pid=1, host="h", missing_steps=0, attempt=0,
    )  # fmt: skip
    return RunStatus(**(known | changes))


def _table(name: str, rows: list[dict]) -> pa.Table:
    schema = TABLES[name].arrow
    assert all(set(row) == set(schema.names) for row in rows), f"the factory and the schema of {name} disagree"
    return pa.Table.from_pylist(rows, schema=schema)


def _rollout(rng: np.random.Generator, step: int, group: int, index: int, group_size: int, tokens: int) -> dict:
    length = max(0, tokens - index % 3)
    failed = index == group_size - 1
    reward = float(rng.integers(0, 2))
    trace = lambda scale: rng.normal(0, scale, length).astype("f4")  # noqa: E731
    return {
        "step": step,
        "group_index": group,
        "rollout_index": index,
        "text": TEXTS[(step + index) % len(TEXTS)],
        "reward": None if failed else reward,
        "reward_parts": [("exact", None if failed else reward), ("format", 0.25)],
        "correct": None if failed else reward > 0.5,
        "failure": "ValueError: no number in '<b>'" if failed else "",
        "advantage": reward - 0.5,
        "length": length,
        "finish": "length" if index % 3 == 0 else "stop",
        "source": "policy",
        "age": 0,
        "rescored": index % 2 == 0,
        "thinned": None,
        "delta_sum": 0.1 * (index - 1) if index % 2 == 0 else None,
        "repetition": 0.25 if length >= 3 else None,
        "gwhes": None,
        "nthr": None,
        "items": None,
        "token_ids": rng.integers(0, 50, length, "i4"),
        "logp_sampling": -np.abs(trace(1.0)),
        "logp_gap": np.zeros(length, "f4"),
        "logp_delta": trace(0.1) if index % 2 == 0 else None,
        "logp_ref": None,
        "logp_old": None,
        "entropy": np.abs(trace(1.0)),
        "advantages": np.full(length, reward - 0.5, "f4"),
        "weights": np.ones(length, "f4"),
        "clipped": rng.integers(-1, 2, length).astype("i1"),
    }


def _group(step: int, index: int, rollouts: list[dict]) -> dict:
    scored = [r["reward"] for r in rollouts if r["reward"] is not None]
    correct = sum(bool(r["correct"]) for r in rollouts)
    outcome = "mixed" if len(set(scored)) > 1 else "all_pass" if correct else "all_fail"
    return {
        "step": step,
        "group_index": index,
        "group_id": f"s{step}.g{index}",
        "prompt_id": f"p{index}",
        "prompt_hash": f"{index:016x}",
        "prompt": f"1{index}+2{step}=",
        "prompt_ids": [1, 10 + index, 11, 2, step % 50, 12],
        "answer": str(10 + index + 20 + step),
        "rewards": [r["reward"] for r in rollouts],
        "reward_mean": float(np.mean(scored)) if scored else None,
        "reward_std": float(np.std(scored)) if scored else None,
        "baseline": float(np.mean(scored)) if scored else None,
        "correct": correct,
        "size": len(rollouts),
        "replayed": 0,
        "hint_tokens": 0,
        "outcome": outcome,
        "kept": outcome == "mixed",
        "reason": "" if outcome == "mixed" else "all rewards equal",
        "sampling_round": 0,
        "tokens": sum(r["length"] for r in rollouts),
        "delta_correct": -0.01,
        "delta_wrong": -0.02,
        "diversity": 0.5,
        "distinct_3": 0.75,
        "conflict_run": 2,
        "conflict_mid": 1,
        "conflict_shared": 1,
        "conflict_net": -0.5,
        "sampler_score": None,
        "greedy_reward": None,
        "sampler_probability": None,
        "prompt_state": None,
    }


def _step(step: int, groups: list[dict], rollouts: list[dict]) -> dict:
    scored = [r["reward"] for r in rollouts if r["reward"] is not None]
    tokens = sum(r["length"] for r in rollouts)
    known = {
        "step": step,
        "attempt": 0,
        "finished_at": 1.8e9 + step,
        "elapsed_s": 0.5 * (step + 1),
        "duration_s": 0.5,
        "updates": 2,
        "missing_before": 0,
        "groups": len(groups),
        "groups_kept": sum(g["kept"] for g in groups),
        "groups_hinted": 0,
        "groups_all_fail": sum(g["outcome"] == "all_fail" for g in groups),
        "groups_all_pass": sum(g["outcome"] == "all_pass" for g in groups),
        "groups_tied": 0,
        "rollouts": len(rollouts),
        "rollouts_failed": len(rollouts) - len(scored),
        "tokens": tokens,
        "tokens_per_s": tokens / 0.5,
        "reward_mean": float(np.mean(scored)) if scored else None,
        "reward_parts": [("exact", 0.5), ("format", 0.25)],
        "correct_rate": float(np.mean(scored)) if scored else None,
        "entropy": 1.0 / (step + 1),
        "grad_norm": 0.1,
        "ratio_max": float("nan"),
        "length_mean": tokens / len(rollouts),
        "length_max": max(r["length"] for r in rollouts),
        "update_rows": [_update(u, tokens) for u in range(2)],
        "position_rows": [{"bin": b, "first": b, "last": b, "tokens": len(rollouts), "entropy": 1.0} for b in range(3)],
    }
    return {name: known.get(name) for name in STEPS.arrow.names}


def _update(index: int, tokens: int) -> dict:
    return {"update": index, "epoch": index, "minibatch": 0, "loss": 0.1 * index, "terms": [("policy", 0.1 * index)], "tokens": tokens, "lr": 2e-4}

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from grpo_core.trace.tables import to_tables
from storage.schema import TABLES
from tests.trace.worked import PROBE, WORKED, A, B, rollout, step_trace, with_rollouts


def test_schemas_are_exactly_the_stores() -> None:
    for trace in (WORKED, step_trace(0), replace(WORKED, groups=(), updates=())):
        tables = to_tables(trace)
        assert {name: t.schema for name, t in tables.items()} == {name: t.arrow for name, t in TABLES.items()}
        for table in tables.values():
            table.validate(full=True)


def test_steps_row_arrives_with_its_structs() -> None:
    (row,) = to_tables(WORKED, missing_before=2)["steps"].to_pylist()
    assert (row["step"], row["missing_before"], row["kl_ref"]) == (7, 2, None)
    assert [u["terms"] for u in row["update_rows"]] == [[("clip", 0.5)], [("clip", -0.2), ("kl_ref_k3", 0.1)]]
    assert [b["tokens"] for b in row["position_rows"]] == [4, 3, 1]
    assert dict(row["reward_parts"]) == pytest.approx({"answer": 2 / 3, "format": 0.3})


def test_groups_by_hand() -> None:
    mixed, failed = to_tables(WORKED)["groups"].to_pylist()
    assert mixed == {
        "step": 7, "group_index": 0, "group_id": "s7.g0", "prompt_id": "p1", "prompt": "1+1=", "prompt_ids": [1, 10, 1, 11], "answer": "2",
        "prompt_hash": hashlib.sha256(np.array([1, 10, 1, 11], "<i4").tobytes()).hexdigest()[:16],
        "rewards": [1.0, 0.0], "reward_mean": 0.5, "reward_std": 0.5, "baseline": 0.5,
        "correct": 1, "size": 2, "replayed": 0, "hint_tokens": 0, "outcome": "mixed", "kept": True, "reason": "", "sampling_round": 0,
        "tokens": 5, "delta_correct": -0.25, "delta_wrong": -1.0, "diversity": 1.0, "distinct_3": 1.0,
        "conflict_run": 0, "conflict_mid": 0, "conflict_shared": 0, "conflict_net": None, "sampler_score": None, "sampler_probability": None,
        "greedy_reward": None,
        "prompt_state": None,
    }  # fmt: skip
    assert (failed["rewards"], failed["reward_mean"], failed["reward_std"], failed["baseline"]) == ([1.0, None], 1.0, None, None)
    assert (failed["correct"], failed["kept"], failed["reason"], failed["sampling_round"]) == (1, False, "1 of 2 rollouts scored", 1)


def test_conflicts_and_scores_reach_every_table() -> None:
    """Two rollouts with opposite advantages start with the same token, end with the same token, and differ between."""
    same_ends = [replace(r, completion=replace(r.completion, token_ids=np.array(ids, "i4"))) for r, ids in ((A, [3, 9]), (B, [3, 4, 9]))]
    trace = with_rollouts(replace(same_ends[0], gwhes=0.5), replace(same_ends[1], nthr=np.array([0.1, 0.2, 0.3], "f4")), probe=PROBE)
    trace = replace(trace, groups=(replace(trace.groups[0], sampler_score=0.3, sampler_probability=0.01, greedy_reward=0.5), *trace.groups[1:]))
    tables = to_tables(trace)
    step, group, rollouts = tables["steps"].to_pylist()[0], tables["groups"].to_pylist()[0], tables["rollouts"].to_pylist()
    assert (group["conflict_run"], group["conflict_mid"], group["conflict_shared"], group["conflict_net"]) == (4, 0, 2, 0.0)
    assert (step["conflict_run"], step["conflict_head"], step["conflict_tail"], step["conflict_shared"]) == (4, 2, 2, 2)
    assert step["position_conflicts"] == [2, 1, 1]
    assert (group["sampler_score"], group["sampler_probability"], group["greedy_reward"]) == (0.3, 0.01, 0.5)
    assert [r["gwhes"] for r in rollouts] == [0.5, None] and rollouts[1]["nthr"] == pytest.approx([0.1, 0.2, 0.3])
    assert (step["probe_logp"], step["probe_delta"], step["probe_fell"], step["probe_answers"]) == (-0.5, -2.0, 0.75, 64)


def test_rollouts_by_hand() -> None:
    a, b, c, d = to_tables(WORKED)["rollouts"].to_pylist()
    assert b == {
        "step": 7, "group_index": 0, "rollout_index": 1, "text": "1 3 <b>", "reward": 0.0, "reward_parts": [("answer", 0.0), ("format", pytest.approx(0.1))],
        "correct": False, "failure": "", "advantage": -1.0, "length": 3, "finish": "length", "source": "policy", "age": 0, "rescored": True, "thinned": None,
        "delta_sum": -3.0, "repetition": 0.0, "gwhes": None, "nthr": None, "items": None,
        "token_ids": [5, 6, 7], "logp_sampling": [-2, -2, -5], "logp_gap": [0, 0, 0], "logp_delta": [-1, -1, -1], "logp_ref": None, "logp_old": None,
        "entropy": [0, 1, 2], "advantages": [-1, -1, -1], "weights": [1, 1, 1], "clipped": [0, 0, -1],
    }  # fmt: skip
    assert (a["logp_sampling"], a["logp_gap"]) == ([-1, -3.5], [0, 0.5])
    assert (c["group_index"], c["rollout_index"], c["rescored"], c["logp_delta"]) == (1, 0, False, None)
    assert (d["reward"], d["correct"], d["failure"], d["reward_parts"]) == (None, None, "ValueError: no number", [("answer", None), ("format", 1.0)])


def test_missing_traces_are_null_between_present_ones() -> None:
    with_ref = replace(B, logp_ref=np.array([-9, -8, -7], "f4"))
    rows = to_tables(with_rollouts(A, with_ref, A))["rollouts"]
    assert rows["logp_ref"].to_pylist() == [None, [-9, -8, -7], None]


def test_log_probs_are_subtracted_before_the_store_rounds_them() -> None:
    near = rollout(logp=(-1.0001,), gap=(1e-4,), entropy=(0,), reward=A.reward)
    table = to_tables(with_rollouts(near))["rollouts"]
    assert table.schema.field("logp_gap").type == pa.list_(pa.float32())
    assert table["logp_gap"].to_pylist()[0][0] == pytest.approx(1e-4, rel=2e-3)  # half a float32 step of 1.0 is 6e-8


def test_empty_completion_has_empty_lists_and_no_advantage() -> None:
    row = to_tables(with_rollouts(rollout(logp=(), entropy=(), delta=(), reward=A.reward), A))["rollouts"].to_pylist()[0]
    assert (row["token_ids"], row["logp_delta"], row["logp_ref"], row["advantage"], row["length"]) == ([], [], None, None, 0)


def test_text_that_utf8_cannot_hold_does_not_cost_the_step() -> None:
    odd = replace(A, completion=replace(A.completion, text="a\ud800b\x00<script>"))
    assert to_tables(with_rollouts(odd, A))["rollouts"]["text"].to_pylist() == ["a?b\x00<script>", "1 2"]


def test_a_group_nobody_could_judge_has_no_count_of_correct() -> None:
    unjudged = replace(A, reward=replace(A.reward, correct=None))
    (row,) = to_tables(with_rollouts(unjudged, unjudged))["groups"].to_pylist()
    assert row["correct"] is None

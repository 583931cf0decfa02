from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from grpo_core.records import Reward, StepTrace
from grpo_core.trace import rollups
from grpo_core.trace.flat import flatten
from grpo_core.trace.groups import group_figures
from grpo_core.trace.rollups import k3
from grpo_core.trace.tables import to_tables
from storage.schema import POSITION, STEPS, UPDATE
from tests.trace.worked import EVALUATION, FAILED, UPDATES, WORKED, A, B, C, D, rollout, step_trace, with_rollouts


def steps_row(trace: StepTrace, **more: int) -> dict[str, object]:
    flat = flatten(trace)
    return rollups.steps_row(flat, group_figures(flat), **more)


def k3_of(*differences: float) -> float:
    return sum(math.exp(d) - 1 - d for d in differences) / len(differences)


BY_HAND = {
    "step": 7, "attempt": 1, "missing_before": 3, "finished_at": 1.8e9, "elapsed_s": 32.0,
    "duration_s": 4.0, "generate_s": 1.0, "score_s": 0.25, "update_s": 2.0, "rescore_s": 0.5, "evaluate_s": 0.0,
    "updates": 2, "groups": 2, "groups_kept": 1, "groups_hinted": 0,
    "groups_all_fail": 0,
    "groups_all_pass": 1,  # group 1: D has no score, and the only scored rollout C is correct
    "groups_tied": 0,  # one scored rollout ties with nothing
    "rollouts": 4, "rollouts_replayed": 0, "replay_age": None, "rollouts_failed": 1, "tokens": 8, "prompt_tokens": 8, "tokens_per_s": 2.0,
    "reward_mean": 2 / 3,  # 1, 0, 1; the failure is no 0
    "reward_group_std": 0.5,  # group 0: 1 and 0; group 1 has one reward and no spread
    "reward_parts": {"answer": 2 / 3, "format": 0.3},  # (0.5 + 0.1 + 0.3) / 3; D's format counts as little as D
    "reward_part_stds": {"answer": math.sqrt(2) / 3, "format": math.sqrt(0.08 / 3)},
    "reward_length_corr": -math.sqrt(3) / 2,  # rewards 1 0 1, lengths 2 3 1
    "paid_length_corr": None,  # reward is correctness
    "inverted_pairs": 0.0,  # A above B; D has no verdict
    "correct_rate": 2 / 3,
    "logp_correct": -1.5,  # tokens -1 -3 of A, -0.5 of C; the mean of rollout means would be -1.25
    "logp_wrong": -3.0,
    "logp_sum_correct": -2.25,  # -4 and -0.5
    "logp_sum_wrong": -9.0,
    "delta_correct": -0.25,  # A only: C was not scored again
    "delta_wrong": -1.0,
    "delta_zero": 0.3,  # D only
    "displaced_correct": 1.0,  # A: 0.5 - 1 < 0
    "delta_sum_correct": -0.5, "delta_sum_quantiles": [-0.5] * 5,
    "entropy": 8.5 / 8,
    "entropy_cov": 0.48,  # log-probs -1 -3 with A = 1 and -2 -2 -5 with A = -1
    "grad_norm": 3.0, "grad_norm_max": 4.0, "loss": 0.2, "objective": None, "reward_weights": None,
    "clip_low": 0.2, "clip_high": 0.4,  # the first update cannot clip and does not count
    "kl_step": k3_of(0.5, -1, -1, -1, -1, 0.2, 0.4),
    "kl_ref": None,
    "kl_sampler": (math.exp(0.5) - 1.5) / 8,
    "sampler_prob_diff": (math.exp(-3) - math.exp(-3.5)) / 8,
    "ess": None,
    "repetition": 0.0, "loop_rate": 0.0,  # only B has three tokens
    "diversity": (1 + 1 - (math.exp(-1) * 0.01 ** (1 / 3) + 0.005 ** (1 / 3)) / 2) / 2,  # A and B share nothing; C and D the first token
    "conflict_groups": 1, "conflict_tokens": 5, "conflict_run": 0,
    "conflict_head": 0, "conflict_tail": 0, "conflict_mid": 0, "conflict_shared": 0, "conflict_pushed_down": 0, "position_conflicts": [0, 0, 0],
    "ratio_max": 1.5, "length_mean": 2.0, "length_max": 3, "truncated_rate": 0.25, "lr": 2e-3,
    "eval_correct": None, "eval_reward": None, "eval_gold_logp": None, "eval_prompts": None,
    "probe_logp": None, "probe_delta": None, "probe_fell": None, "probe_answers": None,
}  # fmt: skip


def test_every_scalar_by_hand() -> None:
    row = steps_row(WORKED, missing_before=3)
    assert set(row) == {c.name for c in STEPS.columns} == {*BY_HAND, "update_rows", "position_rows"}
    row["reward_parts"], row["reward_part_stds"] = dict(row["reward_parts"]), dict(row["reward_part_stds"])
    for name, expected in BY_HAND.items():
        assert row[name] == (expected if expected is None else pytest.approx(expected, rel=1e-6)), name


def judged(reward: float, correct: bool, tokens: int):
    return rollout(logp=[-1.0] * tokens, entropy=[1.0] * tokens, reward=Reward(parts={}, total=reward, correct=correct))


def two_groups(*rollouts) -> StepTrace:
    first, second = (replace(group, rollouts=some) for group, some in zip(WORKED.groups, (rollouts[:4], rollouts[4:])))
    return replace(WORKED, groups=(first, second))


def test_pairs_in_which_the_wrong_one_earns_more() -> None:
    """Group 0: rights at 1 and 2, wrongs at 1 (a tie) and 3 (above both); group 1: a right at 9 that no wrong of group 0 is held against, a wrong at 0."""
    trace = two_groups(judged(2, True, 1), judged(1, False, 1), judged(3, False, 1), judged(1, True, 1), judged(9, True, 1), judged(0, False, 1))
    assert steps_row(trace)["inverted_pairs"] == pytest.approx(2 / 5)
    assert steps_row(two_groups(*[judged(1, True, 1)] * 6))["inverted_pairs"] is None


@pytest.mark.parametrize("worth", [1.0, 3.0])
def test_what_is_paid_besides_is_told_from_what_being_correct_earns(worth: float) -> None:
    lengths, rights = (2, 4, 9, 5, 3, 7), (True, False, True, False, True, False)
    by_length = two_groups(*[judged(worth * right + 0.01 * n, right, n) for n, right in zip(lengths, rights)])
    assert steps_row(by_length)["paid_length_corr"] == pytest.approx(1.0)
    otherwise = two_groups(*[judged(worth * right + 0.01 * n, right, length) for n, right, length in zip((1, 0, 1, 2, 1, 1), rights, lengths)])
    assert abs(steps_row(otherwise)["paid_length_corr"]) < 0.5
    correctness_alone = two_groups(*[judged(worth * right / 3, right, n) for n, right in zip(lengths, rights)])
    assert steps_row(correctness_alone)["paid_length_corr"] is None


def test_position_bins_by_hand() -> None:
    bins = steps_row(WORKED)["position_rows"]
    assert [set(b) for b in bins] == [{f.name for f in POSITION}] * 3
    assert [b["tokens"] for b in bins] == [4, 3, 1]
    assert [(b["bin"], b["first"], b["last"]) for b in bins] == [(0, 0, 0), (1, 1, 1), (2, 2, 2)]
    assert [b["entropy"] for b in bins] == pytest.approx([2.5 / 4, 4 / 3, 2.0])
    assert [b["logp"] for b in bins] == pytest.approx([-4.5 / 4, -2.0, -5.0])
    assert [b["delta_correct"] for b in bins] == [pytest.approx(0.5), pytest.approx(-1.0), None]
    assert [b["delta_wrong"] for b in bins] == pytest.approx([-1.0, -1.0, -1.0])
    assert [b["clipped"] for b in bins] == pytest.approx([0.0, 1 / 3, 1.0])
    assert [(b["tokens_rescored_correct"], b["tokens_rescored_wrong"]) for b in bins] == [(1, 1), (1, 1), (0, 1)]


def long_rollout(tokens: int):
    return rollout(logp=-np.arange(tokens), entropy=np.zeros(tokens), reward=A.reward)


@pytest.mark.parametrize(("longest", "width"), [(1, 1), (64, 1), (65, 2), (128, 2), (129, 3), (1000, 16)])
def test_at_most_64_bins_of_equal_width(longest: int, width: int) -> None:
    bins = steps_row(with_rollouts(long_rollout(longest)))["position_rows"]
    assert len(bins) == math.ceil(longest / width) <= 64
    assert sum(b["tokens"] for b in bins) == longest
    assert [b["first"] for b in bins] == [i * width for i in range(len(bins))]
    assert bins[-1]["last"] == longest - 1
    assert bins[0]["logp"] == pytest.approx(-(width - 1) / 2 if longest >= width else 0.0)


def test_update_rows_keep_every_field() -> None:
    first, second = steps_row(WORKED)["update_rows"]
    assert set(first) == {f.name for f in UPDATE}
    assert first["clip_low"] is None and second["entropy"] is None
    assert dict(second["terms"]) == {"clip": -0.2, "kl_ref_k3": 0.1}


def test_all_wrong_leaves_correct_figures_empty() -> None:
    row = steps_row(with_rollouts(B, B))
    assert [row[n] for n in ("logp_correct", "logp_sum_correct", "delta_correct", "displaced_correct", "delta_zero")] == [None] * 5
    assert (row["correct_rate"], row["groups_all_fail"], row["groups_all_pass"], row["groups_tied"]) == (0.0, 1, 0, 1)


def test_different_rewards_can_all_be_wrong() -> None:
    better = replace(B, reward=replace(B.reward, total=0.2))
    row = steps_row(with_rollouts(B, better))
    assert (row["groups_all_fail"], row["groups_tied"]) == (1, 0)


def test_nothing_rescored_leaves_changes_empty() -> None:
    row = steps_row(with_rollouts(C, C))
    assert [row[n] for n in ("delta_correct", "delta_wrong", "delta_zero", "displaced_correct", "kl_step")] == [None] * 5
    assert row["position_rows"][0]["delta_correct"] is None


def test_nothing_scored_is_not_a_zero_reward() -> None:
    row = steps_row(with_rollouts(D, D))
    assert [row[n] for n in ("reward_mean", "reward_group_std", "correct_rate", "groups_all_fail", "groups_all_pass")] == [None] * 5
    assert row["reward_parts"] == [] and row["rollouts_failed"] == 2


def test_a_group_without_any_score_is_neither_all_fail_nor_all_pass() -> None:
    mixed, unscored = WORKED.groups[0], replace(WORKED.groups[1], rollouts=(D, D))
    row = steps_row(replace(WORKED, groups=(mixed, unscored)))
    assert (row["groups_all_fail"], row["groups_all_pass"], row["groups_tied"]) == (0, 0, 0)


def test_unknown_correctness_is_neither_correct_nor_wrong() -> None:
    unjudged = replace(A, reward=replace(A.reward, correct=None))
    row = steps_row(with_rollouts(unjudged, B))
    assert (row["logp_correct"], row["logp_wrong"], row["correct_rate"], row["groups_all_fail"]) == (None, pytest.approx(-3.0), 0.0, 0)


def test_no_update_may_clip() -> None:
    row = steps_row(replace(WORKED, updates=UPDATES[:1]))
    assert (row["clip_low"], row["clip_high"]) == (None, None)
    assert [b["clipped"] for b in row["position_rows"]] == [None] * 3


def test_kl_to_the_reference_over_the_tokens_that_have_one() -> None:
    with_ref = replace(A, logp_ref=np.array([-1.5, -2.0], "f4"))  # d = -0.5, 1
    assert steps_row(with_rollouts(with_ref, B))["kl_ref"] == pytest.approx(k3_of(-0.5, 1.0))


def test_k3_estimates_kl_from_the_sampled_side() -> None:
    # own (0.9, 0.1), other (0.5, 0.5): KL(own ‖ other) = 0.9 ln 1.8 + 0.1 ln 0.2 = 0.3681; the other way round 0.5108
    own, other = np.log([0.9] * 9 + [0.1]), np.log([0.5] * 10)
    assert k3(other, own) == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2))


def test_evaluation_where_there_is_one() -> None:
    row = steps_row(replace(WORKED, evaluation=EVALUATION))
    assert (row["eval_correct"], row["eval_reward"], row["eval_gold_logp"], row["eval_prompts"]) == (0.75, 0.8, None, 128)


def test_nan_of_an_update_stays_visible() -> None:
    row = steps_row(replace(WORKED, updates=(UPDATES[0], replace(UPDATES[1], grad_norm=math.nan))))
    assert math.isnan(row["grad_norm"]) and math.isnan(row["grad_norm_max"])


def test_empty_completions_and_steps_without_groups() -> None:
    empty = rollout(logp=(), entropy=(), delta=(), reward=A.reward)
    row = steps_row(with_rollouts(empty, replace(empty, reward=FAILED)))
    assert (row["tokens"], row["length_max"], row["logp_correct"], row["entropy"], row["position_rows"]) == (0, 0, None, None, [])
    assert row["displaced_correct"] == 0.0
    row = steps_row(replace(WORKED, groups=(), updates=()))
    assert (row["groups"], row["length_mean"], row["length_max"], row["loss"], row["lr"], row["updates"]) == (0, None, None, None, None, 0)


def test_empty_completion_beside_a_full_one_shifts_nothing() -> None:
    empty = rollout(logp=(), entropy=(), delta=(), reward=B.reward)
    alone, beside = steps_row(with_rollouts(A)), steps_row(with_rollouts(empty, A, empty))
    for name in ("logp_correct", "logp_sum_correct", "delta_correct", "displaced_correct", "entropy", "kl_step", "kl_sampler", "position_rows"):
        assert beside[name] == alone[name], name


def test_a_trace_of_the_wrong_length_is_refused() -> None:
    short = replace(B, logp_delta=np.zeros(2, "f4"))
    with pytest.raises(ValueError, match="logp_delta of rollout 1 of the step has 2 entries for 3 tokens"):
        steps_row(with_rollouts(A, short))


def test_a_larger_step_agrees_with_plain_loops() -> None:
    trace = step_trace(3, groups=5, size=6, tokens=200)
    row = steps_row(trace)
    rollouts = [r for g in trace.groups for r in g.rollouts]
    right = [r for r in rollouts if r.reward.correct]
    assert row["logp_correct"] == pytest.approx(np.concatenate([r.completion.logp for r in right]).mean(), rel=1e-5)
    assert row["logp_sum_correct"] == pytest.approx(np.mean([r.completion.logp.sum() for r in right]), rel=1e-5)
    assert row["displaced_correct"] == np.mean([r.logp_delta.sum() < 0 for r in right])
    some = row["position_rows"][5]
    inside = [r.completion.entropy[some["first"] : some["last"] + 1] for r in rollouts]
    assert some["entropy"] == pytest.approx(np.concatenate(inside).mean(), rel=1e-5)
    assert some["tokens"] == sum(map(len, inside))


def test_a_replayed_rollout_is_in_no_figure_of_what_the_policy_wrote() -> None:
    """Another group of two old rollouts and one in the mixed group, all right, long, cut and looping: only the counts of replays see them."""
    old = rollout(
        logp=(-9,) * 6, entropy=(5,) * 6, delta=(1,) * 6, advantage=2.0, finish="length", reward=A.reward, gap=(0.5,) * 6,
    )  # fmt: skip
    old = replace(old, completion=replace(old.completion, source="replay", age=3, token_ids=np.zeros(6, "i4")), logp_old=np.full(6, -9.5, "f4"))
    first, second = WORKED.groups
    whole = replace(second, prompt=first.prompt, rollouts=(old, old), outcome="replayed", kept=True, reason="")
    trace = replace(WORKED, groups=(replace(first, rollouts=(*first.rollouts, old)), second, whole))
    plain, row = steps_row(WORKED), steps_row(trace)
    assert (row.pop("rollouts_replayed"), row.pop("replay_age")) == (3, 3.0)
    own = {name for name in row if not name.startswith("conflict") and name not in ("rollouts_replayed", "replay_age")}
    assert {name for name in own if row[name] != plain[name]} == set()
    assert row["conflict_tokens"] == plain["conflict_tokens"] + 6  # conflicts are of what is trained on
    groups, rollouts = (to_tables(trace)[name].to_pylist() for name in ("groups", "rollouts"))
    assert [(g["correct"], g["size"], g["replayed"]) for g in groups] == [(1, 3, 1), (1, 2, 0), (0, 2, 2)]
    assert (groups[0]["diversity"], groups[0]["delta_correct"]) == (1.0, -0.25) and groups[2]["diversity"] is None
    assert [(r["source"], r["age"]) for r in rollouts] == [("policy", 0)] * 2 + [("replay", 3)] + [("policy", 0)] * 2 + [("replay", 3)] * 2
    assert rollouts[2]["logp_old"] == [-9.5] * 6 and rollouts[2]["repetition"] == 0.75 and rollouts[0]["logp_old"] is None


def test_groups_of_one_cannot_tie() -> None:
    alone = tuple(replace(WORKED.groups[0], rollouts=(r,)) for r in (A, B))
    row = steps_row(replace(WORKED, groups=alone))
    assert (row["groups_all_fail"], row["groups_all_pass"], row["groups_tied"], row["reward_group_std"], row["diversity"]) == (None,) * 5
    assert (row["groups"], row["correct_rate"], row["conflict_groups"]) == (2, 0.5, 0)

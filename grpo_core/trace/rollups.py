"""The figures of one step that every run-level chart reads: one row of the `steps` table; numpy only.

Every key is a column of storage/schema.py and means what its sentence there says. None is "not available": a mean over
nothing, a divergence without a reference, an evaluation that was not made. Means over tokens weigh every token the same.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from grpo_core.records import Array, EvalTrace, ProbeTrace, StepTrace, UpdateTrace
from grpo_core.trace.flat import FlatStep, Lists
from grpo_core.trace.groups import GroupFigures
from storage.schema import POSITION_BINS, UPDATE

UPDATE_FIELDS = tuple(field.name for field in UPDATE)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NO_SPREAD = 1e-9
"""Reward below which a difference inside a group is what float arithmetic left of none."""
LOOPING = 0.5
"""A completion of which a larger share of 3-grams repeats counts as a loop: half of it says nothing new."""


def steps_row(flat: FlatStep, figures: GroupFigures, *, missing_before: int = 0) -> dict[str, object]:
    """The row of `steps` for this step: column name → number, None, or rows (lists of dicts).

    Replayed rollouts, worked answers and rollouts behind a hint count in what describes the updates and in conflicts, the latter in divergences too, and
    nowhere else: the rest is of what this policy wrote to the task's own prompts.
    """
    trace, written = flat.step, flat.written()
    hinted_P = np.array([bool(group.prompt.hint_ids) for group in flat.groups], "?")
    conflicted_N = (figures.conflicts.run | figures.conflicts.mid)[~flat.foreign_R[flat.rollout_N]]
    return {
        "step": trace.step,
        "attempt": trace.attempt,
        "missing_before": missing_before,
        **_clock(trace),
        **_counts(flat, written),
        **_replays(flat),
        **_rewards(written),
        **_likelihoods(written),
        **_displacement(written),
        **_divergences(flat.sampled()),
        **_updates(trace.updates),
        **_lengths(written),
        **_texts(figures.repetition_R[~flat.foreign_R], figures.diversity_P[~hinted_P]),
        **_conflicts(figures),
        **_evaluation(trace.evaluation),
        **_probe(trace.probe),
        "update_rows": update_rows(trace.updates),
        "position_conflicts": _position_conflicts(written, conflicted_N),
        "position_rows": position_rows(written, clipping=any(u.clip_low is not None or u.clip_high is not None for u in trace.updates)),
    }


def update_rows(updates: tuple[UpdateTrace, ...]) -> list[dict[str, object]]:
    """One entry per optimizer update; `terms` as (name, value) pairs, the form Arrow takes for a map."""
    return [{name: getattr(u, name) for name in UPDATE_FIELDS} | {"terms": list(u.terms.items())} for u in updates]


def position_rows(flat: FlatStep, *, clipping: bool = True) -> list[dict[str, object]]:
    """Means per bin of token position: at most POSITION_BINS bins of equal width, empty ones left out.

    `first` and `last` are the bin's positions from 0, both included. `clipped` is the share of the bin's tokens that were
    held at a bound in any update, None if `clipping` says that no update could clip.
    """
    longest, width, bins = _bins(flat)
    bin_N = flat.position_N // width
    tokens = np.bincount(bin_N, minlength=bins)
    bin_D, correct_D = bin_N[flat.per_token(flat.logp_delta.present_R, flat.logp)], flat.per_token(flat.correct_R, flat.logp_delta)
    correct = [np.bincount(bin_D[correct_D == is_correct], minlength=bins) for is_correct in (1, 0)]

    def means(bins_of: Array, values: Array, counts: Array) -> list[float | None]:
        sums = np.bincount(bins_of, weights=values, minlength=bins)
        return [total / n if n else None for total, n in zip(sums.tolist(), counts.tolist())]

    columns = {
        "bin": list(range(bins)),
        "first": [b * width for b in range(bins)],
        "last": [min((b + 1) * width, longest) - 1 for b in range(bins)],
        "tokens": tokens.tolist(),
        "entropy": means(bin_N, flat.entropy.values, tokens),
        "logp": means(bin_N, flat.logp.values, tokens),
        "delta_correct": means(bin_D[correct_D == 1], flat.logp_delta.values[correct_D == 1], correct[0]),
        "delta_wrong": means(bin_D[correct_D == 0], flat.logp_delta.values[correct_D == 0], correct[1]),
        "clipped": means(bin_N, flat.clipped.values != 0, tokens) if clipping else [None] * bins,
        "tokens_rescored_correct": correct[0].tolist(),
        "tokens_rescored_wrong": correct[1].tolist(),
    }
    return [row for row in (dict(zip(columns, values)) for values in zip(*columns.values())) if row["tokens"]]


def _bins(flat: FlatStep) -> tuple[int, int, int]:
    """(longest completion, tokens per bin, bins)."""
    longest = int(flat.length_R.max(initial=0))
    width = max(1, -(-longest // POSITION_BINS))
    return longest, width, -(-longest // width)


def _position_conflicts(flat: FlatStep, conflicted_N: Array) -> list[int]:
    _, width, bins = _bins(flat)
    bin_N = flat.position_N // width
    tokens = np.bincount(bin_N, minlength=bins)
    return np.bincount(bin_N[conflicted_N], minlength=bins)[tokens > 0].tolist()


def k3(logp_other: Array, logp_own: Array) -> float | None:
    """mean(exp(d) − 1 − d) with d = logp_other − logp_own, over tokens drawn from `own`: an estimate of KL(own ‖ other).

    Never negative and without bias (http://joschu.net/blog/kl-approx.html, k3). With top-p below 1 the tokens come from the
    truncated distribution, which the estimate does not correct. None without tokens.
    """
    return _k3_of(np.subtract(logp_other, logp_own, dtype="f8"))


def group_std(reward_R: Array, group_R: Array, groups: int) -> Array:
    """Standard deviation (n) of the scored rewards inside each group (groups,); NaN with fewer than two of them."""
    scored_R = ~np.isnan(reward_R)
    group_S, reward_S = group_R[scored_R], reward_R[scored_R]
    count = np.bincount(group_S, minlength=groups)
    mean = np.bincount(group_S, weights=reward_S, minlength=groups) / np.maximum(count, 1)
    variance = np.bincount(group_S, weights=(reward_S - mean[group_S]) ** 2, minlength=groups) / np.maximum(count, 1)
    return np.where(count >= 2, np.sqrt(variance), np.nan)


def _k3_of(d: Array) -> float | None:
    with np.errstate(over="ignore"):  # a log-prob that rose by over 709 nats makes an honest inf
        return mean(np.expm1(d) - d)


def mean(values: Array | Iterable[float]) -> float | None:
    """Mean in float64; None of nothing."""
    values = np.asarray(values, "f8")
    return float(values.mean()) if values.size else None


def _clock(trace: StepTrace) -> dict[str, float]:
    timings = trace.timings
    return {
        "finished_at": trace.finished_at,
        "elapsed_s": trace.elapsed_s,
        "duration_s": timings.total_s,
        "generate_s": timings.generate_s,
        "score_s": timings.score_s,
        "update_s": timings.update_s,
        "rescore_s": timings.rescore_s,
        "evaluate_s": timings.evaluate_s,
    }


def _counts(flat: FlatStep, written: FlatStep) -> dict[str, object]:
    """A group of one cannot differ in itself: where there are no others, whether groups all fail, all pass or tie is not available."""
    tokens, total_s = int(written.length_R.sum()), flat.step.timings.total_s
    size_P = np.bincount(written.group_R, minlength=len(flat.groups))
    groups = [group for group, size in zip(flat.groups, size_P.tolist(), strict=True) if size or not len(flat.length_R)]
    hinted = [group for group in flat.groups if group.prompt.hint_ids]
    together = not len(size_P) or int(size_P.max()) > 1
    judged = together and bool((written.correct_R >= 0).any())
    return {
        "groups": len(groups),
        "groups_kept": sum(g.kept for g in groups) + sum(g.kept for g in hinted),
        "groups_hinted": len(hinted),
        "groups_all_fail": _groups_all(written, 0) if judged else None,
        "groups_all_pass": _groups_all(written, 1) if judged else None,
        "groups_tied": _groups_tied(flat if written is flat else flat.of(size_P[flat.group_R] > 0)) if together else None,
        "rollouts": len(written.length_R),
        "rollouts_failed": int(np.sum(~written.scored_R)),
        "tokens": tokens,
        "prompt_tokens": sum(len(g.prompt.token_ids) for g in groups),
        "tokens_per_s": tokens / total_s if total_s > 0 else None,
    }


def _replays(flat: FlatStep) -> dict[str, object]:
    replayed_R = flat.replayed_R
    return {"rollouts_replayed": int(replayed_R.sum()), "replay_age": mean(flat.age_R[replayed_R])}


def _groups_all(flat: FlatStep, verdict: int) -> int:
    """Groups with at least one scored rollout in which every scored rollout has this verdict."""
    group_S, correct_S = flat.group_R[flat.scored_R], flat.correct_R[flat.scored_R]
    other = np.bincount(group_S[correct_S != verdict], minlength=group_S.max(initial=-1) + 1)
    return int(np.sum((np.bincount(group_S) > 0) & (other == 0)))


def _groups_tied(flat: FlatStep) -> int:
    """Groups of at least two scored rollouts whose rewards are all equal."""
    group_S, reward_S = flat.group_R[flat.scored_R], flat.reward_R[flat.scored_R]
    first_of_group = np.flatnonzero(np.diff(group_S, prepend=-1))
    lowest, highest = np.minimum.reduceat(reward_S, first_of_group), np.maximum.reduceat(reward_S, first_of_group)
    return int(np.sum((lowest == highest) & (np.diff(first_of_group, append=len(group_S)) >= 2)))


def _rewards(flat: FlatStep) -> dict[str, object]:
    std = group_std(flat.reward_R, flat.group_R, int(flat.group_R.max(initial=-1)) + 1)
    correct_S = flat.correct_R[flat.scored_R]
    return {
        "reward_mean": mean(flat.reward_R[flat.scored_R]),
        "reward_group_std": mean(std[~np.isnan(std)]),
        **_parts(flat),
        "reward_weights": list(flat.part_weights.items()) or None,
        "reward_length_corr": correlation(flat.reward_R[flat.scored_R], flat.length_R[flat.scored_R]),
        "paid_length_corr": paid_length_corr(flat),
        "inverted_pairs": inverted_pairs(flat),
        "correct_rate": mean(correct_S[correct_S >= 0]),
    }


def paid_length_corr(flat: FlatStep) -> float | None:
    """Partial correlation inside groups of total reward and completion length, given correctness; None where correctness explains the whole reward.

    Whatever a correct answer earns drops out, so that 1 says that what is paid besides is length, however little of it.
    """
    judged_R = flat.scored_R & (flat.correct_R >= 0)
    group_J = flat.group_R[judged_R]
    reward_J, length_J, right_J = (_less_group_mean(x[judged_R].astype("f8"), group_J) for x in (flat.reward_R, flat.length_R, flat.correct_R))
    besides_J = _unexplained(reward_J, right_J)
    return correlation(besides_J, _unexplained(length_J, right_J)) if (np.abs(besides_J) > NO_SPREAD).any() else None


def inverted_pairs(flat: FlatStep) -> float | None:
    """Of the pairs of a correct and a wrong rollout of one group, the share in which the wrong one earned more; None without a pair."""
    judged_R = flat.scored_R & (flat.correct_R >= 0)
    group_J, reward_J = flat.group_R[judged_R], flat.reward_R[judged_R]
    order = np.lexsort((reward_J, group_J))
    group_J, reward_J, right_J = group_J[order], reward_J[order], flat.correct_R[judged_R][order] == 1
    right_before_J = np.cumsum(right_J) - right_J
    of_group_J, tied_J = (_first_of_run(*keys) for keys in ((group_J,), (group_J, reward_J)))
    earned_less_J = right_before_J[tied_J] - right_before_J[of_group_J]
    pairs = int(np.sum(np.bincount(group_J[right_J], minlength=len(flat.groups)) * np.bincount(group_J[~right_J], minlength=len(flat.groups))))
    return float(earned_less_J[~right_J].sum() / pairs) if pairs else None


def _unexplained(y: Array, x: Array) -> Array:
    """What is left of y (n,) after its least-squares line through 0 on x; both are less their means."""
    spread = float(x @ x)
    return y - (float(x @ y) / spread if spread > 0 else 0.0) * x


def _less_group_mean(values_J: Array, group_J: Array) -> Array:
    return values_J - (np.bincount(group_J, weights=values_J) / np.maximum(np.bincount(group_J), 1))[group_J]


def _first_of_run(*keys: Array) -> Array:
    """The index at which each element's run of equal keys begins; the keys are sorted."""
    begins = np.zeros(len(keys[0]), "?")
    for key in keys:
        begins |= np.diff(key, prepend=np.nan) != 0
    return np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))


def _parts(flat: FlatStep) -> dict[str, list[tuple[str, float]]]:
    """Mean and standard deviation (n) of every part over the scored rollouts."""
    parts: dict[str, list[float]] = {}
    for parts_of_one, scored in zip(flat.parts, flat.scored_R.tolist()):
        if scored:
            for name, value in parts_of_one.items():
                parts.setdefault(name, []).append(value)
    values = {name: np.asarray(found, "f8") for name, found in parts.items()}
    return {"reward_parts": [(n, float(v.mean())) for n, v in values.items()], "reward_part_stds": [(n, float(v.std())) for n, v in values.items()]}


def correlation(x: Array, y: Array) -> float | None:
    """Pearson's r; None with fewer than three pairs or where one side does not vary."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _likelihoods(flat: FlatStep) -> dict[str, float | None]:
    correct_N, sum_R = flat.correct_R[flat.rollout_N], flat.sums_R(flat.logp)
    return {
        "logp_correct": mean(flat.logp.values[correct_N == 1]),
        "logp_wrong": mean(flat.logp.values[correct_N == 0]),
        "logp_sum_correct": mean(sum_R[flat.correct_R == 1]),
        "logp_sum_wrong": mean(sum_R[flat.correct_R == 0]),
        "entropy": mean(flat.entropy.values),
        "entropy_cov": _covariance(flat.logp.values, flat.advantages.values),
    }


def _covariance(logp_N: Array, advantage_N: Array) -> float | None:
    """Over tokens with an advantage other than 0: what drives entropy, ΔH ≈ −η·Cov(log π, A) (arXiv:2505.22617)."""
    pushed = advantage_N != 0
    if not pushed.any():
        return None
    logp, advantage = logp_N[pushed].astype("f8"), advantage_N[pushed].astype("f8")
    return float(np.mean((logp - logp.mean()) * (advantage - advantage.mean())))


def _displacement(flat: FlatStep) -> dict[str, float | None]:
    """Paired changes of log-prob, after minus before: negative means less likely (LLD, arXiv:2512.04220 Definition 4.1)."""
    delta = flat.logp_delta
    correct_D = flat.per_token(flat.correct_R, delta)
    pushed_R = np.bincount(flat.rollout_N[flat.advantages.values != 0], minlength=len(flat.length_R)) > 0
    sums = flat.sums_R(delta)[delta.present_R & (flat.correct_R == 1)]
    return {
        "delta_correct": mean(delta.values[correct_D == 1]),
        "delta_wrong": mean(delta.values[correct_D == 0]),
        "delta_zero": mean(delta.values[flat.per_token(~pushed_R, delta)]),
        "displaced_correct": mean(sums < 0),
        "delta_sum_correct": mean(sums),
        "delta_sum_quantiles": np.quantile(sums, QUANTILES).tolist() if len(sums) else None,
    }


def _divergences(flat: FlatStep) -> dict[str, float | None]:
    """k3 estimates; each is KL(what the tokens were drawn from ‖ the other): before ‖ after, policy ‖ reference, sampler ‖ trainer."""
    return {
        "kl_step": _k3_of(flat.logp_delta.values.astype("f8")),
        "kl_ref": k3(flat.logp_ref.values, _where(flat, flat.logp, flat.logp_ref)),
        "kl_sampler": k3(flat.logp.values, flat.logp_sampling.values),
        "sampler_prob_diff": mean(np.abs(np.exp(flat.logp.values) - np.exp(flat.logp_sampling.values))) if flat.logp_gap_N.any() else None,
    }


def _where(flat: FlatStep, trace: Lists, other: Lists) -> Array:
    """The values of `trace`, which every rollout has, on the rollouts that have `other`."""
    return trace.values[flat.per_token(other.present_R, trace)]


def _updates(updates: tuple[UpdateTrace, ...]) -> dict[str, object]:
    norms = [u.grad_norm for u in updates]
    return {
        "updates": len(updates),
        "grad_norm": mean(norms),
        "grad_norm_max": float(np.max(norms)) if norms else None,
        "loss": mean([u.loss for u in updates]),
        "objective": mean([u.objective for u in updates if u.objective is not None]),
        "clip_low": mean([u.clip_low for u in updates if u.clip_low is not None]),
        "clip_high": mean([u.clip_high for u in updates if u.clip_high is not None]),
        "ratio_max": float(np.max([u.ratio_max for u in updates])) if updates else None,
        "ess": min((u.ess for u in updates if u.ess is not None), default=None),
        "lr": updates[-1].lr if updates else None,
    }


def _lengths(flat: FlatStep) -> dict[str, object]:
    return {
        "length_mean": mean(flat.length_R),
        "length_max": int(flat.length_R.max()) if len(flat.length_R) else None,
        "truncated_rate": mean([finish == "length" for finish in flat.finishes]),
    }


def _texts(repetition_R: Array, diversity_P: Array) -> dict[str, float | None]:
    repetition = repetition_R[~np.isnan(repetition_R)]
    return {
        "repetition": mean(repetition),
        "loop_rate": mean(repetition > LOOPING),
        "diversity": mean(diversity_P[~np.isnan(diversity_P)]),
    }


def _conflicts(figures: GroupFigures) -> dict[str, int]:
    found = figures.conflicts
    return {
        "conflict_groups": int(figures.divided_P.sum()),
        "conflict_tokens": int(figures.pushed_tokens_P[figures.divided_P].sum()),
        "conflict_run": int(found.run.sum()),
        "conflict_head": int(found.head.sum()),
        "conflict_tail": int(found.tail.sum()),
        "conflict_mid": int(found.mid.sum()),
        "conflict_shared": int(found.shared.sum()),
        "conflict_pushed_down": int((found.net[found.run | found.mid] < 0).sum()),
    }


def _probe(probe: ProbeTrace | None) -> dict[str, object]:
    known = probe is not None
    return {
        "probe_logp": probe.logp if known else None,
        "probe_delta": probe.delta if known else None,
        "probe_fell": probe.fell if known else None,
        "probe_answers": probe.answers if known else None,
    }


def _evaluation(evaluation: EvalTrace | None) -> dict[str, object]:
    known = evaluation is not None
    return {
        "eval_correct": evaluation.correct if known else None,
        "eval_reward": evaluation.reward if known else None,
        "eval_gold_logp": evaluation.gold_logp if known else None,
        "eval_prompts": evaluation.prompts if known else None,
    }

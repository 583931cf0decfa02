"""A step small enough to work by hand: two groups of two rollouts, eight tokens; and a factory for steps of any size."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from grpo_core.records import Completion, EvalTrace, GroupTrace, ProbeTrace, Prompt, Reward, RolloutTrace, StepTrace, Timings, UpdateTrace

TIMINGS = Timings(generate_s=1.0, score_s=0.25, update_s=2.0, rescore_s=0.5, evaluate_s=0.0, total_s=4.0)


def f4(*values: float) -> np.ndarray:
    return np.array(values, "f4")


def rollout(
    *, logp, gap=None, entropy, delta=None, ref=None, advantage=0.0, clipped=None, reward: Reward, finish: str = "stop", text: str = "7", first_id: int = 0
) -> RolloutTrace:
    logp, tokens = f4(*logp), len(logp)
    return RolloutTrace(
        completion=Completion(
            token_ids=np.arange(first_id, first_id + tokens, dtype="i4"),
            text=text,
            logp_sampling=logp - f4(*(gap if gap is not None else [0.0] * tokens)),
            logp=logp,
            entropy=f4(*entropy),
            finish=finish,
        ),
        reward=reward,
        advantages=np.full(tokens, advantage, "f4"),
        weights=np.full(tokens, 1.0 if advantage else 0.0, "f4"),
        clipped=np.array(clipped if clipped is not None else [0] * tokens, "i1"),
        logp_delta=None if delta is None else f4(*delta),
        logp_ref=None if ref is None else f4(*ref),
    )


def prompt(number: int) -> Prompt:
    return Prompt(prompt_id=f"p{number}", text=f"{number}+{number}=", token_ids=(number, 10, number, 11), answer=str(2 * number))


FAILED = Reward(parts={"answer": math.nan, "format": 1.0}, total=math.nan, correct=None, failure="ValueError: no number")

A = rollout(
    logp=(-1, -3), gap=(0, 0.5), entropy=(1, 2), delta=(0.5, -1.0), advantage=1.0, clipped=(0, 1),
    reward=Reward(parts={"answer": 1.0, "format": 0.5}, total=1.0, correct=True), text="1 2",
)  # fmt: skip
B = rollout(
    logp=(-2, -2, -5), entropy=(0, 1, 2), delta=(-1, -1, -1), advantage=-1.0, clipped=(0, 0, -1), finish="length",
    reward=Reward(parts={"answer": 0.0, "format": 0.1}, total=0.0, correct=False), text="1 3 <b>", first_id=5,
)  # fmt: skip
C = rollout(logp=(-0.5,), entropy=(0.5,), reward=Reward(parts={"answer": 1.0, "format": 0.3}, total=1.0, correct=True), text="4")
D = rollout(logp=(-1, -1), entropy=(1, 1), delta=(0.2, 0.4), reward=FAILED, text="")

UPDATES = (
    UpdateTrace(
        update=0, epoch=0, minibatch=0, loss=0.5, terms={"clip": 0.5}, grad_norm=2.0, clip_low=None, clip_high=None,
        kl_before=0.0, kl_ref=None, ratio_max=1.0, entropy=1.0, tokens=5, lr=1e-3,
    ),
    UpdateTrace(
        update=1, epoch=1, minibatch=0, loss=-0.1, terms={"clip": -0.2, "kl_ref_k3": 0.1}, grad_norm=4.0, clip_low=0.2, clip_high=0.4,
        kl_before=0.01, kl_ref=0.5, ratio_max=1.5, entropy=None, tokens=5, lr=2e-3,
    ),
)  # fmt: skip

WORKED = StepTrace(
    step=7,
    attempt=1,
    finished_at=1.8e9,
    elapsed_s=32.0,
    timings=TIMINGS,
    groups=(
        GroupTrace(prompt=prompt(1), rollouts=(A, B), outcome="mixed", baseline=0.5, kept=True),
        GroupTrace(prompt=prompt(2), rollouts=(C, D), outcome="failed", baseline=math.nan, kept=False, reason="1 of 2 rollouts scored", sampling_round=1),
    ),
    updates=UPDATES,
)
PROBE = ProbeTrace(answers=64, logp=-0.5, delta=-2.0, fell=0.75)
EVALUATION = EvalTrace(prompts=128, correct=0.75, reward=0.8, gold_logp=None)


def with_rollouts(*rollouts: RolloutTrace, **changes) -> StepTrace:
    """The worked step with one group of these rollouts."""
    return replace(WORKED, groups=(replace(WORKED.groups[0], rollouts=rollouts),), **changes)


def step_trace(step: int, *, groups: int = 2, size: int = 4, tokens: int = 6, attempt: int = 0) -> StepTrace:
    """A plausible step made from `step` alone, of groups × size rollouts of 1 to `tokens` tokens."""
    rng = np.random.default_rng(step)

    def one(correct: bool) -> RolloutTrace:
        length = int(rng.integers(1, tokens + 1))
        return rollout(
            logp=-rng.exponential(1.0, length), entropy=rng.exponential(1.0, length), delta=rng.normal(0, 0.01, length), advantage=1.0 if correct else -1.0,
            reward=Reward(parts={"answer": float(correct)}, total=float(correct), correct=correct), text="x" * length,
        )  # fmt: skip

    made = tuple(
        GroupTrace(prompt=prompt(g), rollouts=tuple(one(i % 2 == 0) for i in range(size)), outcome="mixed", baseline=0.5, kept=True) for g in range(groups)
    )
    return StepTrace(
        step=step, attempt=attempt, finished_at=1.8e9 + step, elapsed_s=4.0 * (step + 1), timings=TIMINGS, groups=made, updates=UPDATES
    )

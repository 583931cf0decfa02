"""What the optimizer does: gradient spikes, clipping, how far a step moves the policy, effective sample size."""

from __future__ import annotations

import numpy as np

from grpo_core.diagnosis.history import History
from grpo_core.diagnosis.levels import Level, Signal
from grpo_core.diagnosis.signals.reading import nothing, signal, worst
from grpo_core.diagnosis.trends import trailing, trailing_mean

USUAL = 50
WINDOW = 5
ONE_UPDATE = "Not available: with one update per rollout batch every ratio is 1 by construction."


def gradient_spikes(history: History) -> Signal:
    """Largest gradient norm of a step, before clipping, against the median of the steps before it."""
    norm = history["grad_norm_max"]
    name = dict(name="gradient_spike", title="Gradient norm", unit="× usual", column="grad_norm_max")
    if np.isnan(norm).all():
        return nothing(history, **name, why="Not measured: the trace has no gradient norms.")
    positive = np.where(norm > 0, norm, np.nan)
    usual = trailing(positive, USUAL, np.median, least=8)
    before = np.append(np.nan, usual[:-1])
    times = np.where(np.isfinite(norm), norm, np.inf) / before
    times = np.where(np.isnan(before), np.nan, times)
    largest = trailing(times, WINDOW, np.max, least=1)
    return signal(
        history, **name, values=largest, count=1,
        missing=f"Not enough data: {int((~np.isnan(norm)).sum())} of 9 steps.",
        says={
            Level.HEALTHY: "Gradient norms are what they usually are in this run.",
            Level.WATCH: "A gradient norm stood out in the last few steps.",
            Level.UNHEALTHY: "A gradient was many times larger than usual in this run.",
        },
        evidence=(worst(history, times, label="largest lately", unit="× usual", lowest=False, within=WINDOW),),
    )  # fmt: skip


def clipping(history: History) -> Signal:
    """Share of loss tokens held at a clip bound."""
    name = dict(name="clipping", title="Clipped tokens", unit="share of tokens", column="clip_low")
    if history.facts.clips is False:
        why = ONE_UPDATE if history.facts.updates == 1 else f"Not available: method {history.facts.method} does not clip."
        return nothing(history, **name, why=why)
    share = history["clip_low"] + history["clip_high"]
    if np.isnan(share).all():
        return nothing(history, **name, why=ONE_UPDATE)
    smooth = trailing_mean(share, WINDOW, least=2)
    return signal(
        history, **name, values=smooth,
        says={
            Level.HEALTHY: "Few tokens are held at a clip bound.",
            Level.WATCH: "Many tokens are held at a clip bound: the policy moves far within a step.",
            Level.UNHEALTHY: "A large part of the tokens is held at a clip bound: most of the later updates is thrown away.",
        },
        evidence=(worst(history, share, label="held, most lately", unit="share of tokens", lowest=False),),
    )  # fmt: skip


def step_kl(history: History) -> Signal:
    """How far one step moves the policy: k3 estimate of KL(before ‖ after). Neither the distance to a reference nor to the sampler."""
    kl = history["kl_step"]
    name = dict(name="step_kl", title="Step size in policy space", unit="nats/token", column="kl_step")
    if np.isnan(kl).all():
        return nothing(history, **name, why="Not measured: no rollout was scored again after the updates (option rescore).")
    typical = trailing(kl, WINDOW, np.median, least=5)
    return signal(
        history, **name, values=typical,
        says={
            Level.HEALTHY: "Each step moves the policy a little.",
            Level.WATCH: "Each step moves the policy a good way.",
            Level.UNHEALTHY: "Each step moves the policy so far that its own rollouts hardly speak for it afterwards.",
        },
        evidence=(worst(history, kl, label="highest lately", unit="nats/token", lowest=False),),
    )  # fmt: skip


def sample_size(history: History) -> Signal:
    """Effective sample size of the token ratios in a step's worst update."""
    ess = history["ess"]
    name = dict(name="ess", title="Effective sample size", unit="share", column="ess")
    if np.isnan(ess).all():
        return nothing(history, **name, why=ONE_UPDATE if history.facts.updates == 1 else "Not measured: the trace has no importance ratios.")
    typical = trailing(ess, WINDOW, np.median, least=2)
    return signal(
        history, **name, values=typical,
        says={
            Level.HEALTHY: "Later updates of a step still have nearly all of its tokens behind them.",
            Level.WATCH: "In later updates of a step, few tokens outweigh the rest.",
            Level.UNHEALTHY: "Later updates of a step rest on a handful of tokens.",
        },
        evidence=(worst(history, ess, label="lowest lately", unit="share", lowest=True),),
    )  # fmt: skip

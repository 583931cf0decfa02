"""Two distances that are not the step's own: to what sampled the rollouts, and to the reference model."""

from __future__ import annotations

import numpy as np

from grpo_core.diagnosis.history import History
from grpo_core.diagnosis.levels import Level, Signal
from grpo_core.diagnosis.signals.reading import nothing, signal, worst
from grpo_core.diagnosis.trends import trailing_mean

WINDOW = 5


def mismatch(history: History) -> Signal:
    """Mean |π_trainer − π_sampler| of the sampled tokens: different engines or number formats, not learning."""
    diff = history["sampler_prob_diff"]
    name = dict(name="mismatch", title="Trainer and sampler", unit="probability", column="sampler_prob_diff")
    if np.isnan(diff).all():
        return nothing(history, **name, why="Not available: the trainer takes the sampler's own log-probs, so there are not two to compare.")
    smooth = trailing_mean(diff, WINDOW, least=2)
    return signal(
        history, **name, values=smooth,
        says={
            Level.HEALTHY: "Trainer and sampler agree on the probabilities of what was sampled.",
            Level.WATCH: "Trainer and sampler disagree a little on the probabilities of what was sampled.",
            Level.UNHEALTHY: "Trainer and sampler are two different policies: an engine or precision mismatch.",
        },
        evidence=(worst(history, diff, label="highest lately", unit="probability", lowest=False),),
    )  # fmt: skip


_NO_REFERENCE = {
    False: "Not available: the run has no reference model (kl_coef is 0).",
    True: "Not measured: the run has a reference model, but no step recorded its log-probs.",
    None: "Not measured: the trace has no log-probs of a reference model.",
}
"""By whether the run has one; None where that is not known."""


def reference_kl(history: History) -> Signal:
    """k3 estimate of KL(policy ‖ reference)."""
    kl = history["kl_ref"]
    name = dict(name="reference_kl", title="Distance to the reference", unit="nats/token", column="kl_ref")
    if np.isnan(kl).all():
        return nothing(history, **name, why=_NO_REFERENCE[history.facts.reference])
    smooth = trailing_mean(kl, WINDOW, least=2)
    return signal(
        history, **name, values=smooth,
        says={
            Level.HEALTHY: "The policy stays near the reference model.",
            Level.WATCH: "The policy has moved well away from the reference model.",
            Level.UNHEALTHY: "The policy is far from the reference model.",
        },
        evidence=(worst(history, kl, label="highest lately", unit="nats/token", lowest=False),),
    )  # fmt: skip

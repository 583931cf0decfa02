"""What to change: one concrete proposal per cause, as options of RunConfig, fitted to the run's own settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from grpo_core.diagnosis.causes import Cause
from grpo_core.diagnosis.history import History
from grpo_core.diagnosis.levels import Level
from grpo_core.diagnosis.signals.paid import WINDOW
from grpo_core.diagnosis.trends import risen_since_start
from grpo_core.methods import METHODS


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """`changes` are RunConfig options to set; empty where only a person can act. `fork_from` is a step with a checkpoint, if any is healthy."""

    sentence: str
    changes: Mapping[str, object]
    fork_from: int | None


def remedy_for(cause: Cause, worst: Mapping[str, Level], history: History, fork_from: int | None) -> Remedy:
    """The proposal for the likeliest cause.

    `worst` is the level that each signal has reached since the trouble began: updates that destroyed a policy look small once it is
    gone. `fork_from` is the newest checkpoint from before the trouble, None without one.
    """
    changes, advice = _CHANGES.get(cause.name, _by_hand)(cause, worst, history)
    if not changes:
        return Remedy(sentence=advice, changes={}, fork_from=None)
    settings = ", ".join(f"{option}={_shown(value)}" for option, value in changes.items())
    start = f"Fork from step {fork_from}" if fork_from is not None else "Start again"
    return Remedy(sentence=f"{start} with {settings}. {advice}", changes=changes, fork_from=fork_from)


def _displacement(cause: Cause, worst: Mapping[str, Level], history: History) -> tuple[dict[str, object], str]:
    """Milder updates first where they are too large; the penalty where its method can be taken."""
    facts = history.facts
    changes: dict[str, object] = {}
    too_large = any(worst[name] >= Level.WATCH for name in ("step_kl", "ess", "clipping"))
    if facts.epochs and facts.epochs > 2:
        changes["epochs"] = 2
    if facts.lr and (too_large or not changes):
        changes["lr"] = float(f"{facts.lr / (4 if too_large else 2):.2g}")
    if facts.method in METHODS and facts.updates and facts.updates > 1 and facts.method not in ("grpo_llds",):
        changes["method"], changes["llds_coef"] = "grpo_llds", 0.2
    why = "Smaller updates and the LLDS penalty (arXiv:2512.04220) keep the likelihood of correct rollouts where it was."
    return changes, why if changes else "Make the updates smaller: a quarter of the learning rate, or fewer updates per rollout batch."


def _entropy(cause: Cause, worst: Mapping[str, Level], history: History) -> tuple[dict[str, object], str]:
    facts, changes = history.facts, {"method": "dapo"}
    if facts.lr:
        changes["lr"] = float(f"{facts.lr / 2:.2g}")
    if facts.epochs and facts.epochs > 2:
        changes["epochs"] = 2
    return changes, "A wider upper clip lets rare tokens rise, and prompts without signal are sampled again (DAPO, arXiv:2503.14476)."


def _length(cause: Cause, worst: Mapping[str, Level], history: History) -> tuple[dict[str, object], str]:
    """The reward part that pays for it out, where there is one: a penalty on the last tokens does not outweigh it."""
    limit = history.facts.max_new_tokens
    if _others(history) and worst["paid_by_length"] >= Level.WATCH:
        return _without_what_is_paid_aside(history)
    return {"overlong_buffer": limit // 2} if limit and limit > 4 else {}, "Then no completion gains by running on (DAPO §3.4)."


def _dead_data(cause: Cause, worst: Mapping[str, Level], history: History) -> tuple[dict[str, object], str]:
    return {}, "Give it prompts it can sometimes solve: easier ones, or a longer warm-up on worked answers; a larger group_size finds rarer successes."


def _hacking(cause: Cause, worst: Mapping[str, Level], history: History) -> tuple[dict[str, object], str]:
    if _others(history):
        return _without_what_is_paid_aside(history)
    return {}, "Look at rollouts with the highest reward since the trouble began, close the loophole in the reward, and start again from before it."


def _without_what_is_paid_aside(history: History) -> tuple[dict[str, object], str]:
    """The rewards without the parts that have risen, of those that do not decide what is correct; without all of these where none has."""
    others = _others(history)
    risen = [entry for entry in others if _risen(history, entry)] or others
    names = " and ".join(_name(entry) for entry in risen)
    advice = f"What {names} pays for was learned instead of being correct. If it has to stay, close its loophole or give it less weight."
    return {"rewards": tuple(entry for entry in history.facts.rewards if entry not in risen)}, advice


def _others(history: History) -> list[str]:
    return list(history.facts.rewards[1:])


def _risen(history: History, entry: str) -> bool:
    """Whether rollouts earn more by this reward than at the start."""
    weight = float(entry.partition("=")[2] or 1.0)
    means = history.parts.get(_name(entry))
    return means is not None and bool(np.sign(weight) * risen_since_start(means, WINDOW)[0][-1] > 0)


def _name(entry: str) -> str:
    return entry.partition("=")[0].strip()


def _by_hand(cause: Cause, worst: Mapping[str, Level], history: History) -> tuple[dict[str, object], str]:
    return {}, _ADVICE[cause.name]


_ADVICE = {
    "recording": "Look at the groups named by the signal, and at whatever stands between the reward functions and the loss.",
    "broken_reward": "The group page shows what each reward function raised; mend it and start again.",
    "mismatch": "Bring sampler and trainer together (same precision, same sampling settings) or correct for it with truncated importance weights.",
    "mastered": "Stop here, or go on with harder prompts.",
}
_CHANGES = {"displacement": _displacement, "entropy": _entropy, "length": _length, "dead_data": _dead_data, "hacking": _hacking}


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)

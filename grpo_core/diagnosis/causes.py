"""What lies behind a set of signals: the signatures that tell look-alikes apart (collapse_math.md §5), as data.

A cause is on the table when every signal of one of its `needs` or of what must `agree` is at least at the level given there. It is ranked by how
many of its `supports` agree and by how early its own signals began; `unless` rules it out where another explanation covers the same signs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from grpo_core.diagnosis.levels import Level, Signal

W, U, NONE = Level.WATCH, Level.UNHEALTHY, Level.NOT_AVAILABLE


@dataclass(frozen=True, slots=True)
class Below:
    """A level that a signal must not have reached; one that is not available has not."""

    level: Level

    @property
    def word(self) -> str:
        return f"below {self.level.word}"


@dataclass(frozen=True, slots=True)
class After:
    """A sign that began only after another one, which by now has collapsed: what is left of a lost run, not what it was lost by."""

    name: str

    @property
    def word(self) -> str:
        return f"after {self.name}"


Asked = Level | Below | After


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """`needs`: alternatives, each a mapping of signal to least level, to what it must be Below or After, or to "not available" where
    there must be none.

    `agree`: alternatives as well, of signs that are each no more than a watch, but measured apart from each other: together they are unhealthy.
    `specific` breaks ties: higher explains more of what is seen.
    """

    name: str
    title: str
    explains: str
    needs: tuple[Mapping[str, Asked], ...]
    agree: tuple[Mapping[str, Asked], ...] = ()
    supports: tuple[str, ...] = ()
    unless: tuple[Mapping[str, Asked], ...] = ()
    specific: int = 0

    @property
    def seen_when(self) -> tuple[Mapping[str, Asked], ...]:
        """All alternatives that put the cause on the table."""
        return (*self.needs, *self.agree)


FORGETTING: Mapping[str, Level] = {"probe": W, "held_out_fall": W}
"""Known answers have become less likely, and other prompts are answered worse than they were."""

OVERSTEPPING: tuple[Mapping[str, Level], ...] = ({"step_kl": W, "probe": W}, {"step_kl": W, "reward_fall": W})
"""Steps that move the policy a good way while what it knew or earned begins to go."""

HONEST: tuple[Mapping[str, Level], ...] = ({"hacking": NONE}, {"inverted": Level.HEALTHY})
"""What is paid for is what is wanted: one reward, or parts of it that agree."""

SIGNATURES: tuple[Signature, ...] = (
    Signature(
        name="recording",
        title="The recording contradicts itself",
        explains="What trained is not what the rewards say: a fault of the pipeline, which no setting mends.",
        needs=({"integrity": U},),
        specific=6,
    ),
    Signature(
        name="broken_reward",
        title="Broken reward function",
        explains="Rewards fail to compute, so training learns from what is left.",
        needs=({"failures": U},),
        specific=5,
    ),
    Signature(
        name="mismatch",
        title="Trainer and sampler are different policies",
        explains="What sampled the rollouts and what trains on them disagree about their probabilities; the advantages are right, the ratios are not.",
        needs=({"mismatch": U},),
        supports=("gradient_spike", "ess", "reward_fall"),
        unless=({"probe": U}, {"displacement": U}),
        specific=4,
    ),
    Signature(
        name="length",
        title="Length blow-up",
        explains="Completions grow because length itself is paid for or costs nothing, not because longer answers are better.",
        needs=(
            {"length": U},
            {"paid_by_length": W, "probe": U},
            {"paid_by_length": W, "displacement": U},
            {"paid_by_length": W, "hacking": W, "held_out_fall": W},
        ),
        agree=tuple({"paid_by_length": W, **signs} for signs in (FORGETTING, *OVERSTEPPING)),
        supports=("truncation", "repetition", "hacking", "length_bought", "held_out_fall", "reward_fall", "starvation"),
        specific=3,
    ),
    Signature(
        name="hacking",
        title="Reward hacking",
        explains="The policy earns the reward in a way it was not meant to: what is paid for rises while what is wanted falls.",
        needs=(
            {"hacking": U},
            {"hacking": W, "held_out_fall": W},
            {"paid_aside": W, "probe": U},
            {"inverted": W, "probe": U},
            {"inverted": W, "displacement": U},
        ),
        agree=tuple({fault: W, **signs} for signs in (FORGETTING, *OVERSTEPPING) for fault in ("paid_aside", "inverted")),
        supports=("held_out_fall", "repetition", "probe", "inverted", "starvation", "reward_fall"),
        specific=2,
    ),
    Signature(
        name="displacement",
        title="Likelihood displacement (LLD)",
        explains="The updates push correct answers down together with the wrong ones they share tokens with, until the policy no longer writes them.",
        needs=(
            {"displacement": U},
            {"probe": Level.COLLAPSED},
            {"probe": U, "hacking": NONE, "held_out_fall": NONE},
            {"probe": U, "hacking": NONE, "reward_fall": W},
            {"probe": U, "displacement": W, "held_out_fall": NONE},
            {"probe": U, "held_out_fall": U},
            {"displacement": W, "reward_fall": U},
        ),
        agree=tuple({**signs, **honest} for signs in (FORGETTING, *OVERSTEPPING) for honest in HONEST),
        supports=("probe", "displacement", "entropy_rise", "step_kl", "ess", "clipping", "gradient_spike", "conflicts", "reward_fall", "held_out_fall"),
        unless=({"hacking": W}, {"paid_aside": W}, {"inverted": W}, {"hardening": W, "held_out_fall": Below(U)}),
        specific=1,
    ),
    Signature(
        name="entropy",
        title="Entropy collapse",
        explains="The policy has become certain before it has become right: every group says the same, and nothing is left to learn from.",
        needs=({"entropy_fall": U}, {"entropy_fall": W, "probe": U}, {"hardening": W, "probe": U, "held_out_fall": Below(U)}),
        supports=("probe", "reward_fall", "held_out_fall", "sharpening", "mastery", "starvation", "clipping"),
        unless=({"displacement": U}, {"hacking": W}, {"paid_aside": W}, {"inverted": W}, {"entropy_fall": After("reward_fall")}),
        specific=2,
    ),
    Signature(
        name="dead_data",
        title="Prompts without signal",
        explains="Nearly every group fails as a whole, so that no rollout is better than another and nothing is learned.",
        needs=({"starvation": U},),
        supports=("reward_fall",),
        unless=({"displacement": W}, {"probe": U}, {"hacking": W}, {"held_out_fall": U}, {"entropy_rise": U}, {"length": U}),
    ),
    Signature(
        name="mastered",
        title="Prompts used up",
        explains="Nearly every group is solved as a whole: the data has little left to teach.",
        needs=({"mastery": W},),
        unless=({"reward_fall": W},),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A cause that fits: how much of its signature is seen (0 to 1), since when, and the signals that say so, first ones first."""

    name: str
    title: str
    explains: str
    fit: float
    level: Level
    since_step: int
    signals: tuple[str, ...]


def causes_of(signals: tuple[Signal, ...]) -> tuple[Cause, ...]:
    """Every cause whose signature is met, the likeliest first."""
    by_name = {s.name: s for s in signals}
    found = [(_cause(signature, by_name), signature) for signature in SIGNATURES if _met(signature, by_name)]
    ranked = sorted(found, key=lambda pair: (-pair[0].level, -pair[1].specific, pair[0].since_step, -pair[0].fit))
    return tuple(cause for cause, _ in ranked)


def _met(signature: Signature, signals: Mapping[str, Signal]) -> bool:
    return any(_holds(need, signals) for need in signature.seen_when) and not any(_holds(bar, signals) for bar in signature.unless)


def _holds(levels: Mapping[str, Asked], signals: Mapping[str, Signal]) -> bool:
    return all(name in signals and _is(signals[name], asked, signals) for name, asked in levels.items())


def _is(sign: Signal, asked: Asked, signals: Mapping[str, Signal]) -> bool:
    if isinstance(asked, Below):
        return sign.level < asked.level
    if isinstance(asked, After):
        other = signals.get(asked.name)
        return sign.since_step is not None and other is not None and other.level == Level.COLLAPSED and other.since_step < sign.since_step
    return sign.level == asked if asked == NONE else sign.level >= asked


def _cause(signature: Signature, signals: Mapping[str, Signal]) -> Cause:
    named = dict.fromkeys((*(name for need in signature.seen_when for name in need), *signature.supports))
    seen = sorted((signals[n] for n in named if n in signals and signals[n].level >= W), key=lambda s: s.since_step if s.since_step is not None else 0)
    measured = [n for n in named if n in signals and signals[n].level >= Level.HEALTHY]
    agreed = [U] if any(_holds(signs, signals) for signs in signature.agree) else []
    return Cause(
        name=signature.name,
        title=signature.title,
        explains=signature.explains,
        fit=len(seen) / max(len(measured), 1),
        level=max([s.level for s in seen] + agreed),
        since_step=min(s.since_step for s in seen if s.since_step is not None),
        signals=tuple(s.name for s in seen),
    )

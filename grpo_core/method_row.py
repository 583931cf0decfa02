"""A method as a row of data: which choice it makes for every part of the equation, and what it is meant to protect against; no torch.

The rows themselves are METHODS (methods.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

STANDALONE = ("zero", "tracked", "greedy")
"""Baselines that are not taken from the prompt's other rollouts."""

CONTRASTS = ("gepo",)
"""Regularisers that hold rollouts of a group against each other."""


def preset_id(name: str, paper: str) -> str:
    """The name with the paper's arXiv number: several papers may share a name; the name alone where the paper has none."""
    return f"{name}-{paper.removeprefix('arXiv:')}" if paper.startswith("arXiv:") else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One summand of the advantage: norm(value − base) · scale over the rollouts of one prompt that `drop` leaves, times `weight`.

    `at` is the number that the baseline takes, if it takes one. `knob` and `at_knob` are the RunConfig options that override
    `weight` and `at`, if there are such.
    """

    base: str = "mean"
    norm: str = "std"
    value: str = "outcome"
    scale: str = "one"
    drop: str = "none"
    weight: float = 1.0
    knob: str = ""
    at: float = 0.0
    at_knob: str = ""

    @property
    def within_groups(self) -> bool:
        """Whether a rollout is compared with its own group alone, so that a group tied in the value has advantage exactly 0."""
        return self.base not in (*STANDALONE, "below_mean") and self.norm not in ("token_whiten", "batch_std")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """One rule for the token weights W: its registry name, the number it takes, and the RunConfig option that overrides it."""

    name: str
    value: float
    knob: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalty:
    """One regulariser of the loss: its registry name, its coefficient λ, and the RunConfig option that overrides λ."""

    name: str
    coef: float
    knob: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One published method. `summary` is one sentence; `note` says where released code differs from the paper.

    `protects` is one sentence on what it protects against, `against` the same as names of HARMS, `costs` one sentence on what that
    costs. `moves` names the signals of grpo_core/diagnosis that its choices act on, or by which their cost shows. All are read off
    the equation; what only the paper found is marked as the paper's.

    `whole` is what is done with the sum of all components over the batch, `spread` how it comes to the tokens; `group` is an objective of
    whole groups, whose pulls are taken from the current policy at every update. `options` are further RunConfig options the method reads;
    `released` holds the fields that its authors' code has otherwise than the paper, taken when the option named `released_knob` is "released".
    """

    name: str
    title: str
    paper: str
    summary: str
    protects: str
    costs: str
    credit: tuple[Component, ...]
    surrogate: str
    level: str
    clip: tuple[float, float] | None
    normaliser: str
    penalties: tuple[Penalty, ...] = ()
    weights: tuple[Weight, ...] = ()
    whole: str = "none"
    spread: str = "rows"
    group: Weight | None = None
    sampler: str = "uniform"
    against: tuple[str, ...] = ()
    moves: tuple[str, ...] = ()
    note: str = ""
    options: tuple[str, ...] = ()
    released: Mapping[str, object] = field(default_factory=dict)
    released_knob: str = ""

    @property
    def preset(self) -> str:
        """The name with the paper's arXiv number, e.g. gspo-2507.18071."""
        return preset_id(self.name, self.paper)

    @property
    def compares_groups(self) -> bool:
        """Whether a rollout is compared with others of its prompt, so that a group of one has no baseline or no sign."""
        contrasts = any(penalty.name in CONTRASTS for penalty in self.penalties)
        return self.group is not None or contrasts or any(component.base not in STANDALONE for component in self.credit)

    @property
    def own_values(self) -> dict[str, float]:
        """The method's own value of every option that, left empty, takes it."""
        clip = dict(zip(("clip_low", "clip_high"), self.clip or (), strict=False))
        penalties = {penalty.knob: penalty.coef for penalty in self.penalties}
        weights = {weight.knob: weight.value for weight in (*self.weights, *filter(None, [self.group])) if weight.knob}
        bases = {c.at_knob: c.at for c in self.credit if c.at_knob}
        return clip | penalties | weights | bases | {c.knob: c.weight for c in self.credit if c.knob}

    @property
    def asks(self) -> dict[str, str]:
        """RunConfig options that have to be set for the method, and to what."""
        return {"task": "ranking"} if self.spread == "ranks" else {}

    @property
    def needs_greedy(self) -> bool:
        """Whether every prompt is answered once more, greedily, for the reward to compare with."""
        return any(c.base == "greedy" for c in self.credit)

    @property
    def needs_hidden_states(self) -> bool:
        """Whether its token weights are taken from one more forward pass before the first update (NTHR)."""
        return any(weight.name == "nthr" for weight in self.weights)

    @property
    def ties_teach_nothing(self) -> bool:
        """Whether a group whose rewards are all equal has advantage exactly 0."""
        return all(c.value == "outcome" and c.within_groups for c in self.credit)

    @property
    def knobs(self) -> frozenset[str]:
        """RunConfig options this method reads beyond the ones every method reads."""
        capped = ("clip_cap",) if self.surrogate == "clip" else ()
        return frozenset({*self.own_values, *self.options, *capped, self.released_knob} - {""})

    def as_released(self) -> Method:
        """The method as its authors' code has it."""
        return replace(self, **self.released)


HARMS: dict[str, str] = {
    "noisy gradients": "Which rollouts happened to be drawn decides more of a step than what they are worth.",
    "large updates": "A few tokens or completions whose probability has moved far since they were sampled carry the step.",
    "lost tokens": "Tokens stop teaching once the clip holds them, among them rare ones that matter.",
    "length bias": "A token or completion weighs more or less only because of its length.",
    "difficulty bias": "Prompts weigh more because nearly all or nearly none of their rollouts are right.",
    "groups without signal": "Groups with equal rewards teach nothing, and the step shrinks with them.",
    "entropy collapse": "The policy becomes certain before it is right, and stops exploring.",
    "lost diversity": "The first try improves while fewer prompts are solved in several tries.",
    "likelihood displacement": "Correct answers become less likely, pushed down with the wrong ones they share tokens with.",
}
"""What a method may be meant to protect against, and what it means (`Method.against`)."""

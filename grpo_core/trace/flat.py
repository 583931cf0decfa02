"""A step's rollouts laid side by side: one array per trace instead of one per rollout and trace; numpy only.

A FlatStep is all that is recorded of a step, in few large pieces: it travels to another process in a tenth of the time its StepTrace takes.

Shape letters: R rollouts of the step, S those with a score, N tokens, D tokens scored again. Tokens stand in the order of groups, rollouts, positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from itertools import compress
from operator import attrgetter

import numpy as np

from grpo_core.records import POLICY, REPLAY, SAMPLED, Array, GroupTrace, StepTrace

TRACES = (
    ("token_ids", "completion.token_ids", "i4"),
    ("logp", "completion.logp", "f4"),
    ("logp_sampling", "completion.logp_sampling", "f4"),
    ("entropy", "completion.entropy", "f4"),
    ("advantages", "advantages", "f4"),
    ("weights", "weights", "f4"),
    ("clipped", "clipped", "i1"),
    ("logp_delta", "logp_delta", "f4"),
    ("logp_ref", "logp_ref", "f4"),
    ("logp_old", "logp_old", "f4"),
    ("nthr", "nthr", "f4"),
    ("items", "items", "i2"),
)
"""Each per-token trace: its field in FlatStep, where a RolloutTrace has it, and the number it is kept as."""


_PER_ROLLOUT = ("gwhes_R", "group_R", "index_R", "length_R", "correct_R", "reward_R", "foreign_R", "replayed_R", "age_R")


@dataclass(frozen=True, slots=True)
class Lists:
    """One trace of all rollouts: `values` concatenated over the rollouts that have it, `present_R` which ones do."""

    values: Array
    present_R: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatStep:
    """One step as per-rollout arrays (R,) and per-token traces, all of it float32 unless said.

    `step` comes without its groups, `groups` without their rollouts. `correct_R` is 1, 0, or -1 for unknown (int8);
    `reward_R` is float64 and NaN where scoring failed, as `gwhes_R` where it was not measured; `index_R` is a rollout's place
    in its group; `rollout_N` and `position_N` (int64) tell each token's rollout and place. `sources` says where each rollout comes from,
    `foreign_R` which ones the step's policy did not write to the task's own prompts; `replayed_R` which ones an older policy wrote, `age_R` steps ago.
    """

    step: StepTrace
    groups: tuple[GroupTrace, ...]
    texts: Sequence[str]
    finishes: Sequence[str]
    sources: Sequence[str]
    failures: Sequence[str]
    parts: Sequence[Mapping[str, float]]
    part_weights: Mapping[str, float]
    gwhes_R: Array
    group_R: Array
    index_R: Array
    length_R: Array
    correct_R: Array
    reward_R: Array
    foreign_R: Array
    replayed_R: Array
    age_R: Array
    rollout_N: Array
    position_N: Array
    token_ids: Lists
    logp: Lists
    logp_sampling: Lists
    entropy: Lists
    advantages: Lists
    weights: Lists
    clipped: Lists
    logp_delta: Lists
    logp_ref: Lists
    logp_old: Lists
    nthr: Lists
    items: Lists

    @property
    def unsampled_R(self) -> Array:
        """Which rollouts the policy of the step did not write: replays and worked answers."""
        return np.array([source not in SAMPLED for source in self.sources], "?")

    @property
    def scored_R(self) -> Array:
        """Which rollouts have a reward."""
        return ~np.isnan(self.reward_R)

    @property
    def advantage_R(self) -> Array:
        """Mean advantage of each rollout's tokens, float64; 0 for one without tokens."""
        return self.sums_R(self.advantages) / np.maximum(self.length_R, 1)

    @property
    def logp_gap_N(self) -> Array:
        """Trainer's log-prob minus the sampler's, subtracted in float32 before the store rounds either."""
        return self.logp.values - self.logp_sampling.values

    def sampled(self) -> FlatStep:
        """The step without replays and worked answers: what its own policy wrote, behind hints too."""
        unsampled_R = self.unsampled_R
        return self.of(~unsampled_R) if unsampled_R.any() else self

    def written(self) -> FlatStep:
        """The step without replays, worked answers and rollouts behind a hint: what its own policy wrote to the task's prompts."""
        return self.of(~self.foreign_R) if self.foreign_R.any() else self

    def of(self, keep_R: Array) -> FlatStep:
        """The step with only some of its rollouts; groups keep their numbers, also those left without any."""
        keep_N = keep_R[self.rollout_N]
        traces = {name: getattr(self, name) for name, *_ in TRACES}
        return replace(
            self,
            **{name: list(compress(getattr(self, name), keep_R)) for name in ("texts", "finishes", "sources", "failures", "parts")},
            **{name: getattr(self, name)[keep_R] for name in _PER_ROLLOUT},
            rollout_N=(np.cumsum(keep_R) - 1)[self.rollout_N[keep_N]],
            position_N=self.position_N[keep_N],
            **{name: Lists(trace.values[self.per_token(keep_R, trace)], trace.present_R[keep_R]) for name, trace in traces.items()},
        )

    def sums_R(self, trace: Lists) -> Array:
        """Sum of a trace over each rollout (R,), float64; 0 for a rollout without it or without tokens."""
        rollout_of_value = self.per_token(np.arange(len(self.length_R)), trace)
        return np.bincount(rollout_of_value, weights=trace.values, minlength=len(self.length_R))

    def per_token(self, values_R: Array, trace: Lists) -> Array:
        """A per-rollout value repeated for every token of `trace.values`."""
        return np.repeat(values_R[trace.present_R], self.length_R[trace.present_R])


def flatten(trace: StepTrace) -> FlatStep:
    """All traces of a step as flat arrays.

    Raises ValueError if a trace of a rollout is not as long as its completion.
    """
    rollouts = [r for group in trace.groups for r in group.rollouts]
    sizes = _lengths([g.rollouts for g in trace.groups])
    length_R = _lengths([r.completion.token_ids for r in rollouts])
    rollout_N = np.repeat(np.arange(len(rollouts)), length_R)
    rewards = [r.reward for r in rollouts]
    return FlatStep(
        step=replace(trace, groups=()),
        groups=tuple(replace(g, rollouts=(), prompt=replace(g.prompt, row={})) for g in trace.groups),
        texts=[r.completion.text for r in rollouts],
        finishes=[r.completion.finish for r in rollouts],
        sources=[r.completion.source for r in rollouts],
        failures=[r.failure or "" for r in rewards],
        parts=[dict(r.parts) for r in rewards],
        part_weights={name: weight for r in rewards for name, weight in r.weights.items()},
        gwhes_R=np.array([np.nan if r.gwhes is None else r.gwhes for r in rollouts], "f8"),
        group_R=np.repeat(np.arange(len(sizes)), sizes),
        index_R=_places(sizes),
        length_R=length_R,
        correct_R=np.array([-1 if r.correct is None else r.correct for r in rewards], "i1"),
        reward_R=np.array([r.total for r in rewards], "f8"),
        foreign_R=np.array([r.completion.source != POLICY for r in rollouts], "?"),
        replayed_R=np.array([r.completion.source == REPLAY for r in rollouts], "?"),
        age_R=np.array([r.completion.age for r in rollouts], "i8"),
        rollout_N=rollout_N,
        position_N=_places(length_R),
        **{name: _lists(name, list(map(attrgetter(path), rollouts)), length_R, dtype) for name, path, dtype in TRACES},
    )


def _lists(name: str, arrays_R: Sequence[Array | None], length_R: Array, dtype: str) -> Lists:
    present_R = np.array([a is not None for a in arrays_R], "?")
    arrays = [a for a in arrays_R if a is not None]
    found = _lengths(arrays)
    wrong = np.flatnonzero(found != length_R[present_R])
    if len(wrong):
        rollout = int(np.flatnonzero(present_R)[wrong[0]])
        raise ValueError(
            f"{name} of rollout {rollout} of the step has {found[wrong[0]]} entries for {length_R[rollout]} tokens; a trace needs one entry per token"
        )
    values = np.concatenate(arrays) if arrays else np.empty(0)
    return Lists(values.astype(dtype, copy=False), present_R)


def _places(sizes: Array) -> Array:
    """0, 1, … inside each of some pieces that lie one after another."""
    return np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _lengths(things: Sequence[Sized]) -> Array:
    return np.fromiter(map(len, things), "i8", len(things))

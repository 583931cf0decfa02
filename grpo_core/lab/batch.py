"""A recorded step as the laboratory takes it, whoever trained it, and what it says of a method: plain arrays.

Shape letters: R rollouts in order of groups, N tokens of all of them one after another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from grpo_core.measures.flat import end_to_end
from grpo_core.tasks.shaping import CUT

Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedBatch:
    """What methods look at. NaN is "not recorded", and a reward that is NaN a failure.

    `verdict_R` is +1 for correct rollouts, -1 for wrong ones, 0 where unknown. `logp_N` is before the update, `delta_N` what the
    step's updates added to it; `old_N` is under the policy that wrote a replayed rollout, NaN for the others (None: none is replayed).
    `tracked_R` is the success rate of the rollout's prompt that a tracker had when it was drawn (None: no tracker). `first_round_R`
    marks groups that did not come from sampling again, `surplus_R` those that a dynamic sampler had no use for, `hinted_R` those behind a
    hint and `replaced_R` those that they stand for (None: there are none). `first_entropy` is
    the mean over the run's first rollouts of their mean token entropy. `parts` are the unweighted parts of the rewards (R,),
    `part_weights` what each weighs in the total where that is known, `greedy_R` the reward of the prompt's greedy completion. `step` is
    the training step, None where unknown. `reference_R` marks worked answers among the rollouts (None: there are none), whose `logp_N` is
    under the policy before the update as well. `items_N` numbers the items of completions that are lists, NaN for others (None: for all).
    `texts` are the completions as text (None: not recorded).
    """

    group_R: Array
    index_R: Array
    reward_R: Array
    verdict_R: Array
    length_R: Array
    first_round_R: Array
    surplus_R: Array
    token_ids_N: Array
    logp_N: Array
    delta_N: Array
    ref_N: Array
    entropy_N: Array
    first_entropy: float
    max_length: int
    parts: Mapping[str, Array] = field(default_factory=dict)
    part_weights: Mapping[str, float] = field(default_factory=dict)
    greedy_R: Array | None = None
    step: int | None = None
    old_N: Array | None = None
    tracked_R: Array | None = None
    reference_R: Array | None = None
    items_N: Array | None = None
    hinted_R: Array | None = None
    replaced_R: Array | None = None
    texts: tuple[str, ...] | None = None

    @property
    def written_N(self) -> Array:
        """Log-prob under the policy that wrote the token, which ratios are taken against."""
        return self.logp_N if self.old_N is None else np.where(np.isnan(self.old_N), self.logp_N, self.old_N)

    @property
    def rollout_N(self) -> Array:
        """Each token's rollout."""
        return np.repeat(np.arange(len(self.length_R)), self.length_R)

    @property
    def position_N(self) -> Array:
        """Each token's place in its completion, from 0."""
        return np.arange(len(self.token_ids_N)) - np.repeat(np.cumsum(self.length_R) - self.length_R, self.length_R)

    def unmarked(self, *marks: Array | None) -> Array:
        """Which rollouts (R,) bool none of these marks, each (R,) or None where it marks nothing, picks out."""
        return ~np.logical_or.reduce([np.zeros(len(self.reward_R), "?"), *(mark_R for mark_R in marks if mark_R is not None)])

    @property
    def cut_R(self) -> Array:
        """Which rollouts (R,) bool the rule of their reward keeps out of the loss."""
        return np.nan_to_num(self.parts.get(CUT, np.zeros(len(self.reward_R)))) > 0

    @property
    def rescored(self) -> bool:
        """Whether every token was scored again after the step's updates."""
        return not np.isnan(self.delta_N).any()


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """What one method does with the batch: `advantage_R`, the mean over the rollout's tokens of `advantage_N`; `weight_N`, the method's W, 1 where
    it has none; `push_N` (1/nat), −∂loss/∂logp; and `clipped_N` (-1 lower bound, +1 upper, 0 not held). Tokens outside the loss have 0 in all.

    `taken_R` are the rollouts that enter its loss. `missing` says what it would need and the record lacks; the arrays are NaN then,
    0 where they count. `left_out` says what of the method is not in the figures.
    """

    advantage_R: Array
    advantage_N: Array
    weight_N: Array
    push_N: Array
    clipped_N: Array
    taken_R: Array
    missing: str = ""
    left_out: tuple[str, ...] = ()


def recorded_batch(
    rollouts: pd.DataFrame, *, first_entropy: float, max_length: int, part_weights: Mapping[str, float] | None = None, step: int | None = None
) -> RecordedBatch:
    """From rows of storage.queries.lab.rollouts_of_step, and the weights of lab.part_weights."""
    length_R = rollouts["length"].to_numpy("i8")
    sampled_N, old_N = (end_to_end(rollouts[name], length_R) for name in ("logp_sampling", "logp_old"))
    reference_R = rollouts["reference"].to_numpy("?")
    policy_N = sampled_N + np.nan_to_num(end_to_end(rollouts["logp_gap"], length_R))
    correct = rollouts["correct"]
    return RecordedBatch(
        group_R=rollouts["group_index"].to_numpy("i8"),
        index_R=rollouts["rollout_index"].to_numpy("i8"),
        reward_R=rollouts["reward"].to_numpy("f8", na_value=np.nan),
        verdict_R=np.where(correct.isna(), 0.0, np.where(correct.fillna(False).astype(bool), 1.0, -1.0)),
        length_R=length_R,
        first_round_R=(rollouts["sampling_round"] == 0).to_numpy("?"),
        surplus_R=rollouts["reason"].str.startswith("surplus").to_numpy("?"),
        hinted_R=(rollouts["hint_tokens"].fillna(0) > 0).to_numpy("?"),
        replaced_R=rollouts["reason"].str.contains("behind a hint", regex=False).to_numpy("?"),
        token_ids_N=end_to_end(rollouts["token_ids"], length_R).astype("i8"),
        logp_N=np.where(np.repeat(reference_R, length_R), old_N, policy_N),
        delta_N=end_to_end(rollouts["logp_delta"], length_R),
        ref_N=end_to_end(rollouts["logp_ref"], length_R),
        entropy_N=end_to_end(rollouts["entropy"], length_R),
        first_entropy=first_entropy,
        max_length=max_length,
        parts=_parts(rollouts["reward_parts"]),
        part_weights=part_weights or {},
        greedy_R=rollouts["greedy_reward"].to_numpy("f8", na_value=np.nan),
        step=step,
        texts=tuple(rollouts["text"]),
        old_N=old_N,
        reference_R=reference_R,
        items_N=end_to_end(rollouts["items"], length_R),
        tracked_R=np.array([_tracked(*group) for group in zip(rollouts["prompt_state"], rollouts["baseline"], strict=True)], "f8"),
    )


def _parts(rewards: pd.Series) -> dict[str, Array]:
    """Every part of the rewards (R,), NaN where a reward lacks it."""
    found = [dict(parts) if parts is not None else {} for parts in rewards]
    names = dict.fromkeys(name for parts in found for name in parts)
    return {name: np.array([np.nan if parts.get(name) is None else parts[name] for parts in found], "f8") for name in names}


def _tracked(prompt_state: object, baseline: float) -> float:
    """The baseline where a tracker brought it; of a group that entered no loss and so has none, the rate afterwards."""
    state = dict(prompt_state or {})
    if "alpha" not in state:
        return np.nan
    return state["p"] if np.isnan(baseline) else baseline

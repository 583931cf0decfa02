"""The nouns of a training step, one frozen type per station; numpy only, no torch.

prompt → Prompt · group → Group of Completions · reward → ScoredGroup · trace → StepTrace.
Per-token arrays are 1-D, one entry per completion token (length T of that rollout), float32 unless said.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray

POLICY, HINTED, REPLAY, REFERENCE = "policy", "hinted", "replay", "reference"
"""Where a completion comes from: the policy wrote it in this step, did so behind a hint, an older policy did and it was kept, or it is the
task's own worked answer."""
SAMPLED = (POLICY, HINTED)
"""What the policy of the step wrote itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A question as given to the model.

    `row` carries the dataset's other columns for reward functions; `gold` is a worked completion where the task has one. `hint` is the
    beginning of that completion where the model is given it too, `hint_ids` its token ids: they stand behind the question, and no
    completion has them.
    """

    prompt_id: str
    text: str
    token_ids: tuple[int, ...]
    answer: str
    gold: str | None = None
    row: Mapping[str, object] = field(default_factory=dict)
    hint: str = ""
    hint_ids: tuple[int, ...] = ()

    @property
    def given_ids(self) -> tuple[int, ...]:
        """What completions are sampled behind: the question, and the hint where there is one."""
        return self.token_ids + self.hint_ids

    @property
    def hash(self) -> str:
        """First 16 hex digits of SHA-256 over the question's token ids: the same prompt has the same hash in any step or run, hinted or not."""
        return hashlib.sha256(np.asarray(self.token_ids, "<i4").tobytes()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What the policy wrote after a prompt.

    `logp_sampling` (T,) is under the distribution sampled from (temperature and top-p), `logp` (T,) under the policy at
    the sampling temperature without truncation, `entropy` (T,) of that same distribution, all in nats.
    `finish` is `stop`, `stop_string` or `length`. A completion that is replayed has `source` REPLAY and `age` in steps since it was
    written; its log-probs and entropies are then those of the policy that wrote it. One with `source` HINTED was sampled behind its prompt's
    hint, which is no part of it. One with `source` REFERENCE was not sampled: its log-probs and entropies are zeros on the way to the
    trainer, and None in a trace.
    """

    token_ids: Array
    text: str
    logp_sampling: Array | None
    logp: Array | None
    entropy: Array | None
    finish: str
    source: str = POLICY
    age: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The completions of one prompt in one step."""

    prompt: Prompt
    completions: tuple[Completion, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """The judgement of one completion: every part before weighting, their weighted sum, and whether it is correct.

    `weights` are those of the parts in the sum, 1 for a part that is not among them. A part that raised is NaN and makes `total` NaN and
    `correct` None; `failure` holds the message. Without `in_loss` it counts in its group's figures, and its tokens are not trained on.
    """

    parts: Mapping[str, float]
    total: float
    correct: bool | None
    failure: str | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    in_loss: bool = True

    @property
    def failed(self) -> bool:
        return math.isnan(self.total)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredGroup:
    """A group and one reward per completion, in order.

    `greedy` is the total reward of one greedy completion of its prompt, NaN where scoring it failed, None where it was not asked for.
    """

    group: Group
    rewards: tuple[Reward, ...]
    sampling_round: int = 0
    greedy: float | None = None

    @property
    def totals(self) -> Array:
        """Total rewards (G,), float64, NaN where scoring failed."""
        return np.array([r.total for r in self.rewards], "f8")

    @property
    def outcome(self) -> str:
        """mixed, all_fail, all_pass, tied (equal rewards, neither all wrong nor all correct), failed (fewer than two scored, where there
        were two), or replayed (none was sampled in this step). Replayed rollouts and reference answers do not count."""
        written = [r for c, r in zip(self.group.completions, self.rewards, strict=True) if c.source in SAMPLED]
        scored = [r for r in written if not r.failed]
        if not written:
            return "replayed"
        if len(scored) < min(2, len(written)):
            return "failed"
        if len({r.total for r in scored}) > 1:
            return "mixed"
        if all(r.correct for r in scored):
            return "all_pass"
        if not any(r.correct for r in scored):
            return "all_fail"
        return "tied"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutTrace:
    """What happened to every token of one rollout in one step; see storage/schema.py for the meaning of each trace.

    `logp_delta` is None if the rollout was not rescored, `logp_ref` None without a reference model. `nthr` (T,) is the
    push of each token of a wrong rollout against the group's correct ones, `gwhes` that of the wrong rollouts against this
    correct one (algorithms/nthr.py); both None where not measured. Of a replayed rollout `logp_old` (T,) is the log-prob under the
    policy that wrote it, which its ratio is taken against, and the completion's `logp` that of the policy before the step; of a reference
    answer, which no policy wrote, `logp_old` is that of the policy before the step. `items` (T,) int16 numbers the items of a completion that
    is a list, from 0, with −2 for its end token; None for other completions.
    """

    completion: Completion
    reward: Reward
    advantages: Array
    weights: Array
    clipped: Array
    logp_delta: Array | None = None
    logp_ref: Array | None = None
    nthr: Array | None = None
    gwhes: float | None = None
    logp_old: Array | None = None
    items: Array | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTrace:
    """One group of the step with its rollouts' traces; `reason` says why a group was dropped.

    `prompt_state` is what the run remembers of the prompt after the step, by name.
    """

    prompt: Prompt
    rollouts: tuple[RolloutTrace, ...]
    outcome: str
    baseline: float
    kept: bool
    reason: str = ""
    sampling_round: int = 0
    sampler_score: float | None = None
    sampler_probability: float | None = None
    greedy_reward: float | None = None
    prompt_state: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateTrace:
    """One optimizer update. Shares and means are over the update's loss tokens; None where structurally void.

    `objective` is what a method with a group objective maximises, under the policy before the update: its loss does not say it.
    """

    update: int
    epoch: int
    minibatch: int
    loss: float
    terms: Mapping[str, float]
    grad_norm: float
    clip_low: float | None
    clip_high: float | None
    kl_before: float
    kl_ref: float | None
    ratio_max: float
    entropy: float | None
    tokens: int
    lr: float
    ess: float | None = None
    objective: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalTrace:
    """Greedy decoding on held-out prompts."""

    prompts: int
    correct: float
    reward: float
    gold_logp: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTrace:
    """The probe set's known answers under the policy after the step.

    `logp` is nats per token; `delta` nats per answer and `fell` a share, both against the first time the set was scored.
    """

    answers: int
    logp: float
    delta: float
    fell: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Seconds spent in each part of the step."""

    generate_s: float
    score_s: float
    update_s: float
    rescore_s: float
    evaluate_s: float
    total_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTrace:
    """Everything one training step leaves behind; the one type that native runs and adapters hand to the store."""

    step: int
    attempt: int
    finished_at: float
    elapsed_s: float
    timings: Timings
    groups: tuple[GroupTrace, ...]
    updates: tuple[UpdateTrace, ...]
    evaluation: EvalTrace | None = None
    probe: ProbeTrace | None = None

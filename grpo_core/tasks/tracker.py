"""How often the policy solves each prompt, tracked over steps by a Beta distribution that forgets as the policy moves (SPO, arXiv:2509.13232).

    p̂ = α/(α+β)    ρ = clamp(2^(−D/0.06), 0.875, 0.96)    α ← ρα + r    β ← ρβ + 1 − r

D is the mean |change of log-prob| of the tokens of the prompt's previous completion since that was written; the paper calls it KL.
As in the released code the half-drift and the bounds are fixed, and a prompt without a previous completion has D = 0, so ρ = 0.96.
Ours: with several rollouts per prompt all their verdicts are added, and D is of the first of them; α and β belong to the prompt's
token ids where the released code has its text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from grpo_core.config import RunConfig
from grpo_core.errors import TaskError
from grpo_core.records import Completion, Prompt, ScoredGroup
from grpo_core.tasks.base import Task
from grpo_core.tasks.sampler import Draw, PromptSampler, pool_of

HALF_DRIFT = 0.06
"""Nats per token of drift that halve what is known."""
LEAST_KEPT, MOST_KEPT = 0.875, 0.96
PRIOR_ROLLOUTS = 1 / (1 - LEAST_KEPT)
"""N₀ = 8: how many rollouts the first belief weighs, the most that ρ = 0.875 lets any belief weigh."""
EXPLORED = 0.05
"""Weight of a prompt that is surely solved or surely not, so that it is drawn now and then."""


def retained(drift: float) -> float:
    """ρ: the share of what is known of a prompt that outlives `drift` nats/token."""
    return float(np.clip(2.0 ** (-drift / HALF_DRIFT), LEAST_KEPT, MOST_KEPT))


def prior(successes: int, rollouts: int) -> tuple[float, float]:
    """(α, β) from rollouts before training: N₀(Σs + ½)/(n + 1) and N₀(n − Σs + ½)/(n + 1); (½, ½) from none."""
    if not rollouts:
        return 0.5, 0.5
    return PRIOR_ROLLOUTS * (successes + 0.5) / (rollouts + 1), PRIOR_ROLLOUTS * (rollouts - successes + 0.5) / (rollouts + 1)


def draw_weight(rate: np.ndarray) -> np.ndarray:
    """√(p̂(1−p̂)) + 0.05: how strongly a prompt of that success rate is drawn."""
    return np.sqrt(rate * (1 - rate)) + EXPLORED


@dataclass(frozen=True, slots=True)
class Belief:
    """What is believed of a prompt: Beta(α, β), and the drift and ρ of its last update, NaN before the first."""

    alpha: float
    beta: float
    drift: float = np.nan
    kept: float = np.nan

    @property
    def rate(self) -> float:
        """p̂."""
        return self.alpha / (self.alpha + self.beta)

    def after(self, verdicts: Sequence[bool], drift: float) -> Belief:
        """The belief after rollouts that came out so, of a policy that has moved by `drift`."""
        kept, right = retained(drift), sum(verdicts)
        return Belief(kept * self.alpha + right, kept * self.beta + len(verdicts) - right, drift, kept)


class Tracker:
    """A belief per prompt, and the prompt's last completion to measure drift by: a PromptMemory."""

    def __init__(self) -> None:
        self._beliefs: dict[str, Belief] = {}
        self._written: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def rate(self, prompt: Prompt) -> float:
        """p̂ of the prompt, ½ for one never seen."""
        return self._belief(prompt).rate

    def begin(self, prompt: Prompt, verdicts: Sequence[bool]) -> None:
        """The first belief, from rollouts of the start model."""
        self._beliefs[prompt.hash] = Belief(*prior(sum(verdicts), len(verdicts)))

    def last(self, prompt: Prompt) -> Completion | None:
        """The prompt's previous completion with its log-probs when it was written; its text and entropies are not kept."""
        found = self._written.get(prompt.hash)
        if found is None:
            return None
        ids, logp = found
        return Completion(token_ids=ids, text="", logp_sampling=logp, logp=logp, entropy=np.zeros_like(logp), finish="stop")

    def observe(self, prompt: Prompt, verdicts: Sequence[bool], *, drift: float, token_ids: np.ndarray, logp: np.ndarray) -> None:
        """Take in the prompt's rollouts of a step; the completion `token_ids` is the one the next drift is measured by."""
        self._beliefs[prompt.hash] = self._belief(prompt).after(verdicts, drift)
        self._written[prompt.hash] = (token_ids, logp)

    def of(self, prompt: Prompt) -> Mapping[str, float]:
        """p (p̂ now; the group's baseline has what it was before), alpha, beta, drift (nats/token), kept (ρ)."""
        belief = self._beliefs.get(prompt.hash)
        if belief is None:
            return {}
        values = {"p": belief.rate, "alpha": belief.alpha, "beta": belief.beta, "drift": belief.drift, "kept": belief.kept}
        return {name: value for name, value in values.items() if not np.isnan(value)}

    def state(self) -> Mapping[str, object]:
        beliefs = {key: (b.alpha, b.beta, b.drift, b.kept) for key, b in self._beliefs.items()}
        return {"beliefs": beliefs, "written": dict(self._written)}

    def restore(self, state: Mapping[str, object]) -> None:
        self._beliefs = {key: Belief(*values) for key, values in state["beliefs"].items()}
        self._written = dict(state["written"])

    def _belief(self, prompt: Prompt) -> Belief:
        return self._beliefs.get(prompt.hash) or Belief(*prior(0, 0))


class TrackedSampler(PromptSampler):
    """Draws a step's prompts without replacement in proportion to `draw_weight`, from a pool of the task's training prompts.

    Before the first step every prompt of the pool gets its first belief from `spo_init` rollouts.
    """

    def __init__(self, task: Task, config: RunConfig, tracker: Tracker) -> None:
        super().__init__(task, config.seed)
        self.pool = pool_of(task, config.seed, config.spo_pool)
        self.trial_rollouts = config.spo_init
        self._tracker, self._begun = tracker, not config.spo_init
        self._prompts = [task.at(int(index)) for index in self.pool]
        if len(self.pool) < config.prompts_per_step:
            raise TaskError(
                f"prompts_per_step={config.prompts_per_step} is more than the {len(self.pool)} prompts method {config.method} draws from without "
                f"replacement; set prompts_per_step to at most {len(self.pool)}"
            )

    def draw(self, n: int) -> list[Draw]:
        """`n` different prompts, each with its weight and the chance of a first draw."""
        weights = draw_weight(np.array([self._tracker.rate(prompt) for prompt in self._prompts]))
        chance = weights / weights.sum()
        chosen = self._rng.choice(len(self._prompts), n, replace=False, p=chance)
        return [Draw(self._prompts[place], float(weights[place]), float(chance[place])) for place in chosen]

    def due(self, step: int) -> bool:
        return not self._begun

    def observe(self, groups: Sequence[ScoredGroup], *, refresh: bool = False) -> None:
        """First beliefs from rollouts of the whole pool; what comes of training rollouts the tracker is told with the policy's drift."""
        if refresh:
            self._begun = True
            for group in groups:
                self._tracker.begin(group.group.prompt, [bool(reward.correct) for reward in group.rewards if not reward.failed])

    def state(self) -> dict[str, object]:
        return {**super().state(), "begun": self._begun}

    def restore(self, state: Mapping[str, object]) -> None:
        super().restore(state)
        self._begun = bool(state.get("begun", self._begun))

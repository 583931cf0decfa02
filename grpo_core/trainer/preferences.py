"""GEPO's second stream (arXiv:2505.12723): at every update, groups of a fixed corpus in which some completions are preferred over others."""

from __future__ import annotations

from dataclasses import dataclass

from grpo_core import streams
from grpo_core.config import RunConfig
from grpo_core.errors import TaskError
from grpo_core.records import Group
from grpo_core.rollout.policy import Policy
from grpo_core.tasks.preferences import SIDES, Preference, fingerprint_of, prompt_of, read_preferences


@dataclass(frozen=True, slots=True)
class PreferredGroup:
    """One row of the corpus in tokens: its completions, the first `chosen` of which are preferred over the others."""

    group: Group
    chosen: int


@dataclass(frozen=True, slots=True)
class PreferenceStream:
    """The corpus of a run. Which groups an update reads depends on the run's seed, the step and the update alone, so nothing is carried between them."""

    groups: tuple[PreferredGroup, ...]
    per_update: int
    seed: int
    fingerprint: str

    def of(self, step: int, update: int) -> list[PreferredGroup]:
        """The groups of an update, each once."""
        chosen = streams.of_step(self.seed, step, streams.PREFERRED, update).choice(len(self.groups), min(self.per_update, len(self.groups)), replace=False)
        return [self.groups[i] for i in chosen]


def preference_stream(config: RunConfig, policy: Policy) -> PreferenceStream:
    """The corpus that a config names, in the policy's tokens. Raises TaskError for data that cannot be used."""
    rows = read_preferences(config.preferences)
    return PreferenceStream(tuple(_in_tokens(row, config, policy) for row in rows), config.preference_groups, config.seed, fingerprint_of(rows))


def _in_tokens(row: Preference, config: RunConfig, policy: Policy) -> PreferredGroup:
    prompt = prompt_of(row, config, policy)
    completions = [policy.unsampled(text) for side in SIDES for text in getattr(row, side)]
    for completion in completions:
        if len(completion.token_ids) > config.max_new_tokens:
            raise TaskError(
                f"{row.where} has a completion of {len(completion.token_ids)} tokens, more than max_new_tokens={config.max_new_tokens}; "
                f"set max_new_tokens={len(completion.token_ids)} or shorten it"
            )
    unknown = policy.tokenizer.unk_token_id
    if unknown is not None and any(unknown in ids for ids in (prompt.token_ids, *(c.token_ids for c in completions))):
        raise TaskError(f"{row.where} has characters that the model's vocabulary lacks; write it in the characters of the task's own prompts")
    return PreferredGroup(Group(prompt=prompt, completions=tuple(completions)), len(row.chosen))

"""What a run remembers of its prompts between steps: one small interface, so that all of it is checkpointed, resumed and recorded alike.

A memory is keyed by `Prompt.hash`. It takes in what came of a step's prompts and never draws a random number of its own: the same
observations in the same order give the same memory, and `restore(state())` continues bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Protocol

from grpo_core.config import RunConfig
from grpo_core.records import Prompt
from grpo_core.tasks.hints import RecentRewards
from grpo_core.tasks.replay import ReplayBuffer, Successes
from grpo_core.tasks.tracker import Tracker


class PromptMemory(Protocol):
    """One thing that is remembered of prompts."""

    def of(self, prompt: Prompt) -> Mapping[str, float]:
        """What is known of the prompt now, by name, for the record; empty for one that is not remembered."""
        ...

    def state(self) -> Mapping[str, object]:
        """Everything `restore` needs, of plain containers, numbers and numpy arrays."""
        ...

    def restore(self, state: Mapping[str, object]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Memories:
    """The memories of a run by what they are for; None where its method and config keep none."""

    tracker: Tracker | None = None
    successes: Successes | None = None
    replay: ReplayBuffer | None = None
    recent: RecentRewards | None = None

    def kept(self) -> Iterator[tuple[str, PromptMemory]]:
        """Those the run has, each with its name."""
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ((name, memory) for name, memory in pairs if memory is not None)

    def of(self, prompt: Prompt) -> dict[str, float]:
        """What all of them know of a prompt."""
        return {name: value for _, memory in self.kept() for name, value in memory.of(prompt).items()}

    def state(self) -> dict[str, Mapping[str, object]]:
        return {name: memory.state() for name, memory in self.kept()}

    def restore(self, state: Mapping[str, Mapping[str, object]]) -> None:
        """A memory that `state` lacks begins empty: a fork may remember what its parent did not."""
        for name, memory in self.kept():
            if name in state:
                memory.restore(state[name])


def build_memories(config: RunConfig) -> Memories:
    """The memories a config asks for."""
    rule = config.method_row.sampler
    return Memories(
        tracker=Tracker() if rule == "tracked" else None,
        successes=Successes() if rule == "replay_success" else None,
        replay=ReplayBuffer(config.replay_size, config.replay_max_age) if config.replay_size else None,
        recent=RecentRewards() if config.hints else None,
    )

"""What a task is, before (`TaskSpec`) and after (`Task`) it has met a tokenizer; numpy only, no torch.

`build_task(config)` gives a TaskSpec, `spec.bind(policy)` the Task that prompts are drawn from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from grpo_core.errors import TaskError
from grpo_core.records import Completion, Prompt, Reward

Message = Mapping[str, str]
"""One chat message: {"role": …, "content": …}."""


class Encoder(Protocol):
    """What a task needs of a policy to make prompts; `grpo_core.rollout.policy.Policy` is one.

    `context_limit` counts tokens, prompt and completion together; None where the model names no limit.
    """

    @property
    def context_limit(self) -> int | None: ...

    @property
    def has_chat_template(self) -> bool: ...

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a plain prompt, with the start token if the model expects one."""
        ...

    def encode_chat(self, messages: Sequence[Message]) -> tuple[str, list[int]]:
        """The messages in the chat template, ready for the assistant's turn: its text and its token ids."""
        ...


class TaskSpec(Protocol):
    """A task that has been read and checked, and needs no tokenizer.

    `fingerprint` names everything in the task that shapes a model warmed up on it.
    """

    name: str
    fingerprint: str

    def alphabet(self) -> str:
        """Every character the tiny model's tokenizer must know, sorted, each once."""
        ...

    def warmup_example(self, rng: np.random.Generator) -> tuple[str, str]:
        """(prompt, completion) that teaches the tiny model its task; never a held-out prompt."""
        ...

    def bind(self, encoder: Encoder) -> Task:
        """The task in the encoder's tokens; TaskError when a prompt cannot be encoded or does not fit the model."""
        ...


class Task(Protocol):
    """A task that prompts are drawn from and completions are judged by."""

    name: str

    def draw(self, rng: np.random.Generator, n: int) -> list[Prompt]:
        """The next `n` training prompts; every random choice comes from `rng`."""
        ...

    @property
    def size(self) -> int:
        """How many training prompts there are."""
        ...

    def at(self, index: int) -> Prompt:
        """Training prompt number `index`, from 0; the same one for the same data."""
        ...

    def held_out(self, n: int) -> list[Prompt]:
        """The first `n` held-out prompts, fewer if there are not so many: always the same ones, never drawn."""
        ...

    def judge(self, prompt: Prompt, completion: Completion) -> Reward:
        """The reward of one completion; may raise where it is a user's code."""
        ...

    def state(self) -> dict[str, object]:
        """Where drawing stands, JSON-able; `restore` continues from it bit for bit."""
        ...

    def restore(self, state: Mapping[str, object]) -> None: ...


def check_fits(prompt_tokens: int, max_new_tokens: int, context_limit: int | None, where: str) -> None:
    """Raise TaskError when a prompt and its longest completion are longer than the model's context; `where` names the prompt."""
    if context_limit is None or prompt_tokens + max_new_tokens <= context_limit:
        return
    room = context_limit - prompt_tokens
    remedy = f"set max_new_tokens to at most {room}" if room > 0 else "shorten or remove that prompt, or take a model with a longer context"
    raise TaskError(
        f"{where} has {prompt_tokens} tokens, which with max_new_tokens={max_new_tokens} is more than the model's context of {context_limit} tokens; {remedy}"
    )

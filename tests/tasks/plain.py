"""Stand-ins at the edge of tasks: an encoder of one token per character, and completions made by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from grpo_core.config import RunConfig, make_config
from grpo_core.records import Completion, Group, Prompt
from grpo_core.tasks.base import Message


@dataclass(frozen=True)
class Characters:
    """Token ids are code points; the chat template writes <role>content for every message and then <assistant>."""

    has_chat_template: bool = False
    context_limit: int | None = None

    def encode_prompt(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    def encode_chat(self, messages: Sequence[Message]) -> tuple[str, list[int]]:
        text = "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>"
        return text, self.encode_prompt(text)


def prompt(text: str = "1+1=", answer: str = "2") -> Prompt:
    return Prompt(prompt_id="p", text=text, token_ids=tuple(map(ord, text)), answer=answer)


def completion(text: str, *, finish: str = "stop", length: int | None = None) -> Completion:
    tokens = np.zeros(len(text) + 1 if length is None else length, "i4")
    numbers = np.zeros(len(tokens), "f4")
    return Completion(token_ids=tokens, text=text, logp_sampling=numbers, logp=numbers, entropy=numbers, finish=finish)


def group(answer: str, *texts: str) -> Group:
    return Group(prompt=prompt(answer=answer), completions=tuple(map(completion, texts)))


def jsonl(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def dataset_config(data: Path | str, **changes: object) -> RunConfig:
    return make_config({"task": "dataset", "data": str(data), **changes})

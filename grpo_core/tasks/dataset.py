"""The dataset task: the user's own prompts and answers, from a .jsonl or .parquet file or through the datasets library."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from grpo_core.config import RunConfig
from grpo_core.errors import TaskError
from grpo_core.records import Completion, Prompt, Reward
from grpo_core.tasks.base import Encoder, Message, check_fits
from grpo_core.tasks.files import answer_in, cell, prompt_in, read_rows
from grpo_core.tasks.rewards import answer_objection, make_parts
from grpo_core.tasks.scoring import Rubric

HELD_OUT_SHARE = 10  # at most one row in this many is held out
_TEMPLATE_ROOM = 64  # tokens a template may add to one prompt more than to the first


@dataclass(frozen=True, slots=True)
class Row:
    """One checked row. `where` is how messages name it (data.jsonl line 7); `prompt` is a text or chat messages."""

    where: str
    prompt: str | tuple[Message, ...]
    answer: str
    gold: str | None
    columns: Mapping[str, object]

    @property
    def text(self) -> str:
        """The prompt's words without any template."""
        return self.prompt if isinstance(self.prompt, str) else "\n".join(m["content"] for m in self.prompt)


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """The rows, read and checked, split into training and held-out: the last min(eval_prompts, 10 %) rows, at least one of two."""

    config: RunConfig
    rubric: Rubric
    training: tuple[Row, ...]
    evaluation: tuple[Row, ...]
    fingerprint: str
    name: str = "dataset"

    def alphabet(self) -> str:
        rows = (*self.training, *self.evaluation)
        return "".join(sorted({character for row in rows for character in row.text + row.answer + (row.gold or "")}))

    def warmup_example(self, rng: np.random.Generator) -> tuple[str, str]:
        row = self.training[rng.integers(len(self.training))]
        return row.text, row.answer if row.gold is None else row.gold

    def bind(self, encoder: Encoder) -> Dataset:
        maker = PromptMaker(self.config, encoder)
        maker.check((*self.training, *self.evaluation))
        return Dataset(self, maker)


class Dataset:
    """The dataset task in an encoder's tokens. Training rows come in epochs, each shuffled anew by the generator given to `draw`."""

    name = "dataset"

    def __init__(self, spec: DatasetSpec, maker: PromptMaker) -> None:
        self.spec = spec
        self._maker = maker
        self._epoch_seed: int | None = None
        self._order = np.empty(0, np.int64)
        self._cursor = 0

    def draw(self, rng: np.random.Generator, n: int) -> list[Prompt]:
        return [self._maker.make(self.spec.training[self._next(rng)]) for _ in range(n)]

    @property
    def size(self) -> int:
        return len(self.spec.training)

    def at(self, index: int) -> Prompt:
        return self._maker.make(self.spec.training[index])

    def held_out(self, n: int) -> list[Prompt]:
        return [self._maker.make(row) for row in self.spec.evaluation[:n]]

    def judge(self, prompt: Prompt, completion: Completion) -> Reward:
        return self.spec.rubric.judge(prompt, completion)

    def state(self) -> dict[str, object]:
        """The epoch's seed stands for its permutation, so that a checkpoint does not grow with the data."""
        return {"data": self.spec.fingerprint, "epoch_seed": self._epoch_seed, "cursor": self._cursor}

    def restore(self, state: Mapping[str, object]) -> None:
        """Raises TaskError when the data is not what it was, because the cursor would point at other rows."""
        if state["data"] != self.spec.fingerprint:
            raise TaskError(f"{self.spec.config.data} has changed since the checkpoint was written; put the old data back, or start a new run")
        self._begin_epoch(state["epoch_seed"])
        self._cursor = state["cursor"]

    def _next(self, rng: np.random.Generator) -> int:
        if self._cursor == len(self._order):
            self._begin_epoch(int(rng.integers(2**63)))
        self._cursor += 1
        return int(self._order[self._cursor - 1])

    def _begin_epoch(self, seed: int | None) -> None:
        self._epoch_seed, self._cursor = seed, 0
        self._order = np.empty(0, np.int64) if seed is None else np.random.default_rng(seed).permutation(len(self.spec.training))


@dataclass(frozen=True, slots=True)
class PromptMaker:
    """Rows → prompts, with or without the chat template."""

    config: RunConfig
    encoder: Encoder

    @property
    def templated(self) -> bool:
        return self.config.chat_template != "never" and self.encoder.has_chat_template

    def make(self, row: Row) -> Prompt:
        """TaskError if the prompt needs a chat template that is not there, or does not fit the model."""
        text, ids = self.encoder.encode_chat(self._messages(row)) if self.templated else self._plain(row)
        check_fits(len(ids), self.config.max_new_tokens, self.encoder.context_limit, f"the prompt of {row.where}")
        return Prompt(prompt_id=row.where, text=text, token_ids=tuple(ids), answer=row.answer, gold=row.gold, row=row.columns)

    def check(self, rows: Sequence[Row]) -> None:
        """TaskError for what `make` would refuse in any row, now rather than in the middle of a run.

        A token is at least one byte in every tokenizer in use, so only prompts with more bytes than the context has tokens are encoded.
        """
        if not self.templated:
            self._check_no_template_needed(rows)
        first = self.make(rows[0])
        if self.encoder.context_limit is None:
            return
        overhead = max(0, len(first.token_ids) - len(rows[0].text.encode())) + _TEMPLATE_ROOM
        room = self.encoder.context_limit - self.config.max_new_tokens - overhead
        for row in rows:
            if len(row.text.encode()) > room:
                self.make(row)

    def _check_no_template_needed(self, rows: Sequence[Row]) -> None:
        absent = "chat_template=never" if self.config.chat_template == "never" else "the model's tokenizer has no chat template"
        if self.config.chat_template == "always":
            raise TaskError("chat_template=always but the model's tokenizer has no chat template; use chat_template=auto or an instruction-tuned model")
        if self.config.system_prompt:
            raise TaskError(f"system_prompt is set but {absent}; leave it empty or use a model with a chat template")
        for row in rows:
            if not isinstance(row.prompt, str) and len(row.prompt) > 1:
                raise TaskError(f"the prompt of {row.where} has {len(row.prompt)} chat messages but {absent}; use a model with one, or prompts of plain text")

    def _messages(self, row: Row) -> list[Message]:
        messages = [{"role": "user", "content": row.prompt}] if isinstance(row.prompt, str) else list(row.prompt)
        return [{"role": "system", "content": self.config.system_prompt}, *messages] if self.config.system_prompt else messages

    def _plain(self, row: Row) -> tuple[str, list[int]]:
        return row.text, self.encoder.encode_prompt(row.text)


def read_dataset(config: RunConfig) -> DatasetSpec:
    """Read, check and split the data of a config with task=dataset.

    Raises TaskError, naming file and line, for data that cannot be read, rows without the columns, and answers that are empty or no text.
    """
    rubric = Rubric(make_parts(config.rewards, config.reward_pattern), config.correct_at, config.max_new_tokens, config.overlong_buffer)
    rows = tuple(_checked(where, columns, config) for where, columns in read_rows(config.data, config.split))
    if not rows:
        raise TaskError(f"{config.data} has no rows; one row per prompt, e.g. {{\"{config.prompt_column}\": \"2+2=\", \"{config.answer_column}\": \"4\"}}")
    held_out = max(1, min(config.eval_prompts, len(rows) // HELD_OUT_SHARE)) if len(rows) > 1 else 0
    split = len(rows) - held_out
    return DatasetSpec(config, rubric, rows[:split], rows[split:], _fingerprint(rows, held_out))


def _fingerprint(rows: Sequence[Row], held_out: int) -> str:
    digest = hashlib.sha256(f"{held_out}\n".encode())
    for row in rows:
        digest.update(json.dumps([row.prompt, row.answer, *([] if row.gold is None else [row.gold])]).encode())
    return digest.hexdigest()


def _checked(where: str, columns: Mapping[str, object], config: RunConfig) -> Row:
    row = Row(
        where=where,
        prompt=prompt_in(cell(columns, config.prompt_column, where, option="prompt_column"), f"{where}: column {config.prompt_column!r}"),
        answer=answer_in(cell(columns, config.answer_column, where, option="answer_column"), f"{where}: column {config.answer_column!r}"),
        gold=_gold(columns, config, where),
        columns=columns,
    )
    if config.system_prompt and not isinstance(row.prompt, str) and row.prompt[0]["role"] == "system":
        raise TaskError(f"{where} brings its own system message and system_prompt is set too; leave system_prompt empty")
    if objection := answer_objection(config.rewards, row.answer):
        raise TaskError(f"{where}: {objection}")
    return row


def _gold(columns: Mapping[str, object], config: RunConfig, where: str) -> str | None:
    return answer_in(cell(columns, config.gold_column, where, option="gold_column"), f"{where}: column {config.gold_column!r}") if config.gold_column else None

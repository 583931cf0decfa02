"""Completions preferred over others: the fixed corpus that GEPO reads as a second stream beside the rollouts (arXiv:2505.12723)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grpo_core.config import RunConfig
from grpo_core.errors import TaskError
from grpo_core.records import Prompt
from grpo_core.tasks.base import Encoder, Message, check_fits
from grpo_core.tasks.dataset import PromptMaker, Row
from grpo_core.tasks.files import cell, prompt_in, read_rows, shown

SIDES = ("chosen", "rejected")
"""Columns of the completions, named as preference data for TRL is."""


@dataclass(frozen=True, slots=True)
class Preference:
    """One checked row. `where` is how messages name it; `prompt` is a text or chat messages."""

    where: str
    prompt: str | tuple[Message, ...]
    chosen: tuple[str, ...]
    rejected: tuple[str, ...]


def read_preferences(data: str) -> tuple[Preference, ...]:
    """The rows of a .jsonl or .parquet file or of the split `train` of a datasets path, with columns prompt, chosen and rejected.

    Raises TaskError, naming file and line, for data that cannot be read, rows without the columns, and sides that are no texts.
    """
    rows = tuple(_checked(where, columns) for where, columns in read_rows(data, "train"))
    if not rows:
        raise TaskError(f'{data} has no rows; one row per prompt, e.g. {{"prompt": "2+2=", "chosen": "4", "rejected": ["5", "22"]}}')
    return rows


def fingerprint_of(rows: Sequence[Preference]) -> str:
    """A digest of what the rows say, whatever file they stand in."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.prompt, row.chosen, row.rejected]).encode())
    return digest.hexdigest()


def prompt_of(row: Preference, config: RunConfig, encoder: Encoder) -> Prompt:
    """The row's prompt as the run's own are made. Raises TaskError if it does not fit the model beside a completion."""
    if config.task == "dataset":
        maker, plain = PromptMaker(config, encoder), Row(where=row.where, prompt=row.prompt, answer="", gold=None, columns={})
        maker.check([plain])
        return maker.make(plain)
    if not isinstance(row.prompt, str):
        raise TaskError(f"the prompt of {row.where} is chat messages, and those of the {config.task} task are plain text; write plain text")
    ids = encoder.encode_prompt(row.prompt)
    check_fits(len(ids), config.max_new_tokens, encoder.context_limit, f"the prompt of {row.where}")
    return Prompt(prompt_id=row.where, text=row.prompt, token_ids=tuple(ids), answer="")


def _checked(where: str, columns: Mapping[str, object]) -> Preference:
    texts = {}
    for side in SIDES:
        value = cell(columns, side, where)
        texts[side] = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else ()
        if not texts[side] or not all(isinstance(text, str) and text for text in texts[side]):
            raise TaskError(f"{where}: column {side!r} is {shown(value)}; write a completion, or a list of completions, there")
    return Preference(where=where, prompt=prompt_in(cell(columns, "prompt", where), f"{where}: column 'prompt'"), **texts)

"""A policy: the model that writes, its tokenizer, and the few facts about them that everything else asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from grpo_core.config import RunConfig
from grpo_core.errors import ModelError
from grpo_core.rollout.tiny import Progress, load_tiny
from grpo_core.tasks.base import Message, TaskSpec


@dataclass(frozen=True)
class Policy:
    """A causal language model and its tokenizer; an `Encoder` for tasks."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def eos_ids(self) -> tuple[int, ...]:
        """Every id that ends a text: the tokenizer's, and those of the model's generation config."""
        configured = self.model.generation_config.eos_token_id if self.model.generation_config else None
        listed = configured if isinstance(configured, list) else [configured]
        return tuple(sorted({i for i in (self.tokenizer.eos_token_id, *listed) if i is not None}))

    @cached_property
    def pad_id(self) -> int:
        """The id that fills rectangles; a tokenizer without one lends its end-of-sequence id."""
        return self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.eos_ids[0]

    @property
    def context_limit(self) -> int | None:
        """Tokens of prompt and completion together, or None where the model names no limit."""
        return getattr(self.model.config, "max_position_embeddings", None)

    @property
    def has_chat_template(self) -> bool:
        return bool(self.tokenizer.chat_template)

    def encode(self, text: str) -> list[int]:
        """Token ids of a piece of text, no special tokens added."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def encode_prompt(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def encode_chat(self, messages: Sequence[Message]) -> tuple[str, list[int]]:
        text = self.tokenizer.apply_chat_template([dict(m) for m in messages], add_generation_prompt=True, tokenize=False)
        return text, self.encode(text)  # the template has put the special tokens in already

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, special tokens left out."""
        return self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

    def pieces(self) -> list[str]:
        """The text of every token id up to the model's vocabulary size; ids the tokenizer does not know are empty."""
        known, size = len(self.tokenizer), self.model.get_input_embeddings().num_embeddings
        return self.tokenizer.batch_decode([[i] for i in range(min(known, size))]) + [""] * max(0, size - known)


def load_policy(config: RunConfig, task: TaskSpec, *, device: torch.device, cache_dir: Path, progress: Progress) -> Policy:
    """The config's model on `device`, ready to train: `tiny` (warmed up, cached) or any causal LM by id or path, LoRA on request.

    Raises ModelError in one sentence when it cannot be found or loaded.
    """
    if config.model == "tiny":
        model, tokenizer = load_tiny(task, config.warmup_steps, cache_dir, progress)
    else:
        model, tokenizer = _load_pretrained(config.model, _dtype(config, device))
    if config.lora_rank:
        model = _with_lora(model, config)
    return Policy(model.to(device, dtype=_dtype(config, device)).eval(), tokenizer)


def _dtype(config: RunConfig, device: torch.device) -> torch.dtype:
    if config.dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" and config.model != "tiny" else torch.float32
    return getattr(torch, config.dtype)


def _load_pretrained(name: str, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    transformers_logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(name, dtype=dtype), AutoTokenizer.from_pretrained(name)
    except Exception as error:  # transformers, hub and file errors alike: the user can only change the name or the network
        reason = " ".join(str(error).split()).split(". ")[0][:300]
        raise ModelError(f"cannot load model {name!r} ({type(error).__name__}: {reason}); give tiny, a Hugging Face id, or a folder with config.json and weights") from error


def _with_lora(model: PreTrainedModel, config: RunConfig) -> PreTrainedModel:
    """LoRA adapters on every linear layer (peft), started from the run's seed without touching global random state."""
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return get_peft_model(model, LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"))

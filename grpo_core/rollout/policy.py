"""The policy: a causal language model and its tokenizer, from Hugging Face, a local path, or made here (`tiny`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from grpo_core.config import RunConfig
from grpo_core.errors import ModelError
from grpo_core.records import Completion
from grpo_core.rollout.tiny import Progress, load_tiny
from grpo_core.tasks.base import Message, TaskSpec

LOADING = "loading the model"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_NO_LIMIT = 10**9  # tokenizers without a limit name one above this


@dataclass(frozen=True, slots=True)
class Policy:
    """What samples and trains. The model is in eval mode (dropout off) with its trainable weights requiring gradients."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Ids that end a completion, the tokenizer's own first; chat models have several."""
        ends = self.model.generation_config.eos_token_id
        others = ends if isinstance(ends, list) else [ends]
        return tuple(dict.fromkeys(i for i in (self.tokenizer.eos_token_id, *others) if i is not None))

    @property
    def pad_id(self) -> int:
        """Fills rows that have ended; the end-of-sequence id where the tokenizer has no padding of its own."""
        return self.eos_ids[0] if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id

    @property
    def banned_ids(self) -> tuple[int, ...]:
        """Ids that may not be sampled: padding, unless it also ends a completion.

        A fresh model does sample it, and transformers gives that embedding row no gradient while a plain embedding does.
        """
        return () if self.pad_id in self.eos_ids else (self.pad_id,)

    @property
    def context_limit(self) -> int | None:
        """Longest prompt and completion together, in tokens; None where neither model nor tokenizer names a limit."""
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        limit = positions or self.tokenizer.model_max_length
        return limit if limit < _NO_LIMIT else None

    @property
    def vocabulary_size(self) -> int:
        """Rows of the embedding: every id the model can write, those the tokenizer does not know included."""
        return self.model.get_input_embeddings().weight.shape[0]

    @property
    def has_chat_template(self) -> bool:
        return bool(self.tokenizer.chat_template)

    def encode(self, text: str) -> list[int]:
        """Token ids of a piece of text, no special tokens added."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def unsampled(self, text: str) -> Completion:
        """A completion that nobody sampled, ended by the end-of-sequence token; its log-probs and entropies are zeros."""
        ids = np.array([*self.encode(text), *self.eos_ids[:1]], "i4")
        nothing = np.zeros(len(ids), "f4")
        return Completion(token_ids=ids, text=text, logp_sampling=nothing, logp=nothing, entropy=nothing, finish="stop")

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a plain prompt, with the start token if the tokenizer puts one and never an end token."""
        ids, eos = self.tokenizer.encode(text), self.tokenizer.eos_token_id
        return ids[:-1] if ids and ids[-1] == eos and self.encode(text)[-1:] != [eos] else ids

    def encode_chat(self, messages: Sequence[Message]) -> tuple[str, list[int]]:
        """The messages in the chat template up to where the assistant begins to write: text and ids.

        Raises ModelError when the template refuses them.
        """
        try:
            text = self.tokenizer.apply_chat_template([dict(m) for m in messages], tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template is a program that came with the model
            raise ModelError(f"the model's chat template refuses the messages {[m['role'] for m in messages]}: {_sentence(error)}") from None
        return text, self.encode(text)  # the template has put the start token already

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return self.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def pieces(self) -> list[str]:
        """The text of every token id of the model: special tokens by name, <id> for ids the tokenizer does not know.

        Tokens are decoded behind another one, because some tokenizers drop the space in front of the first.
        """
        known = len(self.tokenizer)
        anchor = self.encode("a")[-1:]
        before = self._raw(anchor)
        named = dict(zip(self.tokenizer.all_special_ids, self.tokenizer.all_special_tokens, strict=True))
        return [
            named[i] if i in named else f"<{i}>" if i >= known else self._raw([*anchor, i]).removeprefix(before) for i in range(self.vocabulary_size)
        ]

    def _raw(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def load_policy(config: RunConfig, task: TaskSpec, *, device: torch.device | str, cache_dir: Path, progress: Progress) -> Policy:
    """The model of a config on its device, with LoRA adapters if asked for; leaves torch's global random state as it was.

    Raises ModelError, one sentence, when the model cannot be found, read or used.
    """
    progress(LOADING, 0, 1)
    dtype = _dtype(config, torch.device(device))
    if config.model == "tiny":
        model, tokenizer = load_tiny(task, config.warmup_steps, cache_dir, progress)
        model = model.to(dtype)
    else:
        model, tokenizer = _load_pretrained(config.model, dtype)
    model = _adapted(model, config) if config.lora_rank else model
    policy = Policy(model.to(device).eval(), tokenizer)
    _check_usable(policy, config.model)
    progress(LOADING, 1, 1)
    return policy


def _dtype(config: RunConfig, device: torch.device) -> torch.dtype:
    if config.dtype == "auto":  # tiny gains nothing from half precision, and its updates would round away
        return torch.bfloat16 if device.type == "cuda" and config.model != "tiny" else torch.float32
    return _DTYPES[config.dtype]


def _load_pretrained(name: str, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The configuration is asked for first: without a network every request takes a while to give up."""
    source = _local(name) or name
    with _model_errors(f"model {name!r}"):
        AutoConfig.from_pretrained(source)
    with _model_errors(f"the tokenizer of model {name!r} (are its tokenizer files there?)"):
        tokenizer = AutoTokenizer.from_pretrained(source)
    with _model_errors(f"the weights of model {name!r}"):
        model, loading = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, output_loading_info=True)
    if missing := sorted(loading["missing_keys"]):
        raise ModelError(f"the weights of model {name!r} lack {missing[0]} ({len(missing)} missing in all), which would start at random; save the whole model")
    return model, tokenizer


def _local(name: str) -> Path | None:
    """The folder a name stands for, or None for a name to look up on the hub. Raises ModelError for a path that is no model."""
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"the folder {name} has no config.json, so it is not a saved model; give the folder that save_pretrained wrote")
        return path
    if path.exists() or name.startswith((".", "/", "~")):
        raise ModelError(f"{name} is not a folder with a saved model; give tiny, a Hugging Face id, or the folder that save_pretrained wrote")
    return None


@contextmanager
def _model_errors(what: str) -> Iterator[None]:
    """Whatever the loaders raise (missing, gated or damaged files, unknown architectures, missing packages) as one sentence."""
    try:
        yield
    except Exception as error:  # loaders raise OSError, ValueError, KeyError, ImportError, RuntimeError and safetensors' own
        raise ModelError(f"cannot load {what}: {_sentence(error)}; use tiny, another Hugging Face id, or a local path") from None


def _adapted(model: PreTrainedModel, config: RunConfig) -> PreTrainedModel:
    """The model behind LoRA adapters on every linear layer but the head; their start values depend on the run's seed alone."""
    from peft import LoraConfig, get_peft_model  # a second of import that only LoRA runs need

    adapter = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return get_peft_model(model, adapter)


def _check_usable(policy: Policy, name: str) -> None:
    if not policy.eos_ids:
        raise ModelError(f"model {name!r} has no end-of-sequence token, so its completions would never end; give its tokenizer an eos_token")
    if len(policy.tokenizer) > policy.vocabulary_size:
        raise ModelError(
            f"model {name!r} has embeddings for {policy.vocabulary_size} tokens but its tokenizer knows {len(policy.tokenizer)}; "
            "resize the model's embeddings, or take the tokenizer it was saved with"
        )


def _sentence(error: BaseException) -> str:
    """An error's first line without its full stop, or its kind where it says nothing."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return line.rstrip(".: ") or type(error).__name__

"""`tiny`: a small transformers model and a character tokenizer, made here and warmed up on the task; no download.

The warm-up's seed is fixed, whatever the run's: every run on a task starts from the same model, so that runs can be compared
and one cached copy serves them all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from grpo_core.errors import ModelError
from grpo_core.tasks.base import TaskSpec

Progress = Callable[[str, int, int], None]
"""Called as progress(what is being done, steps done, steps in all)."""

WARMING_UP = "warming up the tiny model"
WAITING = "waiting for another run to warm up the tiny model"

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
CONTEXT = 4096
SEED = 0
ARCHITECTURE = {
    "hidden_size": 96,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 24,
    "tie_word_embeddings": True,
    "max_position_embeddings": CONTEXT,
}
RECIPE = {"lr": 3e-3, "betas": (0.9, 0.95), "weight_decay": 0.0, "batch": 28, "seed": SEED}
_IGNORED = -100  # label of positions that are not trained on
_POLL_S = 0.5


def load_tiny(task: TaskSpec, warmup_steps: int, cache_dir: Path, progress: Progress) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """The warmed-up model (fp32, CPU) and its tokenizer, from the cache or made and cached now.

    Safe when several processes start at once: one trains, the others wait and report that they do.
    Raises ModelError if the cached copy cannot be read.
    """
    folder = Path(cache_dir) / f"tiny-{_cache_key(task, warmup_steps)}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.is_dir():
        with _locked(folder.with_suffix(".lock"), lambda: progress(WAITING, 0, warmup_steps)):
            if not folder.is_dir():
                _publish(*warm_up(task, warmup_steps, progress), folder)
    try:
        return Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32), PreTrainedTokenizerFast.from_pretrained(folder)
    except Exception as error:  # whatever a damaged file makes the readers raise
        raise ModelError(f"the cached tiny model in {folder} cannot be read ({type(error).__name__}); delete that folder and start again") from error


def warm_up(task: TaskSpec, steps: int, progress: Progress) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerFast]:
    """A fresh model after `steps` supervised updates on the task's examples; no global random state is touched."""
    tokenizer = character_tokenizer(task.alphabet())
    with _one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = Qwen3ForCausalLM(_architecture(tokenizer))
        rng = np.random.default_rng(SEED)
        optimizer = torch.optim.AdamW(model.parameters(), lr=RECIPE["lr"], betas=RECIPE["betas"], weight_decay=RECIPE["weight_decay"])
        for step in range(steps):
            progress(WARMING_UP, step, steps)
            ids_BS, labels_BS = _batch([task.warmup_example(rng) for _ in range(RECIPE["batch"])], tokenizer)
            logits_BSV = model(input_ids=ids_BS, use_cache=False).logits
            cross_entropy(logits_BSV[:, :-1].flatten(0, 1), labels_BS[:, 1:].flatten(), ignore_index=_IGNORED).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        progress(WARMING_UP, steps, steps)
    return model.eval(), tokenizer


def character_tokenizer(alphabet: str) -> PreTrainedTokenizerFast:
    """One token per character, after <pad>, <eos> and <unk>; a character outside the alphabet is <unk>."""
    vocabulary = {piece: index for index, piece in enumerate((PAD, EOS, UNKNOWN, *alphabet))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )


def _architecture(tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id, bos_token_id=None, **ARCHITECTURE
    )


def _batch(examples: list[tuple[str, str]], tokenizer: PreTrainedTokenizerFast) -> tuple[Tensor, Tensor]:
    """(ids, labels), both (B, S), padded on the right; labels are set on the completion and its <eos> only."""
    prompts = [tokenizer.encode(prompt) for prompt, _ in examples]
    completions = [[*tokenizer.encode(completion), tokenizer.eos_token_id] for _, completion in examples]
    width = min(CONTEXT, max(len(p) + len(c) for p, c in zip(prompts, completions, strict=True)))
    ids_BS = torch.full((len(examples), width), tokenizer.pad_token_id)
    labels_BS = torch.full((len(examples), width), _IGNORED)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        tokens = torch.tensor(prompt + completion)[:width]
        ids_BS[row, : len(tokens)] = tokens
        labels_BS[row, len(prompt) : len(tokens)] = tokens[len(prompt) :]
    return ids_BS, labels_BS


def _cache_key(task: TaskSpec, warmup_steps: int) -> str:
    """Hash of everything that shapes the warmed-up model."""
    shape = [task.name, task.fingerprint, task.alphabet(), warmup_steps, ARCHITECTURE, RECIPE, torch.__version__]
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def _one_thread() -> Iterator[None]:
    """The warm-up is chaotic in the last bit of its sums, so it must not depend on the run's number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file, calling `waiting` twice a second until it is free; the lock ends with the process that holds it."""
    lock = FileLock(path)
    while True:
        try:
            lock.acquire(timeout=_POLL_S, poll_interval=0.05)
            break
        except Timeout:
            waiting()
    try:
        yield
    finally:
        lock.release()


def _publish(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save beside, then rename: a folder of that name is always whole. Leftovers of a process that died are swept first."""
    for leftover in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(leftover, ignore_errors=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    model.save_pretrained(beside)
    tokenizer.save_pretrained(beside)
    os.rename(beside, folder)

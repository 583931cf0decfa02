"""Groupscope's step beside TRL's GRPOTrainer: the same model, prompts, group size, completion length and updates.

Both run in one process and alternate step by step, so that a machine that slows down slows both. Every completion is exactly
`tokens` long (no end-of-sequence token can be sampled) and rewards are random per completion, so that no group is tied and
none of our shortcuts for tied groups or early endings apply. Recording, evaluation and rescoring are off on our side, logging on TRL's.
Run: python -m grpo_core bench train
"""

from __future__ import annotations

import copy
import platform
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib.metadata import version

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, TrainerCallback

from grpo_core.config import RunConfig, make_config
from grpo_core.records import Completion, Prompt, Reward
from grpo_core.rollout.policy import Policy
from grpo_core.trainer.state import TrainState, state_of
from grpo_core.trainer.step import run_step


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One amount of work per step; `target` is the speed-up the project holds itself to (0: none)."""

    name: str
    prompts: int
    prompt_tokens: int
    tokens: int
    vocabulary: int
    updates: int
    target: float
    hidden: int = 128
    layers: int = 4
    group_size: int = 8


CASES = (
    Case(name="short prompt, 1 update", prompts=8, prompt_tokens=6, tokens=32, vocabulary=54, updates=1, target=1.5),
    Case(name="short prompt, 2 updates", prompts=8, prompt_tokens=6, tokens=32, vocabulary=54, updates=2, target=1.5),
    Case(name="long prompt, 1 update", prompts=4, prompt_tokens=128, tokens=32, vocabulary=4096, updates=1, target=3.0),
    Case(name="long prompt, 2 updates", prompts=4, prompt_tokens=128, tokens=32, vocabulary=4096, updates=2, target=3.0),
)


def main(*, steps: int = 12, threads: int = 1, cases: Iterable[Case] = CASES) -> dict[str, float]:
    """Print one table per case; returns the median speed-up of each."""
    torch.set_num_threads(threads)
    print(f"{platform.processor() or platform.machine()}, {threads} thread(s), Python {platform.python_version()}, "
          + ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl")))
    return {case.name: compare(case, steps) for case in cases}


def compare(case: Case, steps: int) -> float:
    """Alternate `steps` steps of each (after 2 of each to warm up) and print parts, tokens/s and the matmul floor."""
    model, tokenizer = build_model(case), build_tokenizer(case.vocabulary)
    ours = OurSide(case, copy.deepcopy(model), tokenizer)
    theirs = run_trl(case, model, tokenizer, steps + 2, between=ours.step)
    tokens = case.prompts * case.group_size * case.tokens
    ratio = statistics.median(t / o for t, o in zip(theirs.total[2:], ours.parts["total"][2:], strict=True))
    floor = matmul_floor(case)
    print(f"\n{case.name}: {case.prompts} prompts x {case.group_size} rollouts x {case.tokens} tokens, prompt {case.prompt_tokens}, "
          f"vocabulary {case.vocabulary}, {case.updates} update(s); median of {steps} steps each")
    print(f"{'ms':>10} {'step':>9} {'generate':>9} {'update':>9} {'tokens/s':>10}")
    for name, parts in (("Groupscope", ours.parts), ("TRL", theirs.parts)):
        total, generate, update = (1e3 * statistics.median(parts[key][2:]) for key in ("total", "generate", "update"))
        print(f"{name:>10} {total:9.1f} {generate:9.1f} {update:9.1f} {tokens / total * 1e3:10.0f}")
    print(f"{'floor':>10} {1e3 * floor:9.1f}  (matrix products alone, at the rate measured here)")
    verdict = "" if not case.target else f", target {case.target:g}x {'met' if ratio >= case.target else 'MISSED'}"
    print(f"speed-up {ratio:.2f}x (median of paired steps){verdict}")
    return ratio


# ---------------------------------------------------------------------------------------------------------------- our side


class RandomTask:
    """Prompts of a fixed length; the reward is a random number per completion."""

    name = "random"

    def __init__(self, case: Case, tokenizer: PreTrainedTokenizerFast) -> None:
        self.texts, self.tokenizer, self.rng = random_prompts(case, 256), tokenizer, random.Random(1)

    def draw(self, rng: np.random.Generator, n: int) -> list[Prompt]:
        texts = [self.texts[i] for i in rng.integers(0, len(self.texts), n)]
        return [Prompt(prompt_id=t, text=t, token_ids=tuple(self.tokenizer.encode(t)), answer="") for t in texts]

    def held_out(self, n: int) -> list[Prompt]:
        return []

    def judge(self, prompt: Prompt, completion: Completion) -> Reward:
        reward = self.rng.random()
        return Reward(parts={"random": reward}, total=reward, correct=reward > 0.5)

    def state(self) -> dict[str, object]:
        return {}

    def restore(self, state) -> None:
        pass


class OurSide:
    """Steps our trainer when called and keeps its timings, in seconds."""

    def __init__(self, case: Case, model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
        self.state = our_state(case, model, tokenizer)
        self.parts: dict[str, list[float]] = defaultdict(list)

    def step(self) -> None:
        timings = run_step(self.state, len(self.parts["total"])).timings
        for key in ("total", "generate", "update"):
            self.parts[key].append(getattr(timings, f"{key}_s"))


def our_state(case: Case, model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> TrainState:
    config: RunConfig = make_config(
        dict(prompts_per_step=case.prompts, group_size=case.group_size, max_new_tokens=case.tokens, epochs=case.updates, lr=1e-6, eval_every=0, rescore=0.0)
    )
    state = state_of(config, Policy(model=model, tokenizer=tokenizer), RandomTask(case, tokenizer))
    return replace(state, writer=replace(state.writer, eos_ids=()))


# ------------------------------------------------------------------------------------------------------------------ TRL's side


class Theirs:
    def __init__(self) -> None:
        self.total: list[float] = []
        self.parts: dict[str, list[float]] = defaultdict(list)


def run_trl(case: Case, model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, steps: int, between) -> Theirs:
    """TRL's GRPOTrainer for `steps` rollout batches, `between` called after each; its times in seconds."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    timed, rng = Theirs(), random.Random(2)

    class Stopwatch(TrainerCallback):
        """A rollout batch is `updates` of TRL's steps; generation happens inside the first."""

        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step % case.updates == 0:
                self.spent, timed.generate = 0.0, 0.0
            self.began = time.perf_counter()

        def on_step_end(self, args, state, control, **kwargs):
            self.spent += time.perf_counter() - self.began
            if state.global_step % case.updates == 0:
                timed.total.append(self.spent)
                timed.parts["total"].append(self.spent)
                timed.parts["generate"].append(timed.generate)
                timed.parts["update"].append(self.spent - timed.generate)
                between()

    class Timed(GRPOTrainer):
        def _generate_and_score_completions(self, inputs):
            began = time.perf_counter()
            out = super()._generate_and_score_completions(inputs)
            timed.generate += time.perf_counter() - began
            return out

    with tempfile.TemporaryDirectory() as folder:
        arguments = GRPOConfig(
            output_dir=folder, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[], logging_strategy="no", save_strategy="no",
            disable_tqdm=True, per_device_train_batch_size=case.prompts * case.group_size, num_generations=case.group_size,
            max_completion_length=case.tokens, num_iterations=case.updates, max_steps=steps * case.updates, learning_rate=1e-6, loss_type="grpo", beta=0.0,
            temperature=1.0, generation_kwargs={"min_new_tokens": case.tokens}, dataloader_pin_memory=False,
        )
        trainer = Timed(
            model=model, processing_class=tokenizer, args=arguments, train_dataset=Dataset.from_dict({"prompt": random_prompts(case, 256)}),
            reward_funcs=lambda completions, **kwargs: [rng.random() for _ in completions], callbacks=[Stopwatch()],
        )
        trainer.train()
    return timed


# -------------------------------------------------------------------------------------------------------------------- the work


def build_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One token per character: pad, eos, and vocabulary − 2 characters."""
    ids = {"<pad>": 0, "<eos>": 1} | {chr(0x4E00 + i): i for i in range(2, vocabulary)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", padding_side="left")


def build_model(case: Case) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=case.vocabulary, hidden_size=case.hidden, intermediate_size=3 * case.hidden, num_hidden_layers=case.layers, num_attention_heads=4,
            num_key_value_heads=4, head_dim=case.hidden // 4, tie_word_embeddings=True, max_position_embeddings=512, pad_token_id=0, eos_token_id=1,
        )
    )
    return model.eval()


def random_prompts(case: Case, n: int) -> list[str]:
    rng = random.Random(0)
    return ["".join(chr(0x4E00 + rng.randrange(2, case.vocabulary)) for _ in range(case.prompt_tokens)) for _ in range(n)]


def matmul_floor(case: Case) -> float:
    """Seconds the step's matrix products need at the rate of a 512³ product here: forward for sampling, forward and backward per update."""
    h, layers = case.hidden, case.layers
    per_token = 2 * layers * (4 * h * h + 3 * h * 3 * h)
    sampled, prompted = case.prompts * case.group_size * case.tokens, case.prompts * case.prompt_tokens
    head = 2 * h * case.vocabulary * sampled
    once = per_token * (sampled + prompted) + head
    a, b = torch.randn(512, 512), torch.randn(512, 512)
    best = min(_seconds(lambda: a @ b) for _ in range(50))
    return once * (1 + 3 * case.updates) / (2 * 512**3 / best)


def _seconds(work) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began

"""What computing a prompt once for its whole group saves: forward and backward, beside the prompts repeated and beside the FLOPs.

One group per case on one Qwen3 model: `repeated` is the model's own modules with the prompt in front of every completion, `shared` the same
modules with the prompt once (rollout/shared.py), `fused` our own forward of this architecture (rollout/fused.py), sharing where it pays. The
three take turns in one process, so that a machine that slows down slows all; speed-ups are medians of paired turns. Memory is the growth of
the peak resident size of a fresh process that does one forward and backward after a small one, so weights and gradients are not in it.
FLOPs leave out the head, which reads the same hidden states either way; the vocabulary is kept small for that reason.
Run: python -m grpo_core bench prefix
"""

from __future__ import annotations

import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version

import psutil
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from grpo_core.rollout.batch import Rows
from grpo_core.rollout.cost import Work, flop_ratio, groups_of, work_of
from grpo_core.rollout.forward import WORTH, Forward, FusedForward, ModuleForward, SharedForward

VOCABULARY = 512
KINDS = ("repeated", "shared", "fused")


@dataclass(frozen=True, slots=True)
class Case:
    """Tokens of the prompt, completions of it, tokens of each."""

    prompt: int
    group: int
    completion: int


CASES = (
    *(Case(prompt, 8, 64) for prompt in (8, 32, 128, 512, 1024)),
    *(Case(512, group, 64) for group in (1, 2, 4, 16)),
    *(Case(512, 8, completion) for completion in (16, 256)),
    Case(64, 8, 512),
)


def main(*, repeats: int = 7, threads: int = 1, hidden: int = 256, layers: int = 4, cases: Iterable[Case] = CASES) -> dict[Case, dict[str, float]]:
    """Print one line per case; returns the median speed-up of shared and fused over repeated for each."""
    torch.set_num_threads(threads)
    print(f"{platform.processor() or platform.machine()}, {threads} thread(s), Python {platform.python_version()}, "
          + ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers")))
    print(f"Qwen3, hidden {hidden}, {layers} layers, vocabulary {VOCABULARY}, float32; forward and backward, median of {repeats} turns each")
    print(f"{'prompt':>6} {'group':>5} {'completion':>10} | {'FLOPs':>6} {'tokens':>6} {'pairs':>6} | {'repeated':>9} {'shared':>9} {'fused':>9} ms | "
          f"{'shared':>7} {'fused':>7} {'FLOPs':>7} speed-up | {'repeated':>8} {'shared':>7} {'fused':>7} MiB | chosen")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    model = build_model(hidden, layers)
    with context.Pool(1, maxtasksperchild=1) as fresh:
        return {case: compare(case, model, repeats, [fresh.apply(peak_mib, (case, kind, hidden, layers, threads)) for kind in KINDS]) for case in cases}


def compare(case: Case, model: Qwen3ForCausalLM, repeats: int, peaks: list[float]) -> dict[str, float]:
    rows, forwards = rows_of_case(case), {kind: forward_of(kind, model) for kind in KINDS}
    seconds = {kind: [] for kind in KINDS}
    for _ in range(repeats + 1):
        for kind, forward in forwards.items():
            seconds[kind].append(timed(forward, rows))
    ms = [1e3 * statistics.median(seconds[kind][1:]) for kind in KINDS]
    faster = {kind: statistics.median(a / b for a, b in zip(seconds["repeated"][1:], seconds[kind][1:], strict=True)) for kind in KINDS[1:]}
    groups = groups_of(rows)
    flops, tokens, pairs = (flop_ratio(groups, weighed) for weighed in (work_of(model), Work(per_token=1, per_half_pair=0), Work(per_token=0, per_half_pair=1)))
    print(f"{case.prompt:6} {case.group:5} {case.completion:10} | {flops:6.3f} {tokens:6.3f} {pairs:6.3f} | {ms[0]:9.1f} {ms[1]:9.1f} {ms[2]:9.1f} ms | "
          f"{faster['shared']:6.2f}x {faster['fused']:6.2f}x {1 / flops:6.2f}x          | {peaks[0]:8.0f} {peaks[1]:7.0f} {peaks[2]:7.0f} MiB | "
          f"{'shared' if flops < WORTH else 'repeated'}", flush=True)
    return faster


def timed(forward: Forward, rows: Rows) -> float:
    """Seconds of one forward and backward."""
    began = time.perf_counter()
    work(forward, rows)
    return time.perf_counter() - began


def work(forward: Forward, rows: Rows) -> None:
    score = forward.score_shared if isinstance(forward, SharedForward) else forward.score
    score(rows, temperature=1.0)[0].sum().backward()


def peak_mib(case: Case, kind: str, hidden: int, layers: int, threads: int) -> float:
    """MiB by which one forward and backward raises the peak resident size of this process, which has done nothing else."""
    torch.set_num_threads(threads)
    forward = forward_of(kind, build_model(hidden, layers))
    work(forward, rows_of_case(Case(4, 2, 4)))
    before = psutil.Process().memory_info().rss
    work(forward, rows_of_case(case))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before / 2**20


def forward_of(kind: str, model: Qwen3ForCausalLM) -> Forward:
    return {"repeated": ModuleForward, "shared": SharedForward, "fused": FusedForward}[kind](model)


def build_model(hidden: int, layers: int) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers, num_attention_heads=4,
            num_key_value_heads=4, head_dim=hidden // 4, tie_word_embeddings=True, max_position_embeddings=8192,
        )
    ).eval()


def rows_of_case(case: Case) -> Rows:
    generator = torch.Generator().manual_seed(1)
    return Rows(
        prompt_ids_PL=torch.randint(VOCABULARY, (1, case.prompt), generator=generator),
        prompt_lengths_P=torch.tensor([case.prompt]),
        prompt_of_row_B=torch.zeros(case.group, dtype=torch.long),
        completion_ids_BT=torch.randint(VOCABULARY, (case.group, case.completion), generator=generator),
        mask_BT=torch.ones(case.group, case.completion),
    )

"""What a run in progress consists of, and how it is put together from a config."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from grpo_core.algorithms.loss import Objective
from grpo_core.config import RunConfig
from grpo_core.errors import ConfigError
from grpo_core.method_row import Method
from grpo_core.objectives import method_of, objective_of
from grpo_core.rollout.batch import Rows
from grpo_core.rollout.forward import Forward, choose_forward
from grpo_core.rollout.generate import Sampling, Writer
from grpo_core.rollout.policy import Policy, load_policy
from grpo_core.tasks.base import Task
from grpo_core.tasks.build import build_sampler, build_task
from grpo_core.tasks.prompt_memory import Memories, build_memories
from grpo_core.tasks.sampler import PromptSampler
from grpo_core.trainer.preferences import PreferenceStream, preference_stream

Progress = Callable[[str, int, int], None]
"""Called with (what is going on, done, total)."""


@dataclass(slots=True)
class Memory:
    """What a run remembers of its beginning.

    `first_entropy` is the mean over the first step's rollouts of their mean token entropy, in nats; `probe_start` the log-prob
    of every probe answer before the first update, in nats. `probe_rows` are those answers in tokens once `probe_read` says that
    they have been looked for, None where the task has none; they are not in checkpoints.
    """

    first_entropy: float | None = None
    probe_start: list[float] | None = None
    probe_rows: Rows | None = None
    probe_read: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainState:
    """Everything a step reads or moves. The parts that move (model, optimizer, schedule, sampler, memories, memory) are in every checkpoint."""

    config: RunConfig
    method: Method
    objective: Objective
    policy: Policy
    writer: Writer
    task: Task
    sampler: PromptSampler
    optimizer: torch.optim.AdamW
    schedule: torch.optim.lr_scheduler.LRScheduler
    reference: Callable[[Rows], Tensor] | None
    preferences: PreferenceStream | None = None
    memories: Memories = Memories()
    memory: Memory = field(default_factory=Memory)

    @property
    def model(self) -> PreTrainedModel:
        return self.policy.model

    @property
    def forward(self) -> Forward:
        return self.writer.forward

    @property
    def sampling(self) -> Sampling:
        config = self.config
        return Sampling(
            max_new_tokens=config.max_new_tokens, temperature=config.temperature, top_p=config.top_p, stop=config.stop, batch=config.generation_batch
        )

    def score(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Log-prob (with gradient) and entropy of every completion token under the policy at the sampling temperature, (B, T)."""
        return self.forward.score(rows, temperature=self.config.temperature, banned=self.writer.banned)


def device_of(config: RunConfig) -> torch.device:
    """The device asked for. Raises ConfigError when it is not there."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device=cuda but torch sees no GPU here; use device=cpu or auto")
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")


def build_state(config: RunConfig, *, cache_dir: Path, progress: Progress) -> TrainState:
    """Load the model and the task and join them. Raises the named errors of each part."""
    spec = build_task(config)
    policy = load_policy(config, spec, device=device_of(config), cache_dir=cache_dir, progress=progress)
    return state_of(config, policy, spec.bind(policy))


def state_of(config: RunConfig, policy: Policy, task: Task) -> TrainState:
    """A run's beginning from a loaded policy and a bound task."""
    objective = objective_of(config)
    trainable = [p for p in policy.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=config.lr, betas=(0.9, 0.999), weight_decay=config.weight_decay, fused=True)
    warmup = max(config.lr_warmup, 1)
    memories = build_memories(config)
    return TrainState(
        config=config,
        method=method_of(config),
        objective=objective,
        policy=policy,
        writer=writer_of(policy),
        task=task,
        sampler=build_sampler(task, config, memories),
        memories=memories,
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: min(1.0, (update + 1) / warmup)),
        reference=_reference(policy, config) if objective.needs_reference or objective.preference else None,
        preferences=preference_stream(config, policy) if objective.preference else None,
    )


def writer_of(policy: Policy) -> Writer:
    """What generation needs of a loaded policy."""
    return Writer(
        forward=choose_forward(policy.model),
        decode=policy.decode,
        eos_ids=policy.eos_ids,
        pad_id=policy.pad_id,
        banned=policy.banned_ids,
        context_limit=policy.context_limit,
        device=policy.model.device,
    )


def _reference(policy: Policy, config: RunConfig) -> Callable[[Rows], Tensor]:
    """Log-probs (B, T) under the start model: the base without its LoRA adapter, or a frozen copy of the whole."""
    adapter = hasattr(policy.model, "disable_adapter")
    model = policy.model if adapter else copy.deepcopy(policy.model).requires_grad_(False)
    forward = choose_forward(model)

    @torch.no_grad()
    def score(rows: Rows) -> Tensor:
        with model.disable_adapter() if adapter else _unchanged():
            return forward.score(rows, temperature=config.temperature, banned=policy.banned_ids)[0]

    return score


@contextmanager
def _unchanged():
    yield

"""The config's task, read and checked; no tokenizer needed yet."""

from __future__ import annotations

from grpo_core.config import RunConfig
from grpo_core.tasks.arithmetic import ArithmeticSpec, arithmetic_rubric
from grpo_core.tasks.base import TaskSpec


def build_task(config: RunConfig) -> TaskSpec:
    """The task the config names. Raises TaskError when its data or rewards cannot be read."""
    if config.task == "arithmetic":
        return ArithmeticSpec(arithmetic_rubric(config.correct_at, config.max_new_tokens, config.overlong_buffer), config.max_new_tokens)
    from grpo_core.tasks.dataset import read_dataset_task

    return read_dataset_task(config)

"""build_task: a config → the task it asks for, read and checked; no tokenizer needed yet."""

from __future__ import annotations

from grpo_core.config import RunConfig
from grpo_core.tasks.arithmetic import ArithmeticSpec, arithmetic_rubric
from grpo_core.tasks.base import TaskSpec
from grpo_core.tasks.dataset import read_dataset


def build_task(config: RunConfig) -> TaskSpec:
    """The task of a config. `bind(policy)` then gives the Task to draw from.

    Raises TaskError for data or rewards that cannot be used, naming file and line where there is one.
    """
    if config.task == "dataset":
        return read_dataset(config)
    return ArithmeticSpec(arithmetic_rubric(config.correct_at, config.max_new_tokens, config.overlong_buffer), config.max_new_tokens)

"""What a config asks for: its task, read and checked without a tokenizer yet, and the sampler of the task's prompts."""

from __future__ import annotations

from grpo_core.config import RunConfig
from grpo_core.tasks.arithmetic import ArithmeticSpec, arithmetic_rubric
from grpo_core.tasks.base import Task, TaskSpec
from grpo_core.tasks.dataset import read_dataset
from grpo_core.tasks.prompt_memory import Memories
from grpo_core.tasks.ranking import RankingSpec, ranking_rubric
from grpo_core.tasks.sampler import PromptSampler
from grpo_core.tasks.solvable_sampler import SolvableSampler
from grpo_core.tasks.tracker import TrackedSampler
from grpo_core.tasks.variance_sampler import VarianceSampler


def build_task(config: RunConfig) -> TaskSpec:
    """The task of a config. `bind(policy)` then gives the Task to draw from.

    Raises TaskError for data or rewards that cannot be used, naming file and line where there is one.
    """
    if config.task == "dataset":
        return read_dataset(config)
    if config.task == "ranking":
        return RankingSpec(ranking_rubric(config.correct_at, config.max_new_tokens, config.overlong_buffer), config.max_new_tokens)
    rubric = arithmetic_rubric(config.rewards, config.correct_at, config.max_new_tokens, config.overlong_buffer)
    return ArithmeticSpec(rubric, config.max_new_tokens, config.paraphrases)


def build_sampler(task: Task, config: RunConfig, memories: Memories) -> PromptSampler:
    """The sampler of the config's method, else of its option."""
    if memories.tracker is not None:
        return TrackedSampler(task, config, memories.tracker)
    if config.prompt_sampler == "vas":
        return VarianceSampler(task, config)
    return SolvableSampler(task, config) if config.prompt_sampler == "solvable" else PromptSampler(task, config.seed)

"""Held-out prompts, answered greedily and judged by the same code as in training."""

from __future__ import annotations

import numpy as np

from grpo_core.records import Completion, EvalTrace, Group, Prompt
from grpo_core.rollout.batch import Rows, rows_of
from grpo_core.rollout.generate import Sampling, sample_groups
from grpo_core.tasks.scoring import score
from grpo_core.trainer.batch import score_quietly
from grpo_core.trainer.state import TrainState


def evaluate(state: TrainState) -> EvalTrace | None:
    """None where the task has no held-out prompts. Rollouts whose scoring failed count in neither mean."""
    prompts = state.task.held_out(state.config.eval_prompts)
    if not prompts:
        return None
    sampling = Sampling(max_new_tokens=state.config.max_new_tokens, temperature=0.0, stop=state.config.stop, batch=state.config.generation_batch)
    groups = sample_groups(state.writer, prompts, group_size=1, sampling=sampling, seed=0)
    rewards = [reward for scored in score(groups, state.task) for reward in scored.rewards if not reward.failed]
    return EvalTrace(
        prompts=len(prompts),
        correct=float(np.mean([bool(r.correct) for r in rewards])) if rewards else float("nan"),
        reward=float(np.mean([r.total for r in rewards])) if rewards else float("nan"),
        gold_logp=_gold_logp(state, prompts),
    )


def _gold_logp(state: TrainState, prompts: list[Prompt]) -> float | None:
    """Mean log-prob in nats of the task's own worked answers, each ended by the end-of-sequence token; None where it has none."""
    rows = gold_rows(state, prompts)
    return None if rows is None else float(score_quietly(state, rows).sum(1).mean())


def gold_rows(state: TrainState, prompts: list[Prompt]) -> Rows | None:
    """The task's own worked answers as rows to score; None without prompts or where one has no such answer."""
    if not prompts or any(p.gold is None for p in prompts):
        return None
    return rows_of([Group(prompt=p, completions=(gold_completion(state, p),)) for p in prompts], pad_id=state.writer.pad_id, device=state.writer.device)


def gold_completion(state: TrainState, prompt: Prompt) -> Completion:
    """The task's own worked answer as a completion that nobody sampled."""
    assert prompt.gold is not None
    return state.policy.unsampled(prompt.gold)

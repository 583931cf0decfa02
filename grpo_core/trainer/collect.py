"""The sampling half of a step: prompts → groups → scored groups, and which of them enter the loss."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from grpo_core.records import ScoredGroup
from grpo_core.rollout.generate import sample_groups
from grpo_core.tasks.sampler import DATA_RULES, keep
from grpo_core.tasks.scoring import score
from grpo_core.trainer.clock import Clock
from grpo_core.trainer.state import TrainState


@dataclass(frozen=True, slots=True)
class Judged:
    """A scored group and whether it enters the loss; `reason` says why not."""

    scored: ScoredGroup
    kept: bool
    reason: str


def collect_groups(state: TrainState, step: int, clock: Clock) -> list[Judged]:
    """The step's groups in sampling order, dropped ones included.

    A refilling data rule (DAPO) samples whole rounds of prompts until enough groups carry signal or `max_sampling_rounds` is
    reached; groups beyond the number wanted are dropped as surplus, as in verl.
    """
    config, rule = state.config, DATA_RULES[state.method.sampler]
    judged: list[Judged] = []
    rounds = config.max_sampling_rounds if rule.refill else 1
    for sampling_round in range(rounds):
        with clock.part("generate"):
            prompts = state.sampler.next_prompts(config.prompts_per_step)
            groups = sample_groups(
                state.writer, prompts, group_size=config.group_size, sampling=state.sampling, seed=stream_seed(config.seed, step, sampling_round)
            )
        with clock.part("score"):
            for scored in score(groups, state.task):
                scored = dataclasses.replace(scored, sampling_round=sampling_round)
                kept, reason = keep(rule, scored)
                if kept and sum(j.kept for j in judged) >= config.prompts_per_step:
                    kept, reason = False, f"surplus: the step already has its {config.prompts_per_step} groups"
                judged.append(Judged(scored, kept, reason))
        if sum(j.kept for j in judged) >= config.prompts_per_step:
            break
    return judged


def stream_seed(*key: int) -> int:
    """A seed of its own for every (run seed, step, purpose), so that nothing random has to be carried between steps."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)

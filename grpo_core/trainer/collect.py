"""The sampling half of a step: prompts → groups → scored groups, and which of them enter the loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grpo_core.records import Group, Prompt, ScoredGroup
from grpo_core.rollout.generate import sample_groups
from grpo_core.tasks.sampler import DATA_RULES, Draw, keep
from grpo_core.tasks.scoring import score
from grpo_core.trainer.clock import Clock
from grpo_core.trainer.state import TrainState


@dataclass(frozen=True, slots=True)
class Judged:
    """A scored group, whether it enters the loss, `reason` why not, and what made the sampler draw its prompt."""

    scored: ScoredGroup
    kept: bool
    reason: str
    draw: Draw


def collect_groups(state: TrainState, step: int, clock: Clock) -> list[Judged]:
    """The step's groups in sampling order, dropped ones included.

    A refilling data rule (DAPO) samples whole rounds of prompts until enough groups carry signal or `max_sampling_rounds` is
    reached; groups beyond the number wanted are dropped as surplus, as in verl.
    """
    config, rule = state.config, DATA_RULES[state.method.sampler]
    judged: list[Judged] = []
    rounds = config.max_sampling_rounds if rule.refill else 1
    if state.sampler.due(step):
        _refresh(state, step, clock)
    for sampling_round in range(rounds):
        with clock.part("generate"):
            draws = state.sampler.draw(config.prompts_per_step)
            prompts = [draw.prompt for draw in draws]
            groups = sample_groups(
                state.writer, prompts, group_size=config.group_size, sampling=state.sampling, seed=stream_seed(config.seed, step, sampling_round)
            )
            greedy = _greedy(state, prompts) if state.method.needs_greedy else []
        with clock.part("score"):
            totals = [scored.rewards[0].total for scored in score(greedy, state.task)] or [None] * len(draws)
            for draw, scored, total in zip(draws, score(groups, state.task), totals, strict=True):
                scored = dataclasses.replace(scored, sampling_round=sampling_round, greedy=total)
                kept, reason = keep(rule, scored)
                if kept and sum(j.kept for j in judged) >= config.prompts_per_step:
                    kept, reason = False, f"surplus: the step already has its {config.prompts_per_step} groups"
                judged.append(Judged(scored, kept, reason, draw))
        if sum(j.kept for j in judged) >= config.prompts_per_step:
            break
    state.sampler.observe([j.scored for j in judged])
    return judged


def _greedy(state: TrainState, prompts: Sequence[Prompt]) -> list[Group]:
    """One greedy completion of each prompt, judged as a baseline and not trained on."""
    return sample_groups(state.writer, prompts, group_size=1, sampling=dataclasses.replace(state.sampling, temperature=0.0), seed=0)


def _refresh(state: TrainState, step: int, clock: Clock) -> None:
    """Rollouts of the sampler's whole pool, to score its prompts with; they are not trained on."""
    config = state.config
    prompts = [state.task.at(int(index)) for index in state.sampler.pool]
    with clock.part("generate"):
        groups = sample_groups(
            state.writer, prompts, group_size=config.vas_rollouts, sampling=state.sampling, seed=stream_seed(config.seed, step, 2**22)
        )
    with clock.part("score"):
        state.sampler.observe(score(groups, state.task), refresh=True)


def stream_seed(*key: int) -> int:
    """A seed of its own for every (run seed, step, purpose), so that nothing random has to be carried between steps."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)

"""The sampling half of a step: prompts → groups → scored groups, and which of them enter the loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from grpo_core import streams
from grpo_core.errors import TaskError
from grpo_core.records import REFERENCE, Group, Prompt, ScoredGroup
from grpo_core.rollout.generate import sample_groups
from grpo_core.tasks.sampler import DATA_RULES, Draw, keep
from grpo_core.tasks.scoring import score
from grpo_core.tasks.shaping import shape
from grpo_core.trainer.clock import Clock
from grpo_core.trainer.evaluate import gold_completion
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
    reached; groups beyond the number wanted are dropped as surplus, as in verl. Groups of a replay buffer come last and take the
    place of as many sampled ones; memories take in only what was sampled. Where the rule demonstrates (GRAO), every group then gets the
    task's worked answer as its last row.
    """
    config, rule = state.config, DATA_RULES[state.method.sampler]
    judged: list[Judged] = []
    sampled: list[ScoredGroup] = []
    replayed = _replayed(state, step)
    wanted = config.prompts_per_step - len(replayed)
    rounds = config.max_sampling_rounds if rule.refill else 1
    if state.sampler.due(step):
        _refresh(state, step, clock)
    for sampling_round in range(rounds):
        with clock.part("generate"):
            draws = state.sampler.draw(wanted)
            prompts = [draw.prompt for draw in draws]
            seed = streams.seed_of(config.seed, step, streams.SAMPLED[sampling_round])
            groups = sample_groups(state.writer, prompts, group_size=config.group_size, sampling=state.sampling, seed=seed)
            greedy = _greedy(state, prompts) if state.method.needs_greedy else []
        with clock.part("score"):
            totals = [scored.rewards[0].total for scored in score(greedy, state.task)] or [None] * len(draws)
            for draw, scored, total in zip(draws, shape(score(groups, state.task), config, step), totals, strict=True):
                scored = dataclasses.replace(scored, sampling_round=sampling_round, greedy=total)
                sampled.append(scored)
                scored = _helped(state, scored, step, place=len(judged)) if rule.helps else scored
                kept, reason = keep(rule, scored)
                if kept and sum(j.kept for j in judged) >= wanted:
                    kept, reason = False, f"surplus: the step already has its {wanted} groups"
                judged.append(Judged(scored, kept, reason, draw))
        if sum(j.kept for j in judged) >= wanted:
            break
    _take_in(state, sampled, step)
    judged += [Judged(scored, True, "", Draw(scored.group.prompt)) for scored in replayed]
    if not rule.demonstrates:
        return judged
    with clock.part("score"):
        return [dataclasses.replace(j, scored=_demonstrated(state, j.scored)) for j in judged]


def _demonstrated(state: TrainState, scored: ScoredGroup) -> ScoredGroup:
    """The group with its prompt's worked answer as one more row, judged like the others. Raises TaskError for a prompt without one."""
    prompt = scored.group.prompt
    if prompt.gold is None:
        raise TaskError(
            f"method {state.method.name} trains on a worked answer beside the rollouts, and {prompt.prompt_id} has none; set gold_column to a column "
            "with worked completions"
        )
    answer = dataclasses.replace(gold_completion(state, prompt), source=REFERENCE)
    (judged,) = score([Group(prompt=prompt, completions=(answer,))], state.task)
    return dataclasses.replace(
        scored, group=dataclasses.replace(scored.group, completions=(*scored.group.completions, answer)), rewards=(*scored.rewards, *judged.rewards)
    )


def _replayed(state: TrainState, step: int) -> list[ScoredGroup]:
    """Groups from the replay buffer, at most their share of the step."""
    config, buffer = state.config, state.memories.replay
    if buffer is None:
        return []
    return buffer.draw(int(config.replay_share * config.prompts_per_step), step, streams.of_step(config.seed, step, streams.REPLAYED))


def _helped(state: TrainState, scored: ScoredGroup, step: int, *, place: int) -> ScoredGroup:
    """The group, with a stored success where it is hopeless."""
    assert state.memories.successes is not None
    return state.memories.successes.help(scored, step, streams.of_step(state.config.seed, step, streams.HELPED, place))


def _take_in(state: TrainState, sampled: Sequence[ScoredGroup], step: int) -> None:
    """What sampler and memories learn of the step's rollouts as they were sampled; the tracker waits for the updates (trainer/remember.py)."""
    state.sampler.observe(sampled)
    if state.memories.replay is not None:
        rule = DATA_RULES[state.method.sampler]
        state.memories.replay.observe([scored for scored in sampled if keep(rule, scored)[0]], step)
    if state.memories.successes is not None:
        for scored in sampled:
            state.memories.successes.observe(scored, step)


def _greedy(state: TrainState, prompts: Sequence[Prompt]) -> list[Group]:
    """One greedy completion of each prompt, judged as a baseline and not trained on."""
    return sample_groups(state.writer, prompts, group_size=1, sampling=dataclasses.replace(state.sampling, temperature=0.0), seed=0)


def _refresh(state: TrainState, step: int, clock: Clock) -> None:
    """Rollouts of the sampler's whole pool, to score its prompts with; they are not trained on."""
    config = state.config
    prompts = [state.task.at(int(index)) for index in state.sampler.pool]
    with clock.part("generate"):
        groups = sample_groups(
            state.writer, prompts, group_size=state.sampler.trial_rollouts, sampling=state.sampling, seed=streams.seed_of(config.seed, step, streams.TRIED)
        )
    with clock.part("score"):
        state.sampler.observe(score(groups, state.task), refresh=True)

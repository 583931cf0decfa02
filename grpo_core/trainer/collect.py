"""The sampling half of a step: prompts → groups → scored groups, and which of them enter the loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from grpo_core import streams
from grpo_core.errors import TaskError
from grpo_core.records import HINTED, REFERENCE, Group, Prompt, ScoredGroup
from grpo_core.rollout.generate import sample_groups
from grpo_core.tasks.hints import hint_length
from grpo_core.tasks.sampler import DATA_RULES, Draw, keep
from grpo_core.tasks.scoring import score
from grpo_core.tasks.shaping import shape
from grpo_core.trainer.clock import Clock
from grpo_core.trainer.evaluate import gold_completion
from grpo_core.trainer.state import TrainState

HARD = "its mean reward lies below that of the last groups"


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
    place of as many sampled ones; memories take in only what was sampled. Where the rule hints (Reg-GRPO), a hard prompt's group is dropped
    and followed by one that was sampled behind the beginning of its worked answer. Where it demonstrates (GRAO), every group gets the
    whole worked answer as its last row.
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
    if state.memories.recent is not None:
        judged = _behind_hints(state, judged, step, clock)
    _take_in(state, sampled, step)
    judged += [Judged(scored, True, "", Draw(scored.group.prompt)) for scored in replayed]
    if not rule.demonstrates:
        return judged
    with clock.part("score"):
        return [dataclasses.replace(j, scored=_demonstrated(state, j.scored)) for j in judged]


def _behind_hints(state: TrainState, judged: Sequence[Judged], step: int, clock: Clock) -> list[Judged]:
    """The groups; one of a hard prompt is dropped, and the prompt sampled again behind its hint follows it."""
    config, rule = state.config, DATA_RULES[state.method.sampler]
    hinted = {place: prompt for place, j in enumerate(judged) if j.kept and (prompt := _with_hint(state, j.scored)).hint_ids}
    if not hinted:
        return list(judged)
    with clock.part("generate"):
        groups = sample_groups(
            state.writer, list(hinted.values()), group_size=config.group_size, sampling=state.sampling, seed=streams.seed_of(config.seed, step, streams.HINTED)
        )
    with clock.part("score"):
        again = dict(zip(hinted, (_scored_as_whole(state, group) for group in groups), strict=True))
    found = []
    for place, j in enumerate(judged):
        if place not in again:
            found.append(j)
            continue
        scored = dataclasses.replace(again[place], sampling_round=j.scored.sampling_round + 1, greedy=j.scored.greedy)
        tokens = len(scored.group.prompt.hint_ids)
        why = f"{HARD}, so it was sampled again behind a hint of {tokens} token{'s' * (tokens > 1)}"
        found += [dataclasses.replace(j, kept=False, reason=why), Judged(scored, *keep(rule, scored), j.draw)]
    return found


def _with_hint(state: TrainState, scored: ScoredGroup) -> Prompt:
    """The group's prompt with as much of its worked answer as it lies below the recent groups and the model's context has room for."""
    prompt, limit = scored.group.prompt, state.writer.context_limit
    answer = () if prompt.gold is None else tuple(state.policy.encode(prompt.gold))
    length = hint_length(state.memories.recent.gap(scored), state.config.hint_strength, len(answer))
    room = length if limit is None else max(0, limit - len(prompt.token_ids) - state.config.max_new_tokens)
    ids = answer[: min(length, room)]
    return dataclasses.replace(prompt, hint=state.writer.decode(ids), hint_ids=ids)


def _scored_as_whole(state: TrainState, group: Group) -> ScoredGroup:
    """The group, judged as answers to the task's own prompt that begin with the hint."""
    prompt = group.prompt
    whole = [dataclasses.replace(c, text=state.writer.decode([*prompt.hint_ids, *c.token_ids])) for c in group.completions]
    (judged,) = score([Group(prompt=dataclasses.replace(prompt, hint="", hint_ids=()), completions=tuple(whole))], state.task)
    completions = tuple(dataclasses.replace(c, source=HINTED) for c in group.completions)
    return ScoredGroup(group=Group(prompt=prompt, completions=completions), rewards=judged.rewards)


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
    if state.memories.recent is not None:
        state.memories.recent.observe(sampled)
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

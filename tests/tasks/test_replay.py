"""What is replayed: ARPO's stored successes and its task filter, and the buffer of older groups, by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from grpo_core.algorithms.credit import credit
from grpo_core.algorithms.values import Facts
from grpo_core.config import make_config
from grpo_core.errors import ConfigError, TaskError
from grpo_core.methods import METHODS
from grpo_core.notes import structural_notes
from grpo_core.records import POLICY, REPLAY, Reward, ScoredGroup
from grpo_core.tasks.build import build_sampler, build_task
from grpo_core.tasks.prompt_memory import Memories
from grpo_core.tasks.replay import STORED_PER_PROMPT, ReplayBuffer, Successes, hopeless
from tests.tasks.plain import Characters
from tests.tasks.test_variance_sampler import group_of

CONFIG = make_config({"prompt_sampler": "solvable", "filter_pool": 5, "prompts_per_step": 4})
TASK = build_task(CONFIG).bind(Characters())
SURE = np.random.default_rng(0)


def scored(prompt: int, *values: float) -> ScoredGroup:
    """A group whose rollouts have these first reward parts, each of tokens that say which it is."""
    made = group_of(TASK.at(prompt), [[n, n] for n in range(len(values))], [False] * len(values))
    rewards = tuple(Reward(parts={"exact": v}, total=v, correct=v >= 0.5) if v == v else Reward(parts={"exact": v}, total=v, correct=None) for v in values)
    return replace(made, rewards=rewards)


def test_hopeless_is_alike_and_low():
    nan = float("nan")
    assert hopeless(scored(0, 0, 0, 0)) and hopeless(scored(0, 0.1, 0.1, 0.15)) and hopeless(scored(0, nan, 0, 0))
    assert not hopeless(scored(0, 1, 1, 1)) and not hopeless(scored(0, 1, 0, 0)) and not hopeless(scored(0, 0.1, 0, 0.3)) and not hopeless(scored(0, nan))


def test_a_hopeless_group_gets_one_stored_success_in_place_of_its_first():
    """Eight zeros and a replayed 1: A = 2.474867 and −0.353552 seven times."""
    memory = Successes()
    zeros = scored(3, *[0] * 8)
    assert memory.help(zeros, 1, SURE) is zeros
    memory.observe(scored(3, 0, 0.05, 1, 0), 1)
    assert memory.help(scored(4, 0, 0), 2, SURE).rewards[0].total == 0  # of another prompt
    helped = memory.help(zeros, 5, SURE)
    first, *others = helped.group.completions
    assert (first.source, first.age, first.token_ids.tolist(), helped.rewards[0].total) == (REPLAY, 4, [2, 2], 1.0)
    assert all(c.source == POLICY for c in others) and others == list(zeros.group.completions[1:]) and zeros.outcome == helped.outcome == "all_fail"
    rewards = torch.tensor(helped.totals)
    found, _ = credit(Facts(rewards_B=rewards), torch.zeros(8, dtype=torch.long), ~rewards.isnan(), METHODS["arpo"].credit)
    torch.testing.assert_close(found, torch.tensor([2.474867] + [-0.353552] * 7, dtype=torch.float64), atol=1e-6, rtol=0)
    mixed = scored(3, 1, 0, 0)
    assert memory.help(mixed, 5, SURE) is mixed


def test_the_newest_eight_successes_stay_and_replays_are_not_stored_again():
    memory = Successes()
    for step in range(12):
        memory.observe(scored(1, 1, 0), step)
    assert memory.of(TASK.at(1)) == {"stored": STORED_PER_PROMPT, "newest_success": 11.0} and memory.of(TASK.at(2)) == {"stored": 0.0}
    helped = memory.help(scored(1, 0, 0), 12, SURE)
    memory.observe(helped, 12)
    assert memory.of(TASK.at(1))["newest_success"] == 11.0
    again = Successes()
    again.restore(memory.state())
    drawn = [[m.help(scored(1, 0, 0), 20, np.random.default_rng(s)).group.completions[0].age for s in range(9)] for m in (memory, again)]
    assert drawn[0] == drawn[1] and set(drawn[0]) <= set(range(9, 17))


def test_a_buffer_gives_different_groups_that_are_not_too_old():
    buffer = ReplayBuffer(size=4, max_age=2)
    for step in range(4):
        buffer.observe([scored(step, 0, 1), scored(step + 10, 0, 1)], step)
    drawn = buffer.draw(9, 4, SURE)
    assert sorted(g.group.completions[0].age for g in drawn) == [1, 1, 2, 2] and {g.outcome for g in drawn} == {"replayed"}
    assert buffer.draw(9, 6, SURE) == [] and len(buffer.draw(1, 4, SURE)) == 1
    smaller = ReplayBuffer(size=1, max_age=2)
    smaller.restore(buffer.state())
    assert [g.group.prompt.hash for g in smaller.draw(9, 4, SURE)] == [TASK.at(13).hash]
    assert Memories(replay=buffer).of(TASK.at(0)) == {}


def test_only_prompts_solved_in_the_trial_are_drawn():
    sampler = build_sampler(TASK, CONFIG, Memories())
    assert sampler.due(0) and sampler.trial_rollouts == 16
    trial = [scored(int(index), *([1, 0] if place in (1, 3) else [0, 0])) for place, index in enumerate(sampler.pool)]
    sampler.observe(trial, refresh=True)
    assert not sampler.due(1)
    solvable = {TASK.at(int(sampler.pool[place])).hash for place in (1, 3)}
    assert {d.prompt.hash for d in sampler.draw(2)} == solvable and {d.prompt.hash for d in sampler.draw(40)} == solvable
    assert sampler.of(TASK.at(int(sampler.pool[3]))) == {"trial_solved": 1.0}
    again = build_sampler(TASK, CONFIG, Memories())
    again.restore(sampler.state())
    assert [d.prompt.hash for d in again.draw(20)] == [d.prompt.hash for d in sampler.draw(20)] and not again.due(0)
    hopeless_one = build_sampler(TASK, CONFIG, Memories())
    hopeless_one.observe([scored(int(index), 0, 0) for index in hopeless_one.pool], refresh=True)
    with pytest.raises(TaskError, match="solved none of 5 prompts in 16 rollouts each, .* set prompt_sampler=uniform"):
        hopeless_one.draw(1)


def test_options_that_nobody_reads_are_refused_and_a_share_of_nothing_is_said():
    with pytest.raises(ConfigError, match="replay_share: read only with a replay buffer"):
        make_config({"replay_share": 0.5})
    with pytest.raises(ConfigError, match="filter_pool: read only with prompt_sampler=solvable"):
        make_config({"filter_pool": 5})
    (note,) = structural_notes(make_config({"replay_size": 8, "prompts_per_step": 3}))
    assert "less than one; set replay_share to 0.33 or more" in note
    assert structural_notes(make_config({"method": "grpo_llds", "epochs": 1, "replay_size": 8})) == []  # ratios differ from 1 at once

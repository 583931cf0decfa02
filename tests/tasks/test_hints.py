"""Hints for prompts harder than the recent ones (DeepVideo-R1, arXiv:2506.07464): how long they are, and what they are measured against."""

import math
from dataclasses import replace

import numpy as np
import pytest

from grpo_core.config import make_config
from grpo_core.errors import ConfigError
from grpo_core.notes import structural_notes
from grpo_core.records import Completion, Group, Prompt, Reward, ScoredGroup
from grpo_core.tasks.hints import WINDOW, RecentRewards, hint_length
from grpo_core.tasks.prompt_memory import build_memories

PROMPT = Prompt(prompt_id="p", text="1+1=", token_ids=(1, 2, 3), answer="2", gold="1+1=2")
DATA = dict(method="reg_grpo", task="dataset", data="x.jsonl")


def scored(*rewards: float) -> ScoredGroup:
    nothing = np.zeros(1, "f4")
    written = Completion(token_ids=np.array([5]), text="2", logp_sampling=nothing, logp=nothing, entropy=nothing, finish="stop")
    made = tuple(Reward(parts={"exact": r}, total=r, correct=None if math.isnan(r) else r > 0.5) for r in rewards)
    return ScoredGroup(group=Group(prompt=PROMPT, completions=(written,) * len(rewards)), rewards=made)


@pytest.mark.parametrize(
    ("gap", "strength", "tokens"),
    [(-0.5, 1, 0), (0.0, 1, 0), (0.04, 1, 0), (0.05, 1, 1), (0.5, 1, 10), (0.5, 0.5, 5), (0.5, 0, 0), (0.74, 1, 14), (1.0, 1, 19), (0.5, 4, 19), (7.0, 1, 19)],
)
def test_the_hint_grows_with_the_gap_and_leaves_something_to_write(gap, strength, tokens):
    assert hint_length(gap, strength, 20) == tokens


def test_an_answer_of_one_token_or_none_cannot_be_hinted():
    assert hint_length(1.0, 1, 1) == hint_length(1.0, 1, 0) == 0


def test_the_gap_is_to_the_last_hundred_groups_that_could_be_scored():
    memory, nan = RecentRewards(), float("nan")
    assert memory.gap(scored(0, 0)) == 0, "before the first group nothing is usual"
    memory.observe([scored(1, 0), scored(1, nan), scored(nan, nan), scored(0, 0)])
    assert memory.gap(scored(0, 0)) == 0.5 and memory.gap(scored(1, 0)) == 0 and memory.gap(scored(1, 1)) == -0.5
    assert memory.gap(scored(nan, nan)) == 0 and memory.gap(scored(nan, 0)) == 0.5
    memory.observe([scored(1, 1)] * (WINDOW - 1))
    assert memory.gap(scored(0, 0)) == pytest.approx((WINDOW - 1) / WINDOW)  # of the first ones only the last is left
    memory.observe([scored(1, 1)])
    assert memory.gap(scored(0, 0)) == 1


def test_the_window_is_restored_as_it_was():
    memory, again = RecentRewards(), RecentRewards()
    memory.observe([scored(0.1, 0.2), scored(0.3, 0.3)])
    again.restore(memory.state())
    assert again.gap(scored(0)) == memory.gap(scored(0)) > 0 and again.of(PROMPT) == {}
    again.observe([scored(1)] * WINDOW)
    assert again.gap(scored(0)) == 1, "it still forgets what is older than the window"


def test_a_hint_is_given_behind_the_question_and_is_no_part_of_it():
    hinted = replace(PROMPT, hint="1+", hint_ids=(1, 9))
    assert hinted.given_ids == (1, 2, 3, 1, 9) and PROMPT.given_ids == PROMPT.token_ids and hinted.hash == PROMPT.hash


def test_who_is_given_hints():
    assert make_config({"method": "reg_grpo"}).hints and make_config(DATA | {"gold_column": "worked"}).hints
    for changes in ({"method": "reg_grpo", "hint_strength": 0}, {"method": "grpo"}, DATA):
        config = make_config(changes)
        assert not config.hints and build_memories(config).recent is None
    assert "no worked answers" in " ".join(structural_notes(make_config(DATA)))
    assert not structural_notes(make_config({"method": "reg_grpo"})) and not structural_notes(make_config(DATA | {"hint_strength": 0}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (DATA | {"hint_strength": 2}, "set gold_column"),
        ({"method": "reg_grpo", "group_reward": "otc"}, "set hint_strength=0"),
        ({"method": "grpo", "hint_strength": 2}, "reg_grpo"),
    ],
)
def test_what_cannot_be_is_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        make_config(changes)
    assert make_config({"method": "reg_grpo", "group_reward": "otc", "hint_strength": 0}).group_reward == "otc"

"""The ranking task: what is a hit, what a list earns, and that its questions are held apart."""

import numpy as np
import pytest

from grpo_core.algorithms.segments import END, discounts
from grpo_core.errors import ConfigError
from grpo_core.records import Completion
from grpo_core.tasks.build import build_task
from grpo_core.tasks.ranking import GAINS, LISTED, RankingSpec, exact, hits, question, questions, worked_list
from grpo_core.trainer.answers import line_items
from tests.tasks.plain import Characters
from tests.trainer.small_runs import small_config

NUMBERS = [13, 17, 22, 10, 24]


def written(text: str, finish: str = "stop") -> Completion:
    """A completion of one token per character, and its end token."""
    ids = np.array([*map(ord, text), *([0] if finish == "stop" else [])], "i4")
    nothing = np.zeros(len(ids), "f4")
    return Completion(token_ids=ids, text=text, logp_sampling=nothing, logp=nothing, entropy=nothing, finish=finish)


@pytest.fixture
def task():
    return build_task(small_config(task="ranking")).bind(Characters())


@pytest.mark.parametrize(
    ("text", "found", "whole"),
    [
        ("24\n22\n17", [1, 1, 1], 1), ("17\n24\n22", [1, 1, 1], 1), ("24\n24\n17", [1, 0, 1], 0), ("24\n10\n17", [1, 0, 1], 0), ("24", [1, 0, 0], 0),
        ("24\n22\n17\n13", [1, 1, 1], 0), ("", [0, 0, 0], 0), ("a\n 24\n22", [0, 0, 1], 0),
    ],
)  # fmt: skip
def test_what_is_a_hit(task, text, found, whole):
    prompt = task._prompt(NUMBERS)
    assert hits(prompt, written(text)) == found and exact(prompt, written(text)) == whole
    reward = task.judge(prompt, written(text))
    assert reward.correct is bool(whole)
    assert reward.total == pytest.approx(np.dot(found, GAINS) / GAINS.sum()) and [reward.parts[f"rank_{k + 1}"] for k in range(LISTED)] == found


def test_a_list_that_was_cut_is_not_correct(task):
    assert not exact(task._prompt(NUMBERS), written("24\n22\n17", "length"))


def test_the_worked_answer_is_right_and_the_gains_are_those_of_the_credit(task):
    prompt = task._prompt(NUMBERS)
    assert (prompt.text, prompt.gold, prompt.answer) == ("13 17 22 10 24>", "24\n22\n17", "24 22 17")
    assert question(NUMBERS) == prompt.text and worked_list(NUMBERS) == prompt.gold
    reward = task.judge(prompt, written(prompt.gold))
    assert reward.correct and reward.total == pytest.approx(1)
    np.testing.assert_allclose(GAINS, discounts(LISTED))


def test_questions_are_different_and_held_apart(task):
    training, held_out = questions()
    assert (len(training), len(held_out)) == (10_000, 512) and all(len(set(row)) == 5 for row in training[:100].tolist())
    assert not set(map(tuple, training.tolist())) & set(map(tuple, held_out.tolist()))
    rng = np.random.default_rng(0)
    assert len({p.text for p in task.draw(rng, 50)}) == 50 and task.at(3).text == task.at(3).text and len(task.held_out(4)) == 4
    spec = build_task(small_config(task="ranking"))
    assert isinstance(spec, RankingSpec) and set("".join(spec.warmup_example(rng))) <= set(spec.alphabet())


@pytest.mark.parametrize(
    ("text", "finish", "items"),
    [("9\n8", "stop", [0, 0, 1, END]), ("9\n\n8", "length", [0, 0, 1, 2]), ("", "stop", [END]), ("98\n", "stop", [0, 0, 0, END])],
)
def test_a_line_break_belongs_to_the_item_before_it(text, finish, items):
    assert line_items(written(text, finish), lambda ids: "".join(map(chr, ids))).tolist() == items


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(method="rank_grpo", task="arithmetic"), "set task=ranking"),
        (dict(rank_decay="exp_inf"), "rank_grpo"),
        (dict(task="ranking", group_reward="otc"), "mark_pattern"),
        (dict(task="ranking", answer_column="x"), "ranking task"),
    ],
)
def test_what_cannot_be_is_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        small_config(**changes)

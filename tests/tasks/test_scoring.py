import math

import numpy as np
import pytest
import torch

from grpo_core.records import Completion, Prompt, Reward
from grpo_core.tasks.scoring import Part, Rubric, overlong_penalty, score
from tests.tasks.plain import completion, group, prompt


class Judged:
    """A task that is nothing but its judge."""

    name = "judged"

    def __init__(self, judge) -> None:
        self.judge = judge


def raising(prompt: Prompt, completion: Completion) -> float:
    raise KeyError("unit")


def by_text(**values: object):
    return lambda prompt, completion: values[completion.text]


def rubric(*parts: Part, correct_at: float = 0.5, max_new_tokens: int = 24, overlong_buffer: int = 0) -> Rubric:
    return Rubric(parts, correct_at, max_new_tokens, overlong_buffer)


def test_parts_add_up_by_weight_and_are_kept_unweighted() -> None:
    judged = rubric(Part("a", lambda p, c: 0.5), Part("b", lambda p, c: 2.0, weight=0.25)).judge(prompt(), completion(""))
    assert judged == Reward(parts={"a": 0.5, "b": 2.0}, total=0.5 + 0.25 * 2.0, correct=True, weights={"a": 1.0, "b": 0.25})


def test_the_first_part_unweighted_decides_correct() -> None:
    parts = (Part("a", lambda p, c: 0.75, weight=0.1), Part("b", lambda p, c: 9.0))
    assert rubric(*parts, correct_at=0.75).judge(prompt(), completion("")).correct is True
    assert rubric(*parts, correct_at=0.76).judge(prompt(), completion("")).correct is False


def test_a_part_that_raises_is_a_failure_and_the_others_are_kept() -> None:
    judged = rubric(Part("good", lambda p, c: 1.0), Part("bad", raising)).judge(prompt(), completion(""))
    assert judged.parts["good"] == 1.0 and math.isnan(judged.parts["bad"])
    assert math.isnan(judged.total) and judged.failed and judged.correct is None
    assert judged.failure == "bad: KeyError: 'unit'"


def test_every_failure_is_named_and_a_long_one_is_cut() -> None:
    def shouting(prompt: Prompt, completion: Completion) -> float:
        raise ValueError("x\n" * 1000)

    judged = rubric(Part("one", raising), Part("two", shouting)).judge(prompt(), completion(""))
    first, second = judged.failure.split("; ")
    assert first == "one: KeyError: 'unit'"
    assert second.startswith("two: ValueError: x x x") and second.endswith("…") and len(second) == 300 and "\n" not in second


@pytest.mark.parametrize("value", [None, "1.0", "", math.nan, math.inf, -math.inf, [1.0], np.ones(2), torch.ones(2), object(), 1j])
def test_what_is_no_finite_number_is_a_failure_and_never_zero(value: object) -> None:
    judged = rubric(Part("part", lambda p, c: value)).judge(prompt(), completion(""))
    assert judged.failed and judged.correct is None and "not a" in judged.failure


@pytest.mark.parametrize("value", [1, True, np.float32(1), np.int64(1), np.bool_(True), np.array(1.0), torch.tensor(1.0), torch.tensor(1)])
def test_every_kind_of_number_counts(value: object) -> None:
    judged = rubric(Part("part", lambda p, c: value)).judge(prompt(), completion(""))
    assert judged.total == 1.0 and type(judged.total) is float


@pytest.mark.parametrize(("length", "penalty"), [(100, 0.0), (16_384, 0.0), (18_432, -0.5), (20_480, -1.0)])
def test_the_overlong_penalty_of_the_dapo_paper(length: int, penalty: float) -> None:
    # Lmax 20480, buffer 4096: falls from 16384 to 20480
    assert overlong_penalty(length, 20_480, 4096) == penalty
    assert overlong_penalty(90, 100, 20) == -0.5


def test_the_overlong_penalty_is_added_after_weighting_and_recorded_as_a_part() -> None:
    judged = rubric(Part("a", lambda p, c: 1.0, weight=10.0), overlong_buffer=8).judge(prompt(), completion("", length=20))
    # 24 tokens at most, the last 8 penalised: 20 is half way
    assert judged.parts == {"a": 1.0, "overlong": -0.5}
    assert judged.total == 9.5 and judged.correct is True


def test_without_a_buffer_there_is_no_overlong_part() -> None:
    assert rubric(Part("a", lambda p, c: 1.0)).judge(prompt(), completion("", length=24)).parts == {"a": 1.0}


def test_score_keeps_the_order_and_leaves_failures_out_of_nothing() -> None:
    judge = rubric(Part("part", by_text(x=1.0, y=0.0, z=None))).judge
    first, second = score([group("2", "x", "z", "y"), group("2", "y", "y")], Judged(judge))
    np.testing.assert_array_equal(first.totals, [1.0, math.nan, 0.0])
    assert (first.outcome, second.outcome) == ("mixed", "all_fail")
    assert first.group.completions[1].text == "z"


def test_a_judge_that_raises_itself_is_a_failure_too() -> None:
    [scored] = score([group("2", "x")], Judged(raising))
    assert scored.rewards[0].failed and scored.rewards[0].failure == "judge: KeyError: 'unit'"
    assert scored.outcome == "failed"

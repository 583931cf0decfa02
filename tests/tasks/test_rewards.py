import math
import sys
import threading
from fractions import Fraction
from pathlib import Path

import pytest

from grpo_core.errors import TaskError
from grpo_core.records import Reward
from grpo_core.tasks.rewards import last_number, make_parts, same_mathematics
from grpo_core.tasks.scoring import Rubric
from tests.tasks.plain import completion, prompt


def judged(text: str, answer: str, *rewards: str, pattern: str = "") -> Reward:
    return Rubric(make_parts(rewards, pattern), 0.5, 24).judge(prompt(answer=answer), completion(text))


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [(" 42\n", "42", True), ("42", " 42 ", True), ("42.", "42", False), ("Paris", "paris", False), ("a  b", "a b", False), ("", "42", False)],
)
def test_exact_ignores_white_space_at_the_ends_and_nothing_else(text: str, answer: str, right: bool) -> None:
    assert judged(text, answer, "exact") == Reward(parts={"exact": float(right)}, total=float(right), correct=right, weights={"exact": 1.0})


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 5.", 5),
        ("first 3, then 1,234,567.5 in all", Fraction(2469135, 2)),
        ("10-4", 4),  # a minus behind a digit subtracts
        ("x=-4", -4),
        ("it is −7", -7),
        ("$-3.50", Fraction(-7, 2)),
        ("about 3/4 of it", Fraction(3, 4)),
        ("1e3", 1000),
        (".5", Fraction(1, 2)),
        ("50%", 50),
        ("-.5", Fraction(-1, 2)),
        ("3/0", None),
        ("9" * 5000, None),
        ("1e9999999999", 9999999999),  # no such exponent: the last number is what stands behind the e
        ("no number", None),
        ("", None),
    ],
)
def test_the_last_number_of_a_text(text: str, number: Fraction | int | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("so it is 1,234", "1234", True),
        ("0.3333333", "1/3", True),
        ("0.333", "1/3", False),
        ("1234567", "1234568", False),  # whole numbers are equal or not, however large
        ("72.0", "Natalia sold 48/2 = 24 clips in May.\n#### 72", True),
        ("none", "72", False),
    ],
)
def test_numeric_compares_last_numbers(text: str, answer: str, right: bool) -> None:
    assert judged(text, answer, "numeric").correct is right


def test_numeric_with_an_answer_that_holds_no_number_is_a_failure() -> None:
    assert judged("3", "three", "numeric").failure == "numeric: ValueError: the answer 'three' holds no number"


def test_regex_takes_the_last_match_and_no_match_is_wrong() -> None:
    pattern = r"#### (-?\d+)"
    assert judged("#### 1 no, #### 72", "72", "regex", pattern=pattern).correct is True
    assert judged("#### 72 no, #### 1", "72", "regex", pattern=pattern).correct is False
    assert judged("72", "72", "regex", pattern=pattern) == Reward(parts={"regex": 0.0}, total=0.0, correct=False, weights={"regex": 1.0})


def test_the_pattern_extracts_for_the_other_rewards_too() -> None:
    pattern = r"<answer>(.*?)</answer>"
    text = "<answer> 1,000 </answer> and 5"
    assert judged(text, "1000", "numeric", "exact", pattern=pattern).parts == {"numeric": 1.0, "exact": 0.0}
    assert judged(text, "1,000", "exact", pattern=pattern).correct is True
    assert judged(r"<answer>\frac{1}{2}</answer> or 7", "0.5", "math", pattern=pattern).correct is True


def test_a_group_that_took_no_part_in_the_match_is_no_answer() -> None:
    assert judged("b", "b", "regex", pattern="(a)|b").parts == {"regex": 0.0}


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        (r"so it is \boxed{\frac{1}{2}}.", "0.5", True),
        ("0.5", r"\frac{1}{2}", True),
        (r"\frac{1}{2}", "1/3", False),
        (r"$\sqrt{2}$", r"\sqrt{2}", True),
        (r"\boxed{x=3}", "3", True),
        ("The answer is $2(x+1)$", "2x+2", True),
        ("first 4, no, 5", "4", False),
        (r"\boxed{}", "4", False),
        (r"\frac{", "4", False),
        ("I do not know", "4", False),
        ("", "4", False),
    ],
)
def test_math_compares_meaning(text: str, answer: str, right: bool) -> None:
    reward = judged(text, answer, "math")
    assert reward.failure is None and reward.correct is right


def test_math_works_outside_the_main_thread_where_signals_do_not() -> None:
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(same_mathematics(r"\boxed{\frac{3}{4}}", "0.75")))
    thread.start()
    thread.join()
    assert found == [True]


def test_math_that_takes_too_long_is_a_failure_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grpo_core.tasks.rewards._MATH_TIMEOUT_S", 1)
    reward = judged("$10000000!$", "4", "math")
    assert reward.failed and reward.failure == "math: TimeoutError: math-verify did not finish within 1 s"


def test_math_with_an_answer_that_is_no_mathematics_is_a_failure() -> None:
    assert judged("4", r"\boxed{}", "math").failure == "math: ValueError: math-verify finds no mathematics in the answer '\\\\boxed{}'"


def test_several_rewards_add_up() -> None:
    reward = judged("the 42", "42", "exact=2", "numeric=0.5")
    assert reward == Reward(parts={"exact": 0.0, "numeric": 1.0}, total=0.5, correct=False, weights={"exact": 2.0, "numeric": 0.5})
    assert [part.name for part in make_parts((), "")] == ["exact"]


@pytest.mark.parametrize(
    ("rewards", "pattern", "message"),
    [
        (("nmeric",), "", "unknown reward 'nmeric'; known: exact, numeric, regex, math, or your own module:function; did you mean numeric"),
        (("exact=much",), "", "'exact=much' has the weight 'much', which is not a finite number; write e.g. exact=0.5"),
        (("exact=nan",), "", "not a finite number"),
        (("exact=",), "", "not a finite number"),
        (("exact", "exact=2"), "", "names exact more than once"),
        (("overlong",), "", "set overlong_buffer"),
        (("regex",), "", "needs reward_pattern"),
        (("regex",), "(", "is not a regular expression: missing \\), unterminated subpattern"),
        (("regex",), r"\d+", r"has no group; put the answer in parentheses, e.g. '\(\\d\+\)'"),
    ],
)
def test_rewards_that_cannot_work_are_refused(rewards: tuple[str, ...], pattern: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        make_parts(rewards, pattern)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a module into the working directory and forgets it after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    written: list[str] = []

    def write(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        written.append(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)


def test_the_users_own_function_is_found_in_the_working_directory(module) -> None:
    module("shortness", "def score(prompt, completion):\n    return 1 / len(completion.token_ids) if prompt.answer else 0\n")
    assert judged("abc", "2", "shortness:score=2") == Reward(parts={"shortness:score": 0.25}, total=0.5, correct=False, weights={"shortness:score": 2.0})


def test_the_users_own_function_that_raises_is_a_recorded_failure(module) -> None:
    module("breaking", "def score(prompt, completion):\n    return {}['unit']\n")
    reward = judged("2", "2", "exact", "breaking:score")
    assert reward.parts["exact"] == 1.0 and math.isnan(reward.parts["breaking:score"]) and math.isnan(reward.total)
    assert reward.failure == "breaking:score: KeyError: 'unit'" and reward.correct is None


@pytest.mark.parametrize(
    ("source", "reward", "message"),
    [
        ("", "absent:score", "there is no module 'absent' in .* or on PYTHONPATH"),
        ("", "own.py:score", "there is no module 'own.py'.*without .py"),
        ("", "own.sub:score", "there is no module 'own.sub'"),
        ("import nowhere_to_be_found", "own:score", "importing own needs the module 'nowhere_to_be_found'"),
        ("1/0", "own:score", "importing own raised ZeroDivisionError: division by zero"),
        ("def (", "own:score", "importing own raised SyntaxError"),
        ("def rate(p, c): ...", "own:score", "own has no function 'score'; it has rate"),
        ("score = 3", "own:score", "own has no function 'score'; it has none"),
        ("def score(text): ...", "own:score", r"score\(text\) must take two arguments, \(prompt, completion\)"),
        ("", ":score", "importing  raised ValueError"),
    ],
)
def test_a_function_that_cannot_be_used_is_named(module, source: str, reward: str, message: str) -> None:
    module("own", source)
    with pytest.raises(TaskError, match=message):
        make_parts((reward,), "")


def test_a_pattern_that_no_reward_reads_is_refused(module) -> None:
    module("own", "def score(prompt, completion): return 1")
    with pytest.raises(TaskError, match="reward_pattern is set but own:score does not read it"):
        make_parts(("own:score",), "(x)")

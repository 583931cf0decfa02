"""Rewards by name: of the dataset task exact, numeric, regex and math, of a built-in task its own, of both the user's module:function.

`make_parts` turns RunConfig.rewards into the parts of a rubric. Built-in rewards give 1 or 0. With a reward_pattern they read
its first group in its last match in the completion instead of the whole text; no match is a wrong answer, not a failure.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
import math
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from grpo_core.errors import TaskError
from grpo_core.records import Completion, Prompt
from grpo_core.tasks.scoring import OVERLONG, Part, RewardFunction

RELATIVE_TOLERANCE = Fraction(1, 10**6)
_LONGEST_NUMBER = 100  # characters; Python refuses integers above 4300 digits, and no answer is that long
_MATH_TIMEOUT_S = 5
_LONGEST_BARE = 200  # characters of a text that may as a whole be one LaTeX expression

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3}(?!\d))?|\.\d+"
# A minus between a digit, letter or bracket and a number is an operator; anywhere else it is a sign.
_SIGNED_NUMBER = re.compile(rf"(?:(?<![\w)\]}}.])[-−])?(?:{_NUMBER})(?:/(?:{_NUMBER}))?")

# A word of three letters or more that is neither a LaTeX command nor a function's name makes a text prose.
_WORD = re.compile(r"(?<![\\A-Za-z])(?!(?:sqrt|sin|cos|tan|sec|csc|cot|log|exp|max|min|mod)\b)[A-Za-z]{3,}")

Judge = Callable[[str, str], bool]
"""judge(what was written, the expected answer) -> right or wrong."""


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A reward that compares texts. `objection` says what is wrong with an expected answer, or is empty."""

    judge: Judge
    objection: Callable[[str], str]


def make_parts(entries: Sequence[str], pattern: str, own: Mapping[str, RewardFunction] | None = None) -> tuple[Part, ...]:
    """The parts of RunConfig.rewards, each `NAME` or `NAME=WEIGHT`; none means exact. `own` are a task's rewards in place of the dataset task's.

    Raises TaskError for unknown or repeated names, weights that are not finite numbers, a pattern that does not compile, has no
    group or is read by no reward, and functions that cannot be imported or do not take (prompt, completion).
    """
    named = [_name_and_weight(entry) for entry in entries or ("exact",)]
    names = [name for name, _ in named]
    for name in names:
        if names.count(name) > 1:
            raise TaskError(f"rewards names {name} more than once; name it once, with the weights added up")
        if name == OVERLONG:
            raise TaskError(f"{OVERLONG} is not a reward to name; set overlong_buffer to the tokens over which it falls")
    if pattern and not any(name in BUILT_IN for name in names):
        raise TaskError(f"reward_pattern is set but {', '.join(names)} does not read it; leave it empty or add one of {', '.join(BUILT_IN)}")
    if "regex" in names and not pattern:
        raise TaskError(r"the regex reward needs reward_pattern, whose first group is the answer, e.g. '#### (-?\d+)'")
    extract = _extractor(pattern)
    built_in = {name: _comparing(one.judge, extract) for name, one in BUILT_IN.items()} if own is None else own
    return tuple(Part(name, _function(name, built_in), weight) for name, weight in named)


def answer_objection(entries: Sequence[str], answer: str) -> str:
    """Why one of the built-in rewards cannot use this expected answer, or an empty string."""
    for entry in entries or ("exact",):
        name = entry.partition("=")[0].strip()
        if name in BUILT_IN and (objection := BUILT_IN[name].objection(answer)):
            return f"{objection}, which the {name} reward needs"
    return ""


def same_text(text: str, answer: str) -> bool:
    """Equal after removing white space at both ends; nothing else is normalised."""
    return text.strip() == answer.strip()


def same_number(text: str, answer: str) -> bool:
    """The last number in the text equals the last number in the answer.

    Reads thousands commas, decimals, exponents, fractions (3/4) and signs; units, currency and % are ignored. Whole numbers must be
    equal, others within a relative tolerance of 1e-6. Raises ValueError if the answer holds no number.
    """
    expected, written = last_number(answer), last_number(text)
    if expected is None:
        raise ValueError(f"the answer {answer!r} holds no number")
    if written is None:
        return False
    if written.denominator == expected.denominator == 1:
        return written == expected
    return abs(written - expected) <= RELATIVE_TOLERANCE * max(abs(written), abs(expected))


def same_mathematics(text: str, answer: str) -> bool:
    """math-verify finds the text's final answer mathematically equal to the expected one.

    Raises ValueError if the expected answer cannot be parsed, TimeoutError if five seconds are not enough (main thread only:
    math-verify's time limit is a signal, so in any other thread there is none).
    """
    from math_verify import verify
    from math_verify.errors import TimeoutException

    limit = _MATH_TIMEOUT_S if threading.current_thread() is threading.main_thread() else None
    try:
        expected = _parsed_answer(answer, limit)
        written = _parse_mathematics(text, limit)
        return bool(written) and verify(list(expected), written, timeout_seconds=limit, raise_on_error=True)
    except TimeoutException:  # derives from BaseException, so it would end the run
        raise TimeoutError(f"math-verify did not finish within {_MATH_TIMEOUT_S} s") from None


def last_number(text: str) -> Fraction | None:
    """The last number in a text, exactly, or None.

    >>> last_number("so 1,234.50 in all.")
    Fraction(2469, 2)
    """
    numbers = _SIGNED_NUMBER.findall(text)
    return _as_fraction(numbers[-1]) if numbers else None


def _as_fraction(number: str) -> Fraction | None:
    plain = number.replace(",", "").replace("−", "-")
    if len(plain) > _LONGEST_NUMBER:
        return None
    over, _, under = plain.partition("/")
    if under and not Fraction(under):
        return None
    return Fraction(over) / Fraction(under) if under else Fraction(over)


@lru_cache(maxsize=4096)
def _parsed_answer(answer: str, limit: int | None) -> tuple[object, ...]:
    parsed = _parse_mathematics(answer, limit)
    if not parsed:
        raise ValueError(f"math-verify finds no mathematics in the answer {answer!r}")
    return tuple(parsed)


def _parse_mathematics(text: str, limit: int | None) -> list[object]:
    """What math-verify reads in a text: the whole of a bare expression, the last or boxed one of prose.

    math-verify alone sees only the 2 at the end of a bare 2x+2, because expressions without $ or \\boxed count as prose to it.
    """
    from math_verify import parse

    _quiet_math_verify()
    bare = text.strip()
    as_expression = f"${bare}$" if bare and len(bare) <= _LONGEST_BARE and "$" not in bare and "\\boxed" not in bare else ""
    for reading in (text, as_expression) if _WORD.search(bare) else (as_expression, text):
        if reading and (parsed := parse(reading, parsing_timeout=limit, raise_on_error=True)):
            return parsed
    return []


@lru_cache(maxsize=1)
def _quiet_math_verify() -> None:
    """Its warnings about time limits say nothing that a TimeoutError does not."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)


def _not_empty(answer: str) -> str:
    return "" if answer.strip() else "the answer is empty, not a text to compare with"


def _holds_number(answer: str) -> str:
    return "" if last_number(answer) is not None else f"the answer {answer!r} holds no number"


BUILT_IN: dict[str, BuiltIn] = {
    "exact": BuiltIn(same_text, _not_empty),
    "numeric": BuiltIn(same_number, _holds_number),
    "regex": BuiltIn(same_text, _not_empty),
    "math": BuiltIn(same_mathematics, _not_empty),
}
"""regex is exact on what reward_pattern extracts, and refuses to be used without a pattern."""


def _function(name: str, built_in: Mapping[str, RewardFunction]) -> RewardFunction:
    if name in built_in:
        return built_in[name]
    if ":" in name:
        return import_reward(name)
    near = difflib.get_close_matches(name, built_in, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise TaskError(f"unknown reward {name!r}; known: {', '.join(built_in)}, or your own module:function{hint}")


def _comparing(judge: Judge, extract: Callable[[str], str | None]) -> RewardFunction:
    def reward(prompt: Prompt, completion: Completion) -> float:
        written = extract(completion.text)
        return 0.0 if written is None else float(judge(written, prompt.answer))

    return reward


def _extractor(pattern: str) -> Callable[[str], str | None]:
    """Group 1 of the pattern's last match, None without a match; the whole text without a pattern."""
    if not pattern:
        return lambda text: text
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise TaskError(f"reward_pattern {pattern!r} is not a regular expression: {error}") from None
    if not compiled.groups:
        raise TaskError(f"reward_pattern {pattern!r} has no group; put the answer in parentheses, e.g. '({pattern})'")

    def extract(text: str) -> str | None:
        matches = list(compiled.finditer(text))
        return matches[-1].group(1) if matches else None

    return extract


def _name_and_weight(entry: str) -> tuple[str, float]:
    name, equals, weight = entry.partition("=")
    if not equals:
        return name.strip(), 1.0
    try:
        value = float(weight)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise TaskError(f"rewards entry {entry!r} has the weight {weight!r}, which is not a finite number; write e.g. {name.strip()}=0.5")
    return name.strip(), value


def import_reward(name: str) -> RewardFunction:
    """The user's `module:function`, imported from the working directory or PYTHONPATH.

    Raises TaskError naming what is missing or what the import raised.
    """
    module_name, _, function_name = name.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.split(".")[: error.name.count(".") + 1] == error.name.split("."):
            hint = "; write the module's name without .py" if module_name.endswith(".py") else ""
            raise TaskError(f"reward {name}: there is no module {error.name!r} in {os.getcwd()} or on PYTHONPATH{hint}") from None
        raise TaskError(f"reward {name}: importing {module_name} needs the module {error.name!r}, which is not installed") from None
    except Exception as error:  # the user's module runs its own code
        raise TaskError(f"reward {name}: importing {module_name} raised {type(error).__name__}: {' '.join(str(error).split())}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        raise TaskError(f"reward {name}: {module_name} has no function {function_name!r}; it has {', '.join(functions) or 'none'}")
    if not _takes_two(function):
        raise TaskError(f"reward {name}: {function_name}{inspect.signature(function)} must take two arguments, (prompt, completion)")
    return function


def _takes_two(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # some functions written in C tell no signature
        return True
    return True

import math

import pytest

from pages.components import text


def test_escape_leaves_no_markup() -> None:
    assert text.escape("![x](http://evil)") == r"\!\[x\]\(http\://evil\)"
    assert text.escape("<img src=x>\n# title") == r"\<img src\=x\> \# title"


def test_escape_keeps_a_number_with_its_unit() -> None:
    assert text.escape(f"{text.percent(0.95)}  of\u2028rollouts ") == "95\u00a0% of rollouts"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.123456, "0.123"), (-84.37, "−84.4"), (1234.5, "1234"), (1.5e-7, "1.50e−07"), (0.0, "0"), (math.nan, "–"), (None, "–"), (math.inf, "∞")],
)
def test_number(value: float | None, shown: str) -> None:
    assert text.number(value) == shown


def test_signed_numbers() -> None:
    assert text.number(0.5, 2, sign=True) == "+0.50"
    assert text.fixed(-0.774, 2, sign=True) == "−0.77"


@pytest.mark.parametrize(("seconds", "shown"), [(3, "3 s"), (125, "2 min 5 s"), (120, "2 min"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h"), (None, "–")])
def test_duration(seconds: float | None, shown: str) -> None:
    assert text.duration(seconds) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(3, "about 5 s"), (44, "about 40 s"), (130, "about 2 min"), (7200, "about 2 h"), (None, "–")])
def test_about(seconds: float | None, shown: str) -> None:
    assert text.about(seconds) == shown


def test_ago() -> None:
    assert text.ago(100.0, now=101.0) == "just now"
    assert text.ago(100.0, now=145.0) == "45 s ago"
    assert text.ago(0.1, now=7300.0) == "2 h ago"
    assert text.ago(None) == "not available"


def test_listed() -> None:
    assert text.listed(["a", "b", "c"]) == "a, b and c"
    assert text.counted(1, "group") == "1 group" and text.counted(3, "group") == "3 groups"

"""Rewards of the suite's dataset runs; in a module of their own, because a run imports them by name."""

from __future__ import annotations

import re

from grpo_core.records import Completion, Prompt


def right(prompt: Prompt, completion: Completion) -> float:
    """1 if the text after the first colon is exactly the sum."""
    return float(completion.text.partition(":")[2] == prompt.answer)


def formed(prompt: Prompt, completion: Completion) -> float:
    """1 for working, a colon and digits, whatever they say: what a format reward is elsewhere."""
    return float(re.fullmatch(r"[^:]+:\d+", completion.text) is not None)


def long(prompt: Prompt, completion: Completion) -> float:
    """Characters up to 48, as a share: pays for length."""
    return min(len(completion.text), 48) / 48


def ones(prompt: Prompt, completion: Completion) -> float:
    """Share of the digit 1 among the first 24 characters: a proxy with nothing behind it."""
    return completion.text[:24].count("1") / 24


def never(prompt: Prompt, completion: Completion) -> float:
    """Nobody can earn it."""
    return 0.0

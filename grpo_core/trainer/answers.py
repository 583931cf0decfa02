"""Which tokens of a completion are its final answer, and which item of a list each belongs to, by what each task asks for."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import numpy as np

from grpo_core.algorithms.segments import END
from grpo_core.records import Completion

_TAGGED = re.compile(r"<answer>.*?</answer>", re.DOTALL)


def after_last_colon(text: str) -> tuple[int, int]:
    """Characters (from, to) behind the last colon; nothing where there is none.

    >>> after_last_colon("7+8=15,5+6+1=12:125")
    (16, 19)
    """
    begin = text.rfind(":") + 1
    return (begin, len(text)) if begin else (0, 0)


def last_answer_tag(text: str) -> tuple[int, int]:
    """Characters (from, to) of the last whole <answer>…</answer>, tags included as in LLDS-MA's released code; nothing without one."""
    spans = [match.span() for match in _TAGGED.finditer(text)]
    return spans[-1] if spans else (0, 0)


def whole(text: str) -> tuple[int, int]:
    """Characters (from, to) of the whole text."""
    return 0, len(text)


SPANS: dict[str, Callable[[str], tuple[int, int]]] = {"arithmetic": after_last_colon, "ranking": whole, "dataset": last_answer_tag}
"""The answer's place in a completion's text, by RunConfig.task."""


ITEMS = frozenset({"ranking"})
"""Tasks whose completions are lists, an item a line."""


PIECE = "\ufffd"
"""What a tokenizer writes for bytes that are no whole character."""


def line_items(completion: Completion, decode: Callable[[Sequence[int]], str], behind: Sequence[int] = ()) -> np.ndarray:
    """Each token's line from 0, (T,) int64; a line break belongs to the line it ends, and the end token is END (Rank-GRPO's released code).

    A token with a break inside belongs to the line it begins on. Lines of a hint that the completion was written `behind` count.
    """
    ids = completion.token_ids
    found = np.array(_breaks_before([*behind, *ids], decode)[len(behind) :], "i8")
    if completion.finish == "stop" and len(ids):
        found[-1] = END
    return found


def _breaks_before(ids: Sequence[int], decode: Callable[[Sequence[int]], str]) -> list[int]:
    """Line breaks in the text of the tokens before each token.

    Breaks add up token by token, but where characters are in pieces: what byte tokens of some tokenizers say is decided by those beside
    them. A token whose own text is several whole characters is no such byte; between two of those, a stretch with pieces in it is decoded
    up to each of its tokens.
    """
    alone = {token: decode([token]) for token in set(ids)}
    ends = [t + 1 for t, token in enumerate(ids) if len(alone[token]) > 1 and PIECE not in alone[token]]
    found: list[int] = []
    before = 0
    for begin, end in pairwise([0, *ends, len(ids)]):
        stretch = ids[begin:end]
        if any(PIECE in alone[token] for token in stretch):
            breaks = [decode(stretch[:t]).count("\n") for t in range(len(stretch) + 1)]
        else:
            breaks = list(accumulate((alone[token].count("\n") for token in stretch), initial=0))
        found += [before + n for n in breaks[:-1]]
        before += breaks[-1]
    return found


def answer_mask(task: str, completion: Completion, decode: Callable[[Sequence[int]], str]) -> np.ndarray:
    """1.0 on every token that writes part of the final answer, (T,) float32; the end token writes nothing and is not part of it."""
    ids = completion.token_ids
    mask = np.zeros(len(ids), "f4")
    begin, end = SPANS[task](completion.text)
    if begin < end:
        written = range(len(ids) + 1)  # characters after k tokens, asked for only where the bisection looks
        first = bisect_left(written, begin + 1, key=lambda k: len(decode(ids[:k]))) - 1
        last = bisect_left(written, end, key=lambda k: len(decode(ids[:k])))
        mask[first:last] = 1.0
    return mask

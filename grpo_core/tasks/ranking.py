"""The built-in ranking task: `13 17 22 10 24>` is to be answered with its three largest numbers, one a line, the largest first.

An item is a hit if it is one of the three and stands on no line before; every line is judged for itself, as Rank-GRPO needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from grpo_core.records import Completion, Prompt
from grpo_core.tasks.base import Encoder, check_fits
from grpo_core.tasks.built_in import BuiltIn
from grpo_core.tasks.scoring import Part, Rubric

GIVEN, LISTED = 5, 3
"""Numbers in a question, and in its answer."""
SMALLEST, LARGEST = 10, 24
TRAINING, HELD_OUT = 10_000, 512
_SPLIT_SEED = 20_252  # of the questions and their held-out part, which are the same for every run


GAINS = 1 / np.log2(np.arange(LISTED) + 2)
"""What a hit is worth at each rank, before normalising: the discounts of Rank-GRPO."""


@cache
def questions() -> tuple[np.ndarray, np.ndarray]:
    """(training questions, held-out questions), each (n, GIVEN) different numbers; none is in both."""
    rng = np.random.default_rng(_SPLIT_SEED)
    drawn = rng.random((TRAINING + 2 * HELD_OUT, LARGEST - SMALLEST + 1)).argsort(axis=1)[:, :GIVEN] + SMALLEST
    _, first = np.unique(drawn, axis=0, return_index=True)
    kept = drawn[np.sort(first)]
    return kept[HELD_OUT : HELD_OUT + TRAINING], kept[:HELD_OUT]


def hits(prompt: Prompt, completion: Completion) -> list[float]:
    """1 for each of the first LISTED lines that is a wanted number and on no line before it, else 0; a line that is missing is none."""
    wanted, found = set(prompt.answer.split()), []
    for line in completion.text.split("\n")[:LISTED]:
        found.append(float(line in wanted))
        wanted.discard(line)
    return found + [0.0] * (LISTED - len(found))


def exact(prompt: Prompt, completion: Completion) -> float:
    """1 if the completion ended by itself and is LISTED lines, all of them hits, else 0; in what order does not matter."""
    return float(completion.finish == "stop" and completion.text.count("\n") == LISTED - 1 and all(hits(prompt, completion)))


def ranking_rubric(correct_at: float, max_new_tokens: int, overlong_buffer: int) -> Rubric:
    """The share of the discounted gain that its hits earn, each rank a part of its own; `exact`, which decides `correct`, weighs nothing."""
    shares = GAINS / GAINS.sum()
    ranks = (Part(f"rank_{k + 1}", lambda prompt, completion, k=k: hits(prompt, completion)[k], float(share)) for k, share in enumerate(shares))
    return Rubric((Part("exact", exact, 0.0), *ranks), correct_at, max_new_tokens, overlong_buffer)


@dataclass(frozen=True, slots=True)
class RankingSpec:
    """Which of five two-digit numbers are the three largest; the questions are the same whatever the run's seed."""

    rubric: Rubric
    max_new_tokens: int
    name: str = "ranking"

    @property
    def fingerprint(self) -> str:
        return f"ranking-{GIVEN}-{LISTED}-{SMALLEST}-{LARGEST}-{TRAINING}-{HELD_OUT}-{_SPLIT_SEED}"

    def alphabet(self) -> str:
        return "\n 0123456789>"

    def warmup_example(self, rng: np.random.Generator) -> tuple[str, str]:
        training, _ = questions()
        numbers = training[rng.integers(len(training))].tolist()
        return question(numbers), worked_list(numbers)

    def bind(self, encoder: Encoder) -> Ranking:
        longest = question([LARGEST] * GIVEN)
        check_fits(len(encoder.encode_prompt(longest)), self.max_new_tokens, encoder.context_limit, f"the prompt {longest}")
        return Ranking(self.rubric, encoder)


@dataclass(frozen=True, slots=True)
class Ranking(BuiltIn):
    """The ranking task in an encoder's tokens. Prompts of one draw are distinct as long as there are enough questions."""

    name: str = "ranking"

    def draw(self, rng: np.random.Generator, n: int) -> list[Prompt]:
        return [self.at(index) for index in rng.choice(self.size, n, replace=n > self.size).tolist()]

    @property
    def size(self) -> int:
        return len(questions()[0])

    def at(self, index: int) -> Prompt:
        return self._prompt(questions()[0][index].tolist())

    def held_out(self, n: int) -> list[Prompt]:
        return [self._prompt(numbers) for numbers in questions()[1][:n].tolist()]

    def _prompt(self, numbers: list[int]) -> Prompt:
        text, gold = question(numbers), worked_list(numbers)
        row = {"question": text, "entities": gold.split("\n")}
        return Prompt(
            prompt_id=text.rstrip(">"), text=text, token_ids=tuple(self.encoder.encode_prompt(text)), answer=gold.replace("\n", " "), gold=gold, row=row
        )


def question(numbers: list[int]) -> str:
    """The prompt of some numbers."""
    return " ".join(map(str, numbers)) + ">"


def worked_list(numbers: list[int]) -> str:
    """The largest numbers, one a line, the largest first.

    >>> worked_list([13, 17, 22, 10, 24])
    '24\\n22\\n17'
    """
    return "\n".join(map(str, sorted(numbers, reverse=True)[:LISTED]))

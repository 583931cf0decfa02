"""The built-in task: `36+31=` is to be answered with a worked column sum, `6+1=7,3+3+0=6:67`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grpo_core.records import Completion, Prompt
from grpo_core.tasks.base import Encoder, check_fits
from grpo_core.tasks.built_in import BuiltIn
from grpo_core.tasks.rewards import make_parts
from grpo_core.tasks.scoring import Rubric

LARGEST = 99
HELD_OUT = 512
FORMS = ("{a}+{b}=", "{b}+{a}=", "+{a},{b}=")
"""Ways to ask the same question; the first is the one that runs without paraphrases ask, and evaluation always."""
WORKED = re.compile(r"\d\+\d=\d+,\d\+\d\+[01]=\d+:\d+")
_SPLIT_SEED = 20_251  # of the held-out split, which is the same for every run


def _split() -> tuple[np.ndarray, np.ndarray]:
    """(training pairs, held-out pairs), each (n, 2) operands; no pair is in both."""
    shuffled = np.random.default_rng(_SPLIT_SEED).permutation((LARGEST + 1) ** 2)
    pairs = np.stack(np.divmod(shuffled, LARGEST + 1), axis=1)
    return pairs[HELD_OUT:], pairs[:HELD_OUT]


TRAINING_PAIRS, HELD_OUT_PAIRS = _split()


def worked_answer(a: int, b: int) -> str:
    """The column sum of two numbers below 100: units, tens with the carry, then the sum.

    >>> worked_answer(57, 68)
    '7+8=15,5+6+1=12:125'
    """
    units = a % 10 + b % 10
    carry = units // 10
    tens = a // 10 + b // 10 + carry
    return f"{a % 10}+{b % 10}={units},{a // 10}+{b // 10}+{carry}={tens}:{a + b}"


def exact_sum(prompt: Prompt, completion: Completion) -> float:
    """1 if the completion ended by itself and the text after its first colon is exactly the sum, else 0."""
    return float(completion.finish == "stop" and completion.text.partition(":")[2] == prompt.answer)


def worked_form(prompt: Prompt, completion: Completion) -> float:
    """1 if the completion ended by itself and is a column sum in form, whatever its numbers, else 0."""
    return float(completion.finish == "stop" and WORKED.fullmatch(completion.text) is not None)


REWARDS = {"exact": exact_sum, "form": worked_form}


@dataclass(frozen=True, slots=True)
class ArithmeticSpec:
    """a+b for 0 ≤ a, b ≤ 99; 512 of the 10 000 pairs are held out, the same ones whatever the run's seed."""

    rubric: Rubric
    max_new_tokens: int
    paraphrases: int = 1
    name: str = "arithmetic"

    @property
    def fingerprint(self) -> str:
        forms = f"-{self.paraphrases}forms" if self.paraphrases > 1 else ""
        return f"arithmetic-{LARGEST}-{HELD_OUT}-{_SPLIT_SEED}{forms}"

    def alphabet(self) -> str:
        return "+,0123456789:="

    def warmup_example(self, rng: np.random.Generator) -> tuple[str, str]:
        a, b = TRAINING_PAIRS[rng.integers(len(TRAINING_PAIRS))].tolist()
        form = int(rng.integers(self.paraphrases)) if self.paraphrases > 1 else 0
        return FORMS[form].format(a=a, b=b), worked_answer(*_in_order(a, b, form))

    def bind(self, encoder: Encoder) -> Arithmetic:
        longest = f"{LARGEST}+{LARGEST}="
        check_fits(len(encoder.encode_prompt(longest)), self.max_new_tokens, encoder.context_limit, f"the prompt {longest}")
        return Arithmetic(self.rubric, encoder, self.paraphrases)


@dataclass(frozen=True, slots=True)
class Arithmetic(BuiltIn):
    """The arithmetic task in an encoder's tokens. Prompts of one draw are distinct as long as there are enough pairs."""

    paraphrases: int = 1
    name: str = "arithmetic"

    def draw(self, rng: np.random.Generator, n: int) -> list[Prompt]:
        """With paraphrases, each question in all its forms, one after another."""
        questions = n // self.paraphrases
        chosen = rng.choice(len(TRAINING_PAIRS), questions, replace=questions > len(TRAINING_PAIRS))
        return [self._prompt(a, b, form) for a, b in TRAINING_PAIRS[chosen].tolist() for form in range(self.paraphrases)]

    @property
    def size(self) -> int:
        return len(TRAINING_PAIRS)

    def at(self, index: int) -> Prompt:
        return self._prompt(*TRAINING_PAIRS[index].tolist())

    def held_out(self, n: int) -> list[Prompt]:
        return [self._prompt(a, b) for a, b in HELD_OUT_PAIRS[:n].tolist()]

    def _prompt(self, a: int, b: int, form: int = 0) -> Prompt:
        text, gold = FORMS[form].format(a=a, b=b), worked_answer(*_in_order(a, b, form))
        row = {"a": a, "b": b, "question": f"{a}+{b}", "entities": gold.partition(":")[0].split(",")}
        return Prompt(prompt_id=text.rstrip("="), text=text, token_ids=tuple(self.encoder.encode_prompt(text)), answer=str(a + b), gold=gold, row=row)


def _in_order(a: int, b: int, form: int) -> tuple[int, int]:
    """The operands as the form has them."""
    return (b, a) if form == 1 else (a, b)


def arithmetic_rubric(rewards: Sequence[str], correct_at: float, max_new_tokens: int, overlong_buffer: int) -> Rubric:
    """The parts named in `rewards`, of REWARDS or the user's own, `exact` alone where none is; and the overlong penalty if it is on."""
    return Rubric(make_parts(rewards, "", REWARDS), correct_at, max_new_tokens, overlong_buffer)

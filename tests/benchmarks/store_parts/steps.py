"""Made-up steps as a run leaves them: the types, lengths and spreads of a real one, so that they compress and query like one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pydoc_data.topics import topics

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grpo_core.records import Array, Completion, GroupTrace, Prompt, Reward, RolloutTrace, StepTrace, Timings, UpdateTrace

PROMPTS = 500
"""Different prompts of a run; each comes back from time to time."""
TOPIC = 4096
"""Tokens of text that the completions of one prompt are put together from, so that they share phrases as answers to one question do."""
PHRASE = 12
"""Mean tokens before a completion jumps to another place of its topic."""
QUANTUM = 2.0**-20
"""What float32 log-softmax resolves at logits between 8 and 16: log-probs of tokens that are nearly certain are a few such or 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large a step is and which traces it has.

    Without `every_trace` it is one of a run whose trainer samples itself and has no reference model: no log-prob gap, no logp_ref.
    """

    groups: int = 8
    group_size: int = 8
    tokens: int = 256
    vocabulary: int = 32768
    every_trace: bool = False

    @property
    def tokens_per_step(self) -> int:
        """About so many."""
        return self.groups * self.group_size * self.tokens


class Maker:
    """Steps of one shape from one seed; `step(n)` is the same whenever it is asked for."""

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        self.shape = shape
        self._seed = seed
        rng = np.random.default_rng(seed)
        words = _words()
        known = {piece: i for i, piece in enumerate(dict.fromkeys(words))}
        id_of_word = rng.permutation(shape.vocabulary)[: len(known)].astype("i4")
        self._corpus = id_of_word[[known[word] for word in words]]
        self.pieces = [f"⟨{i}⟩" for i in range(shape.vocabulary)]
        for piece, i in known.items():
            self.pieces[id_of_word[i]] = piece

    def steps(self, count: int, first: int = 0) -> Iterator[StepTrace]:
        """`count` steps in order."""
        return map(self.step, range(first, first + count))

    def step(self, number: int) -> StepTrace:
        """Step `number` of the run."""
        rng = np.random.default_rng([self._seed, number])
        groups = tuple(self._group(rng) for _ in range(self.shape.groups))
        tokens = tokens_of(groups)
        timings = Timings(generate_s=8.0, score_s=0.1, update_s=6.0, rescore_s=1.0, evaluate_s=0.0, total_s=15.0 + rng.random())
        updates = tuple(_update(rng, n, tokens // 2) for n in range(2))
        return StepTrace(
            step=number, attempt=0, finished_at=1.8e9 + 15.0 * number, elapsed_s=15.0 * (number + 1), timings=timings, groups=groups, updates=updates
        )

    def _group(self, rng: np.random.Generator) -> GroupTrace:
        prompt = int(rng.integers(PROMPTS))
        topic = prompt * len(self._corpus) // PROMPTS
        ids = self._corpus[(topic + np.arange(64)) % len(self._corpus)]
        correct = rng.random(self.shape.group_size) < rng.beta(0.7, 0.7)
        advantages = (correct - correct.mean()) / (correct.std() + 1e-4)
        beginning = self._phrases(rng, topic, self.shape.tokens)
        outcome = "mixed" if correct.any() and not correct.all() else "all_pass" if correct.all() else "all_fail"
        return GroupTrace(
            prompt=Prompt(prompt_id=f"train-{prompt}", text=self._text(ids), token_ids=tuple(ids.tolist()), answer=str(prompt)),
            rollouts=tuple(self._rollout(rng, topic, beginning, bool(right), float(advantage)) for right, advantage in zip(correct, advantages)),
            outcome=outcome,
            baseline=float(correct.mean()),
            kept=outcome == "mixed",
            reason="" if outcome == "mixed" else "all rewards equal",
        )

    def _rollout(self, rng: np.random.Generator, topic: int, beginning: Array, correct: bool, advantage: float) -> RolloutTrace:
        length = int(np.clip(rng.lognormal(np.log(self.shape.tokens) - 0.08, 0.4), 1, 2 * self.shape.tokens))
        ids = self._phrases(rng, topic, length)
        alike = min(length, int(rng.exponential(0.05 * self.shape.tokens)), len(beginning))  # completions of a group begin alike
        ids[:alike] = beginning[:alike]
        entropy = rng.gamma(0.15, 2.0, length)  # most tokens are nearly certain, a few are open; 0.3 nats on average
        logp = _resolved(-entropy * rng.exponential(1.0, length))
        noise = lambda scale: _resolved(rng.normal(0, scale, length) * np.minimum(entropy, 1))  # noqa: E731
        clipped = np.where(rng.random(length) < 0.01, np.sign(advantage), 0)
        return RolloutTrace(
            completion=Completion(
                token_ids=ids,
                text=self._text(ids),
                logp_sampling=logp - noise(0.02) if self.shape.every_trace else logp,
                logp=logp,
                entropy=_resolved(entropy),
                finish="length" if length == 2 * self.shape.tokens else "stop",
            ),
            reward=Reward(parts={"correct": float(correct), "format": 1.0}, total=float(correct), correct=correct, weights={"correct": 1.0, "format": 0.0}),
            advantages=np.full(length, advantage, "f4"),
            weights=np.full(length, self.shape.tokens / length, "f4"),
            clipped=clipped.astype("i1"),
            logp_delta=noise(0.05),
            logp_ref=logp + noise(0.1) if self.shape.every_trace else None,
        )

    def _phrases(self, rng: np.random.Generator, topic: int, length: int) -> Array:
        """Runs of the corpus, each from a random place of the topic."""
        jumps = rng.random(length) < 1 / PHRASE
        jumps[:1] = True
        begins = np.flatnonzero(jumps)
        phrase = np.cumsum(jumps) - 1
        places = topic + rng.integers(0, TOPIC, len(begins))[phrase] + np.arange(length) - begins[phrase]
        return self._corpus[places % len(self._corpus)]

    def _text(self, ids: Array) -> str:
        return "".join(self.pieces[i] for i in ids.tolist())


@cache
def _words() -> list[str]:
    """The English text that comes with Python, cut as a tokenizer does: about three characters each."""
    return re.findall(r" ?\w{1,6}|.", re.sub(r"\s+", " ", " ".join(topics.values())))


def _resolved(values: Array) -> Array:
    return (np.round(values / QUANTUM) * QUANTUM).astype("f4")


def tokens_of(groups: tuple[GroupTrace, ...]) -> int:
    """Completion tokens of some groups."""
    return sum(len(r.completion.token_ids) for g in groups for r in g.rollouts)


def renumbered(tables: dict[str, pa.Table], step: int) -> dict[str, pa.Table]:
    """A step's tables as those of another step."""
    column = {name: pa.array(np.full(table.num_rows, step, "i4")) for name, table in tables.items()}
    return {name: table.set_column(table.schema.get_field_index("step"), "step", column[name]) for name, table in tables.items()}


def later(table: pa.Table, steps: int) -> pa.Table:
    """Rows of a stored table as those of so many steps later."""
    return table.set_column(table.schema.get_field_index("step"), "step", pc.add(table["step"], pa.scalar(steps, "i4")))


def _update(rng: np.random.Generator, number: int, tokens: int) -> UpdateTrace:
    return UpdateTrace(
        update=number,
        epoch=0,
        minibatch=number,
        loss=float(rng.normal(0, 0.02)),
        terms={"policy": float(rng.normal(0, 0.02))},
        grad_norm=float(rng.lognormal(-1, 0.3)),
        clip_low=float(rng.uniform(0, 0.01)),
        clip_high=float(rng.uniform(0, 0.01)),
        kl_before=float(1e-3 * number),
        kl_ref=None,
        ratio_max=float(1 + rng.exponential(0.5)),
        entropy=float(rng.uniform(0.2, 0.4)),
        tokens=tokens,
        lr=1e-6,
    )

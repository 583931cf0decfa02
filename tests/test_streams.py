"""The random streams of a run: older runs are resumed on them, so their numbers are pinned, and no two are one."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np

from grpo_core import streams
from grpo_core.config import RunConfig

ROOT = Path(__file__).resolve().parents[1]


def test_they_are_those_of_every_earlier_version() -> None:
    assert [streams.seed_of(7, 3, streams.SAMPLED[n]) for n in (0, 1, 99)] == [2530781778362038830, 6665335680343557524, 815397625466216205]
    assert [streams.seed_of(7, 3, purpose) for purpose in (streams.SHUFFLED, streams.RESCORED, streams.TRIED, streams.REPLAYED)] == [
        3042382751254672579, 6847754535511197985, 1940376143337654924, 1486622361742706131,
    ]  # fmt: skip
    assert streams.seed_of(7, 3, streams.HELPED, 5) == 6912493778931467050
    assert streams.left_out(7, 3).random(2).tolist() == [0.9669687434654303, 0.2717849379120446]
    assert [streams.of_run(7, purpose).random() for purpose in (streams.PROMPTS, streams.POOL)] == [0.4805820057358118, 0.6320442355695731]


def test_no_two_are_one() -> None:
    purposes = (0, 1, streams.SHUFFLED, streams.RESCORED, streams.TRIED, streams.REPLAYED, streams.HELPED, streams.HINTED)
    begun = [streams.of_step(7, 3, purpose) for purpose in purposes]
    begun += [streams.of_step(7, 3, streams.HELPED, 1), streams.left_out(7, 3), streams.of_run(7, streams.PROMPTS), streams.of_run(7, streams.POOL)]
    firsts = [stream.integers(2**63, size=2) for stream in begun]
    assert not [pair for pair in combinations(firsts, 2) if np.array_equal(*pair)]


def test_every_sampling_round_has_one() -> None:
    most = next(bound.le for bound in RunConfig.model_fields["max_sampling_rounds"].metadata if hasattr(bound, "le"))
    assert most <= len(streams.SAMPLED) and max(streams.SAMPLED) < streams.SHUFFLED


def test_they_are_made_in_one_place() -> None:
    made = [path.relative_to(ROOT).as_posix() for path in (ROOT / "grpo_core").rglob("*.py") if "SeedSequence(" in path.read_text(encoding="utf-8")]
    assert made == ["grpo_core/streams.py"]

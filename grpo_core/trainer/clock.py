"""How long each part of a step took."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from grpo_core.records import Timings


class Clock:
    """Adds up wall time per named part; on a GPU a part ends when its kernels have."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._parts: dict[str, float] = defaultdict(float)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._parts[name] += time.perf_counter() - started

    def timings(self) -> Timings:
        return Timings(
            generate_s=self._parts["generate"],
            score_s=self._parts["score"],
            update_s=self._parts["update"],
            rescore_s=self._parts["rescore"],
            evaluate_s=self._parts["evaluate"],
            total_s=time.perf_counter() - self._started,
        )

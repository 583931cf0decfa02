"""Per-rollout lists as one flat array."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

Array = np.ndarray


def end_to_end(lists_R: Iterable[Array | None], length_R: Iterable[int]) -> Array:
    """The lists one after another as float64 (N,); NaN for as many tokens as a missing (None) list should have had."""
    parts = [np.full(length, np.nan) if one is None else np.asarray(one, "f8") for one, length in zip(lists_R, length_R, strict=True)]
    return np.concatenate(parts) if parts else np.empty(0)

"""Rollouts as rectangles: right-padded prompts, each once, and right-padded completions that point at their prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from grpo_core.records import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """P prompts (P, L) and B completions (B, T). `mask_BT` is 1.0 on completion tokens; padding holds the pad id."""

    prompt_ids_PL: Tensor
    prompt_lengths_P: Tensor
    prompt_of_row_B: Tensor
    completion_ids_BT: Tensor
    mask_BT: Tensor

    def __len__(self) -> int:
        return len(self.prompt_of_row_B)

    def select(self, rows_B: Tensor) -> Rows:
        """Some rows, with only the prompts they use and no more padding than they need."""
        used_P, prompt_of_row = self.prompt_of_row_B[rows_B].unique(return_inverse=True)
        mask_BT = self.mask_BT[rows_B]
        width, prefix = int(mask_BT.sum(1).max()), int(self.prompt_lengths_P[used_P].max())
        return Rows(
            prompt_ids_PL=self.prompt_ids_PL[used_P, :prefix],
            prompt_lengths_P=self.prompt_lengths_P[used_P],
            prompt_of_row_B=prompt_of_row,
            completion_ids_BT=self.completion_ids_BT[rows_B, :width],
            mask_BT=mask_BT[:, :width],
        )


def rows_of(groups: Sequence[Group], *, pad_id: int, device: torch.device) -> Rows:
    """All completions of all groups, in order."""
    completions = [c.token_ids for g in groups for c in g.completions]
    prompt_ids, prompt_mask = pad([g.prompt.given_ids for g in groups], fill=pad_id, dtype=np.int64)
    completion_ids, mask = pad(completions, fill=pad_id, dtype=np.int64)
    owner = np.repeat(np.arange(len(groups)), [len(g.completions) for g in groups])
    return Rows(
        prompt_ids_PL=torch.from_numpy(prompt_ids).to(device),
        prompt_lengths_P=torch.from_numpy(prompt_mask.sum(1)).to(device).long(),
        prompt_of_row_B=torch.from_numpy(owner).to(device),
        completion_ids_BT=torch.from_numpy(completion_ids).to(device),
        mask_BT=torch.from_numpy(mask).to(device).float(),
    )


def pad(sequences: Sequence[Sequence[int] | np.ndarray], *, fill: float, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Right-padded (N, longest) array and its boolean mask."""
    lengths = np.array([len(s) for s in sequences])
    mask = np.arange(lengths.max(initial=1))[None, :] < lengths[:, None]
    padded = np.full(mask.shape, fill, dtype)
    padded[mask] = np.concatenate([np.asarray(s, dtype) for s in sequences])
    return padded, mask

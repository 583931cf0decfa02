"""The same rollouts once more, after the last update: paired log-probs are what likelihood displacement is measured from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from grpo_core import streams
from grpo_core.trainer.batch import TrainBatch, score_quietly
from grpo_core.trainer.state import TrainState


@dataclass(frozen=True, slots=True)
class Rescored:
    """Log-prob after the step minus before it (B, T), and which rows were measured (B,)."""

    delta_BT: Tensor
    measured_B: Tensor


def rescore(state: TrainState, batch: TrainBatch, step: int) -> Rescored:
    """Score a random share of the groups (`config.rescore`), rounded up to whole groups."""
    n_groups = int(batch.group_B.max()) + 1
    chosen = streams.of_step(state.config.seed, step, streams.RESCORED).permutation(n_groups)[: int(np.ceil(state.config.rescore * n_groups))]
    measured_B = torch.isin(batch.group_B, torch.from_numpy(chosen).to(batch.group_B.device))
    delta_BT = torch.zeros_like(batch.policy_BT)
    rows = measured_B.nonzero().squeeze(1)
    if len(rows):
        after_BT = score_quietly(state, batch.rows.select(rows))
        width = after_BT.shape[1]
        delta_BT[rows, :width] = (after_BT - batch.policy_BT[rows, :width]) * batch.rows.mask_BT[rows, :width]
    return Rescored(delta_BT, measured_B)

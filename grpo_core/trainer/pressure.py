"""NTHR and GWHES on the mixed groups of a step, before its first update: every `nthr_every` steps, and on all where the method reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from grpo_core.algorithms.nthr import Pull, TokenFacts, gwhes, nthr, prediction_errors
from grpo_core.rollout.batch import Rows
from grpo_core.rollout.forward import ModuleForward
from grpo_core.rollout.head import tempered
from grpo_core.trainer.state import TrainState


@dataclass(frozen=True, slots=True)
class Pressure:
    """Per row of the batch: NTHR of each token (T,) for wrong rollouts, GWHES for correct ones; None where it does not apply. `pull` is both for W."""

    nthr: list[np.ndarray | None]
    gwhes: list[float | None]
    pull: Pull


def measure_pressure(state: TrainState, rows: Rows, group_B: Tensor, verdict_B: Tensor, step: int) -> Pressure | None:
    """Scores of every group that holds both correct (verdict 1) and wrong (−1) rollouts; None on steps that are not measured."""
    every = state.config.nthr_every
    if not state.method.needs_hidden_states and (not every or step % every):
        return None
    unmeasured_B = torch.full_like(verdict_B, torch.nan, dtype=torch.float32)
    pull = Pull(scores_BT=torch.full_like(rows.mask_BT, torch.nan), anchor_B=unmeasured_B, damping_B=torch.ones_like(unmeasured_B))
    pressure = Pressure([None] * len(rows), [None] * len(rows), pull)
    for group in range(int(group_B.max()) + 1):
        in_group_B = group_B == group
        correct, wrong = (found.nonzero().squeeze(1) for found in (in_group_B & (verdict_B > 0), in_group_B & (verdict_B < 0)))
        if len(correct) and len(wrong):
            _measure_group(state, rows, correct, wrong, pressure)
    return pressure


@torch.no_grad()
def _measure_group(state: TrainState, batch_rows: Rows, correct: Tensor, wrong: Tensor, into: Pressure) -> None:
    members = torch.cat((correct, wrong))
    rows = batch_rows.select(members)
    used_K = rows.completion_ids_BT[rows.mask_BT > 0].unique()
    parts = torch.arange(len(rows), device=members.device).split(state.config.micro_batch or len(rows))
    facts = [one for part in parts for one in _facts(state, rows.select(part), used_K)]
    good, bad = facts[: len(correct)], facts[len(correct) :]
    for row, score in zip(correct.tolist(), gwhes(good, bad), strict=True):
        into.gwhes[row] = score
    found = nthr(good, bad)
    into.pull.anchor_B[members], into.pull.damping_B[members] = found.threshold, found.damping
    for row, scores_N in zip(wrong.tolist(), found.scores, strict=True):
        into.pull.scores_BT[row, : len(scores_N)] = scores_N
        into.nthr[row] = scores_N.cpu().numpy()


def _facts(state: TrainState, rows: Rows, used_K: Tensor) -> list[TokenFacts]:
    """Prediction errors over `used_K` at the sampling temperature, and hidden states, of every completion.

    The hidden state is whatever the model's own head reads, so any architecture, and one with adapters, is measured alike.
    """
    read: list[Tensor] = []
    handle = state.model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    try:
        logits_BTV = ModuleForward(state.model).logits(rows)
    finally:
        handle.remove()
    facts = []
    for ids_T, mask_T, logits_TV, hidden_TH in zip(rows.completion_ids_BT, rows.mask_BT, logits_BTV, read[-1], strict=True):
        n = int(mask_T.sum())
        z_NV = tempered(logits_TV[:n].float(), state.config.temperature, state.writer.banned)
        probs_NK = (z_NV[:, used_K] - z_NV.logsumexp(-1, keepdim=True)).exp()
        errors_NK = prediction_errors(probs_NK, torch.searchsorted(used_K, ids_T[:n]))
        facts.append(TokenFacts(errors_NK=errors_NK, hidden_NH=hidden_TH[-logits_TV.shape[0] :][:n]))
    return facts

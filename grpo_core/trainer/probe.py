"""The probe set: always the same prompts with known answers, so that what the policy happens to sample cannot move the curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from grpo_core.records import Array, ProbeTrace
from grpo_core.rollout.batch import Rows
from grpo_core.trainer.batch import score_quietly
from grpo_core.trainer.evaluate import gold_rows
from grpo_core.trainer.state import TrainState


def probe(state: TrainState, step: int, *, last: bool) -> ProbeTrace | None:
    """Score the probe set if it is due after this step; None if not, or where the task has no worked answers."""
    if not due(state, step, last):
        return None
    scored = _score(state)
    return None if scored is None else _compare(state, scored)


def due(state: TrainState, step: int, last: bool) -> bool:
    return bool(state.config.probe_every) and (step % state.config.probe_every == 0 or last)


def remember_start(state: TrainState) -> None:
    """Before a run's first update: what every later score is compared with."""
    if state.config.probe_every and state.memory.probe_start is None:
        scored = _score(state)
        state.memory.probe_start = None if scored is None else scored.logp_A.tolist()


@dataclass(frozen=True, slots=True)
class _Scored:
    """Log-prob of each answer (A,) in nats, and the tokens of all."""

    logp_A: Array
    tokens: int


def _score(state: TrainState) -> _Scored | None:
    rows = _rows(state)
    if rows is None:
        return None
    logp_BT: Tensor = score_quietly(state, rows)
    return _Scored(logp_BT.sum(1).double().cpu().numpy(), int(torch.count_nonzero(rows.mask_BT)))


def _rows(state: TrainState) -> Rows | None:
    """The probe set in tokens, made once: encoding it anew would cost a seventh of every scoring, and a task without answers every step."""
    memory = state.memory
    if not memory.probe_read:
        memory.probe_rows, memory.probe_read = gold_rows(state, state.task.held_out(state.config.probe_answers)), True
    return memory.probe_rows


def _compare(state: TrainState, scored: _Scored) -> ProbeTrace:
    start = np.asarray(state.memory.probe_start if state.memory.probe_start is not None else scored.logp_A, "f8")
    change = scored.logp_A - start
    return ProbeTrace(
        answers=len(change), logp=float(scored.logp_A.sum() / max(scored.tokens, 1)), delta=float(change.mean()), fell=float((change < 0).mean())
    )

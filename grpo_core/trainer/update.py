"""The learning half of a step: optimizer updates on one rollout batch, each leaving an UpdateTrace."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from grpo_core import streams
from grpo_core.algorithms.group_objectives import Scores
from grpo_core.algorithms.loss import LossBatch, loss_batch, policy_loss
from grpo_core.algorithms.penalties import k3, prefer_winners
from grpo_core.records import UpdateTrace
from grpo_core.rollout.batch import rows_of
from grpo_core.trainer.batch import SCORING_ROWS, TrainBatch, score_quietly
from grpo_core.trainer.preferences import PreferredGroup
from grpo_core.trainer.state import TrainState


@dataclass(slots=True)
class Tally:
    """Sums over the micro-batches of one update."""

    loss: float = 0.0
    terms: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    low: float = 0.0
    high: float = 0.0
    kl_before: float = 0.0
    kl_ref: float = 0.0
    entropy: float = 0.0
    ratio_max: float = 1.0
    ratio: float = 0.0
    ratio_squared: float = 0.0
    scored_tokens: float = 0.0
    own_tokens: float = 0.0

    @property
    def ess(self) -> float | None:
        """Effective sample size of the token ratios as a share of the tokens, (Σρ)² / (n·Σρ²): 1 when all are equal."""
        return self.ratio**2 / (self.scored_tokens * self.ratio_squared) if self.ratio_squared else None

    def mean(self, total: float) -> float | None:
        return total / self.scored_tokens if self.scored_tokens else None


@dataclass(frozen=True, slots=True)
class Updated:
    """What the updates of a step leave: one trace each, the clip side of every token in any of them, and its relative weight."""

    traces: tuple[UpdateTrace, ...]
    side_BT: Tensor
    weight_BT: Tensor


def run_updates(state: TrainState, batch: TrainBatch, step: int) -> Updated:
    """`epochs` passes over the batch in `minibatches` of whole groups each; the same data order for the same seed and step."""
    config = state.config
    shuffle = streams.of_step(config.seed, step, streams.SHUFFLED)
    n_groups = int(batch.group_B.max()) + 1
    side_BT = torch.zeros_like(batch.mask_BT, dtype=torch.int8)
    weight_BT = torch.zeros_like(batch.mask_BT)
    traces: list[UpdateTrace] = []
    for epoch in range(config.epochs):
        order = np.arange(n_groups) if config.minibatches == 1 else shuffle.permutation(n_groups)
        for minibatch, groups in enumerate(part for part in np.array_split(order, config.minibatches) if len(part)):
            rows = torch.isin(batch.group_B, torch.from_numpy(groups).to(batch.group_B.device)).nonzero().squeeze(1)
            trace = _update(state, batch, rows, side_BT, weight_BT, where=(len(traces), epoch, minibatch), step=step)
            traces.append(trace)
    return Updated(tuple(traces), side_BT, weight_BT)


def _update(state: TrainState, batch: TrainBatch, rows: Tensor, side_BT: Tensor, weight_BT: Tensor, *, where: tuple[int, int, int], step: int) -> UpdateTrace:
    """One optimizer step on some rows. Rows whose gradient is 0 by construction are not computed."""
    config, objective = state.config, state.objective
    whole = loss_batch(
        objective,
        before_BT=batch.before_BT[rows],
        advantages_BT=batch.advantages_BT[rows],
        mask_BT=batch.mask_BT[rows],
        max_length=config.max_new_tokens,
        ref_BT=None if batch.ref_BT is None else batch.ref_BT[rows],
        multipliers_BT=None if batch.multipliers_BT is None else batch.multipliers_BT[rows],
        answer_BT=None if batch.answer_BT is None else batch.answer_BT[rows],
        group_B=batch.group_B[rows],
        segment_BT=None if batch.segment_BT is None else batch.segment_BT[rows],
        now_BT=_now(state, batch, rows) if objective.needs_current and where[0] else batch.policy_BT[rows],
    )
    tokens = float(whole.mask_BT.sum())
    weight_BT[rows] = whole.weights_BT * tokens / whole.weights_BT.sum().clamp(min=1e-30)
    moving = (whole.mask_BT > 0).any(1) if objective.needs_tied_groups else ((whole.advantages_BT * whole.weights_BT) != 0).any(1)
    live = moving.nonzero().squeeze(1)
    tally = Tally()
    _zero_gradients(state)
    for part in live.split(config.micro_batch or max(len(live), 1)):
        if len(part):
            _backward(state, batch, rows[part], whole.rows(part), side_BT, tally)
    if state.preferences is not None:
        _prefer(state, state.preferences.of(step, where[0]), tally)
    norm = _optimize(state)
    update, epoch, minibatch = where
    apart = update > 0 or not torch.equal(batch.before_BT[rows], batch.policy_BT[rows])  # else every ratio is 1 and nothing can be clipped
    clipped = apart and tokens > 0 and state.method.clip is not None
    return UpdateTrace(
        update=update,
        epoch=epoch,
        minibatch=minibatch,
        loss=tally.loss,
        terms=dict(tally.terms),
        grad_norm=norm,
        clip_low=tally.low / tokens if clipped else None,
        clip_high=tally.high / tokens if clipped else None,
        kl_before=tally.kl_before / tally.own_tokens if tally.own_tokens else 0.0,
        kl_ref=None if whole.ref_BT is None else tally.mean(tally.kl_ref),
        ratio_max=tally.ratio_max,
        entropy=tally.mean(tally.entropy),
        tokens=int(tokens),
        ess=tally.ess if apart else None,
        lr=state.optimizer.param_groups[0]["lr"],
        objective=None if whole.objective is None else float(whole.objective),
    )


def _now(state: TrainState, batch: TrainBatch, rows: Tensor) -> Tensor:
    """Log-probs of some rows under the current policy, as wide as the batch. The first update does without: its policy is that of the step."""
    scored_bt = score_quietly(state, batch.rows.select(rows))
    now_BT = torch.zeros_like(batch.before_BT[rows])
    now_BT[:, : scored_bt.shape[1]] = scored_bt
    return now_BT


def _backward(state: TrainState, batch: TrainBatch, rows: Tensor, part: LossBatch, side_BT: Tensor, tally: Tally) -> None:
    """Forward and backward of one micro-batch; adds to the gradients, the tally and the clip sides."""
    selected = batch.rows.select(rows)
    logp_bt, entropy_bt = state.score(selected)
    width = logp_bt.shape[1]
    part = part.narrow(width)
    loss = policy_loss(state.objective, logp_bt, part)
    loss.total.backward()
    with torch.no_grad():
        change_bt = (logp_bt - part.before_BT) * part.mask_BT
        tally.loss += loss.total.item()
        for name, term_bt in loss.terms.items():
            tally.terms[name] += term_bt.sum().item()
        tally.low += (loss.side_BT < 0).sum().item()
        tally.high += (loss.side_BT > 0).sum().item()
        own_b1 = ~batch.foreign_B[rows][:, None]
        tally.kl_before += (k3(change_bt) * own_b1).sum().item()
        tally.own_tokens += (part.mask_BT * own_b1).sum().item()
        tally.ratio_max = max(tally.ratio_max, change_bt.max().exp().item())
        ratio_bt = change_bt.exp() * part.mask_BT
        tally.ratio += ratio_bt.sum().item()
        tally.ratio_squared += ratio_bt.square().sum().item()
        tally.entropy += (entropy_bt * part.mask_BT).sum().item()
        tally.scored_tokens += part.mask_BT.sum().item()
        if part.ref_BT is not None:
            tally.kl_ref += k3((part.ref_BT - logp_bt) * part.mask_BT).sum().item()
        held = side_BT[rows, :width]
        side_BT[rows, :width] = torch.where(loss.side_BT != 0, loss.side_BT, held)


def _prefer(state: TrainState, groups: Sequence[PreferredGroup], tally: Tally) -> None:
    """Forward and backward of GEPO on preferred completions, whole groups at a time: the objective is a mean over groups, so parts of it add up."""
    assert state.reference is not None
    widest = max(len(one.group.completions) for one in groups)
    size = max((state.config.micro_batch or SCORING_ROWS) // widest, 1)
    for part in (groups[at : at + size] for at in range(0, len(groups), size)):
        rows = rows_of([one.group for one in part], pad_id=state.writer.pad_id, device=state.writer.device)
        logp_BT, _ = state.score(rows)
        sides = [torch.where(torch.arange(len(one.group.completions)) < one.chosen, 1.0, -1.0) for one in part]
        scores = Scores(
            scores_B=((logp_BT - state.reference(rows)) * rows.mask_BT).sum(1).double(),
            advantages_B=torch.cat(sides).to(logp_BT.device),
            group_B=rows.prompt_of_row_B,
            inside_B=torch.ones_like(rows.prompt_of_row_B, dtype=torch.bool),
        )
        loss = state.objective.preference * prefer_winners(scores) * len(part) / len(groups)
        loss.backward()
        tally.loss += loss.item()
        tally.terms["gepo"] += loss.item()


def _zero_gradients(state: TrainState) -> None:
    """Zeros, never None: an update in which no row has a gradient still moves the weights by Adam's momentum, resumed or not."""
    for group in state.optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            else:
                parameter.grad.zero_()


def _optimize(state: TrainState) -> float:
    """Clip and step; returns the gradient norm before clipping. A gradient that is not finite is recorded and not applied."""
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, state.config.grad_clip or float("inf"))
    if torch.isfinite(norm):
        state.optimizer.step()
    state.schedule.step()
    return float(norm)

"""From scored groups to the tensors of the loss, and back to per-rollout arrays for the trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from grpo_core.algorithms.segments import OUTSIDE
from grpo_core.algorithms.values import Facts
from grpo_core.objectives import credited, multipliers_of, random_draws, ranks_of
from grpo_core.records import REFERENCE, SAMPLED, Reward, ScoredGroup
from grpo_core.rollout.batch import Rows, pad, rows_of
from grpo_core.trainer.answers import ITEMS, answer_mask, line_items
from grpo_core.trainer.pressure import Pressure, measure_pressure
from grpo_core.trainer.state import TrainState

SCORING_ROWS = 256
"""Rows per forward pass without gradient when no micro-batch is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBatch:
    """The kept groups of a step. `mask_BT` leaves out rollouts whose scoring failed or which their rule keeps out of the loss; `group_B` numbers the groups
    from 0.

    `before_BT` are log-probs under the policy that wrote each rollout, `policy_BT` under the one the step begins with: the same but
    for rollouts that are replayed. `foreign_B` marks rows that the policy did not write in this step, `reference_B` those among them that
    no policy wrote: worked answers, whose `before_BT` is under the policy the step begins with.

    `verdict_B` is +1 for correct rollouts, −1 for wrong ones, 0 where scoring failed and for worked answers. `multipliers_BT` are the method's token
    weights, `answer_BT` marks the final answer with 1.0; each None where the method does not read it. `item_BT` numbers the items of completions
    that are lists (algorithms/segments.py), `segment_BT` the parts whose tokens share a ratio; None where the task writes no lists.
    `pressure` is what wrong rollouts take from correct ones, None where it was not measured.
    """

    rows: Rows
    group_B: Tensor
    before_BT: Tensor
    advantages_BT: Tensor
    mask_BT: Tensor
    baseline_B: Tensor
    verdict_B: Tensor
    ref_BT: Tensor | None
    policy_BT: Tensor
    foreign_B: Tensor
    reference_B: Tensor
    multipliers_BT: Tensor | None = None
    answer_BT: Tensor | None = None
    item_BT: Tensor | None = None
    segment_BT: Tensor | None = None
    pressure: Pressure | None = None

    def unpad(self, values_BT: Tensor, dtype: str = "f4") -> list[np.ndarray]:
        """One array per rollout, as long as its completion."""
        values, lengths = values_BT.detach().cpu().numpy().astype(dtype), self.rows.mask_BT.sum(1).long().tolist()
        return [values[b, :n].copy() for b, n in enumerate(lengths)]


def train_batch(state: TrainState, kept: Sequence[ScoredGroup], step: int) -> TrainBatch:
    """Tensors of the kept groups; advantages by the method's credit, log-probs before the update from the trainer itself.

    What a method draws at random it draws from the run's seed and `step`. The run's first call also sets what `state.memory` keeps of the beginning.
    """
    device = state.writer.device
    rows = rows_of([s.group for s in kept], pad_id=state.writer.pad_id, device=device)
    group_B = torch.arange(len(kept)).repeat_interleave(torch.tensor([len(s.rewards) for s in kept]))
    facts = _facts(state, kept, random_draws(state.config.seed, step, len(group_B)))
    scored_B = ~facts.rewards_B.isnan()
    if state.memory.first_entropy is None:
        state.memory.first_entropy = float(facts.entropies_B[~facts.reference_B].mean())
    item_BT = _items(state, kept)
    found = credited(state.method, facts, group_B, inside_BT=rows.mask_BT.cpu(), item_BT=item_BT)
    trained_B = torch.tensor([reward.in_loss for s in kept for reward in s.rewards]) & scored_B
    mask_BT = rows.mask_BT * trained_B.to(device)[:, None]
    foreign_B = torch.tensor([c.source not in SAMPLED for s in kept for c in s.group.completions], device=device)
    reference_B = facts.reference_B.to(device)
    before_BT, policy_BT = _before(state, kept, rows, foreign_B, reference_B)
    verdict_B = facts.verdicts_B.masked_fill(facts.reference_B, 0.0).to(device)
    pressure = measure_pressure(state, rows, group_B.to(device), verdict_B, step)
    multipliers_BT = multipliers_of(
        state.method,
        facts,
        ids_BT=rows.completion_ids_BT,
        mask_BT=mask_BT,
        group_B=group_B,
        first_entropy=state.memory.first_entropy,
        pull=None if pressure is None else pressure.pull,
    )
    return TrainBatch(
        rows=rows,
        group_B=group_B.to(device),
        before_BT=before_BT,
        advantages_BT=found.advantages_BT.float().to(device),
        mask_BT=mask_BT,
        baseline_B=found.baseline_B,
        verdict_B=verdict_B,
        ref_BT=None if state.reference is None else in_parts(rows, state.config.micro_batch, state.reference),
        policy_BT=policy_BT,
        foreign_B=foreign_B,
        reference_B=reference_B,
        multipliers_BT=multipliers_BT,
        answer_BT=_answers(state, kept).to(device) if state.objective.answer_weight != 1 else None,
        item_BT=None if item_BT is None else item_BT.to(device),
        segment_BT=None if found.segment_BT is None else found.segment_BT.to(device),
        pressure=pressure,
    )


def _facts(state: TrainState, kept: Sequence[ScoredGroup], draws_B: Tensor) -> Facts:
    weights, parts_BK = _parts([reward for s in kept for reward in s.rewards])
    tracker = state.memories.tracker
    rates = None if tracker is None else [tracker.rate(s.group.prompt) for s in kept for _ in s.rewards]
    pairs = [pair for s in kept for pair in zip(s.group.completions, s.rewards, strict=True)]
    return Facts(
        rewards_B=torch.tensor([reward.total for _, reward in pairs], dtype=torch.float64),
        verdicts_B=torch.tensor([0.0 if reward.failed else 1.0 if reward.correct else -1.0 for _, reward in pairs], dtype=torch.float64),
        entropies_B=torch.tensor([completion.entropy.mean() for completion, _ in pairs], dtype=torch.float64),
        lengths_B=torch.tensor([len(completion.token_ids) for completion, _ in pairs], dtype=torch.float64),
        parts_BK=parts_BK,
        part_weights_K=torch.tensor(list(weights.values()), dtype=torch.float64),
        draws_B=draws_B,
        greedy_B=torch.tensor([float("nan") if s.greedy is None else s.greedy for s in kept for _ in s.rewards], dtype=torch.float64),
        tracked_B=None if rates is None else torch.tensor(rates, dtype=torch.float64),
        reference_B=torch.tensor([completion.source == REFERENCE for completion, _ in pairs]),
        ranks_BK=ranks_of(dict(zip(weights, parts_BK.unbind(1), strict=True)), state.config),
    )


def _parts(rewards: Sequence[Reward]) -> tuple[dict[str, float], Tensor]:
    """The weight of every part of the rewards, and their values (B, K), 0 where a reward lacks the part; the total where a task gives no parts."""
    weights = {name: reward.weights.get(name, 1.0) for reward in rewards for name in reward.parts}
    if not weights:
        return {"total": 1.0}, torch.tensor([[reward.total] for reward in rewards], dtype=torch.float64)
    return weights, torch.tensor([[reward.parts.get(name, 0.0) for name in weights] for reward in rewards], dtype=torch.float64)


def _items(state: TrainState, kept: Sequence[ScoredGroup]) -> Tensor | None:
    """The item of each token (B, T); None where the task writes no lists."""
    if state.config.task not in ITEMS:
        return None
    found = [line_items(c, state.writer.decode, behind=s.group.prompt.hint_ids) for s in kept for c in s.group.completions]
    return torch.from_numpy(pad(found, fill=OUTSIDE, dtype=np.int64)[0])


def _answers(state: TrainState, kept: Sequence[ScoredGroup]) -> Tensor:
    """1.0 on the tokens of each completion's final answer (B, T)."""
    masks = [answer_mask(state.config.task, c, state.writer.decode) for s in kept for c in s.group.completions]
    return torch.from_numpy(pad(masks, fill=0.0, dtype=np.float32)[0])


def _before(state: TrainState, kept: Sequence[ScoredGroup], rows: Rows, foreign_B: Tensor, reference_B: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probs under the policy that wrote each rollout, and under the policy before the update, (B, T) both.

    A replayed rollout brings the first with it, and a pass is made for the second; a worked answer has the second for both. For the
    others, in float32, the sampler's own agree with the training forward to rounding (tested), so no pass is spent on them; in half
    precision they differ by more than an update moves them, so the training forward is asked.
    """
    values, _ = pad([c.logp for s in kept for c in s.group.completions], fill=0.0, dtype=np.float32)
    written_BT = torch.from_numpy(values).to(rows.mask_BT.device)
    if state.model.dtype != torch.float32:
        policy_BT = score_quietly(state, rows)
        return torch.where((foreign_B & ~reference_B)[:, None], written_BT, policy_BT), policy_BT
    if not foreign_B.any():
        return written_BT, written_BT
    policy_BT, others = written_BT.clone(), foreign_B.nonzero().squeeze(1)
    scored_BT = score_quietly(state, rows.select(others))
    policy_BT[others, : scored_BT.shape[1]] = scored_BT
    return torch.where(reference_B[:, None], policy_BT, written_BT), policy_BT


@torch.no_grad()
def score_quietly(state: TrainState, rows: Rows) -> Tensor:
    """Log-probs (B, T) under the policy as it is now, without gradient."""
    return in_parts(rows, state.config.micro_batch, lambda part: state.score(part)[0])


def in_parts(rows: Rows, size: int, score) -> Tensor:
    """`score` applied to at most `size` rows at a time (0: SCORING_ROWS), put back together as (B, T)."""
    out_BT = torch.zeros_like(rows.mask_BT)
    for part in torch.arange(len(rows), device=rows.mask_BT.device).split(size or SCORING_ROWS):
        scored = score(rows.select(part))
        out_BT[part, : scored.shape[1]] = scored
    return out_BT

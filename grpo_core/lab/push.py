"""The gradient every token of a batch would get from a method, by the very functions that train it.

    push = −∂loss/∂logp of the token,  loss as in algorithms/loss.py over the whole batch as one update

A positive push makes the token likelier. What the push of one token does to others, through the weights they share, is not in it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from grpo_core.algorithms.groups import tied
from grpo_core.algorithms.loss import Objective, loss_batch, policy_loss
from grpo_core.algorithms.segments import OUTSIDE
from grpo_core.algorithms.values import Facts
from grpo_core.config import RunConfig
from grpo_core.lab.batch import Array, Push, RecordedBatch
from grpo_core.method_row import Method
from grpo_core.objectives import credited, method_of, multipliers_of, objective_of, random_draws, ranks_of


def push_of(batch: RecordedBatch, config: RunConfig, *, after: bool) -> Push:
    """The push of `config`'s method. `after` asks for one more update at the policy after the step's own, else for the first."""
    method, objective = method_of(config), objective_of(config)
    taken_R = _taken(batch, method.sampler)
    if missing := _missing(batch, method, objective, taken_R, after=after):
        nothing_R, nothing_N = np.full(len(batch.reward_R), np.nan), np.full(len(batch.logp_N), np.nan)
        return Push(
            advantage_R=nothing_R,
            advantage_N=nothing_N,
            weight_N=nothing_N,
            push_N=nothing_N,
            clipped_N=np.zeros(len(batch.logp_N), "i1"),
            taken_R=np.zeros(len(nothing_R), "?"),
            missing=missing,
        )
    group_B = torch.from_numpy(np.unique(batch.group_R[taken_R], return_inverse=True)[1])
    facts = _facts(batch, taken_R, config)
    shape = _Shape(batch, taken_R)
    inside_BT = shape.rows(np.ones(len(batch.logp_N)))
    mask_BT = inside_BT * (~facts.rewards_B.isnan() & ~torch.from_numpy(batch.cut_R[taken_R]))[:, None]
    found = credited(method, facts, group_B, inside_BT=inside_BT, item_BT=_items(batch, shape, inside_BT))
    policy_BT = shape.rows(batch.logp_N)
    weights_BT = multipliers_of(method, facts, ids_BT=shape.rows(batch.token_ids_N).long(), mask_BT=mask_BT, group_B=group_B, first_entropy=batch.first_entropy)
    logp_BT = (policy_BT + shape.rows(batch.delta_N) if after else policy_BT.clone()).requires_grad_()
    whole = loss_batch(
        objective,
        before_BT=shape.rows(batch.written_N),
        advantages_BT=found.advantages_BT,
        mask_BT=mask_BT,
        max_length=batch.max_length,
        ref_BT=shape.rows(batch.ref_N) if objective.needs_reference else None,
        multipliers_BT=weights_BT,
        group_B=group_B,
        now_BT=logp_BT.detach(),
        segment_BT=found.segment_BT,
    )
    loss = policy_loss(objective, logp_BT, whole)
    loss.total.backward()
    return Push(
        advantage_R=_spread((found.advantages_BT.sum(1) / inside_BT.sum(1).clamp(min=1)).numpy(), taken_R),
        advantage_N=shape.flat(found.advantages_BT * mask_BT),
        weight_N=shape.flat(mask_BT if weights_BT is None else weights_BT * mask_BT),
        push_N=shape.flat(-logp_BT.grad),
        clipped_N=shape.flat(loss.side_BT).astype("i1"),
        taken_R=taken_R,
        left_out=_left_out(method, objective),
    )


class _Shape:
    """Between the batch's tokens one after another (N,) and padded rows of the rollouts that are taken (B, T), float64."""

    def __init__(self, batch: RecordedBatch, taken_R: Array) -> None:
        self.among_N = taken_R[batch.rollout_N]
        row_R = np.cumsum(taken_R) - 1
        self.row = torch.from_numpy(row_R[batch.rollout_N[self.among_N]])
        self.position = torch.from_numpy(batch.position_N[self.among_N])
        self.size = (int(taken_R.sum()), int(batch.length_R[taken_R].max(initial=0)))

    def rows(self, values_N: Array) -> Tensor:
        out_BT = torch.zeros(self.size, dtype=torch.float64)
        out_BT[self.row, self.position] = torch.from_numpy(np.asarray(values_N[self.among_N], "f8"))
        return out_BT

    def flat(self, values_BT: Tensor) -> Array:
        out_N = np.zeros(len(self.among_N))
        out_N[self.among_N] = values_BT.detach()[self.row, self.position].numpy()
        return out_N


def _taken(batch: RecordedBatch, sampler: str) -> Array:
    """A method that samples again trains on groups with a signal, any other on the prompts drawn first; worked answers and hints are for a method that asks."""
    reference_R = None if sampler == "demonstrated" else batch.reference_R
    if sampler == "hinted" and batch.replaced_R is not None:
        return (batch.first_round_R | batch.hinted_R) & batch.unmarked(batch.replaced_R, reference_R)
    sampled_R = batch.unmarked(batch.hinted_R, reference_R)
    if sampler != "dynamic":
        return batch.first_round_R & sampled_R
    group_R = torch.from_numpy(np.unique(batch.group_R, return_inverse=True)[1])
    rewards_R = torch.tensor(batch.reward_R)  # a copy: what was sent to the process is not writable
    scored_R = ~rewards_R.isnan() & torch.from_numpy(sampled_R)
    return sampled_R & ~batch.surplus_R & ~tied(rewards_R.nan_to_num(), group_R, scored_R).numpy()


def _items(batch: RecordedBatch, shape: _Shape, inside_BT: Tensor) -> Tensor | None:
    """The item of every token (B, T); None unless it was recorded of all."""
    if batch.items_N is None or np.isnan(batch.items_N[shape.among_N]).any():
        return None
    return torch.where(inside_BT > 0, shape.rows(batch.items_N), OUTSIDE).long()


def _facts(batch: RecordedBatch, taken_R: Array, config: RunConfig) -> Facts:
    parts, weights = _parts(batch)
    sums_R = np.bincount(batch.rollout_N, weights=batch.entropy_N, minlength=len(batch.length_R))
    per_rollout = {
        "rewards_B": batch.reward_R,
        "verdicts_B": np.where(np.isnan(batch.reward_R), 0.0, batch.verdict_R),
        "entropies_B": sums_R / np.maximum(batch.length_R, 1),
        "lengths_B": batch.length_R.astype("f8"),
    }
    if batch.greedy_R is not None:
        per_rollout["greedy_B"] = batch.greedy_R
    if batch.tracked_R is not None:
        per_rollout["tracked_B"] = batch.tracked_R
    if batch.reference_R is not None:
        per_rollout["reference_B"] = batch.reference_R
    return Facts(
        **{name: torch.from_numpy(values_R[taken_R]) for name, values_R in per_rollout.items()},
        parts_BK=torch.from_numpy(parts[taken_R]),
        part_weights_K=torch.from_numpy(weights),
        ranks_BK=ranks_of({name: torch.from_numpy(np.nan_to_num(values_R[taken_R])) for name, values_R in batch.parts.items()}, config),
        draws_B=None if batch.step is None else random_draws(config.seed, batch.step, int(taken_R.sum())),
    )


def _parts(batch: RecordedBatch) -> tuple[Array, Array]:
    """The parts of the rewards (R, K) and their weights (K,). A single part is the reward itself, edited or not; a part some lack is 0 there."""
    names = list(batch.parts)
    if len(names) < 2:
        return batch.reward_R[:, None], np.ones(1)
    parts_RK = np.nan_to_num(np.stack([batch.parts[name] for name in names], axis=1))
    return parts_RK, np.array([batch.part_weights.get(name, np.nan) for name in names])


def _adds_up(batch: RecordedBatch) -> bool:
    """Whether the parts of every reward, weighted, are the reward."""
    parts_RK, weights_K = _parts(batch)
    return bool(np.allclose((parts_RK @ weights_K)[~np.isnan(batch.reward_R)], batch.reward_R[~np.isnan(batch.reward_R)], atol=1e-6))


def _missing(batch: RecordedBatch, method: Method, objective: Objective, taken_R: Array, *, after: bool) -> str:
    """What the method reads and the record lacks, as the end of a sentence; empty where nothing is missing."""
    reads_entropy = any(c.value == "certainty" and c.weight for c in method.credit) or any("entropy" in w.name for w in method.weights)
    scored_R = ~np.isnan(batch.reward_R)
    if reads_entropy and (np.isnan(batch.entropy_N[taken_R[batch.rollout_N]]).any() or np.isnan(batch.first_entropy)):
        return "the entropies of its tokens, which were not recorded"
    if any(c.value in ("verdict", "correct") for c in method.credit) and (batch.verdict_R[scored_R] == 0).any():
        return "whether each rollout is correct, which was not recorded"
    if method.spread == "ranks" and (batch.items_N is None or np.isnan(batch.items_N[taken_R[batch.rollout_N]]).any()):
        return "the items of ranked lists, which only runs of the ranking task record"
    if any(c.value in ("parts", "ranks") for c in method.credit) and not _adds_up(batch):
        return "reward parts that add up to the rewards with the weights recorded" + ("" if batch.part_weights else ", and no weights were")
    if method.needs_greedy and (batch.greedy_R is None or np.isnan(batch.greedy_R[taken_R]).all()):
        return "the reward of a greedy completion of every prompt, which was not recorded"
    if method.sampler == "demonstrated" and (batch.reference_R is None or not batch.reference_R[taken_R].any()):
        return "worked answers as rows of its groups, which only a run of such a method records"
    if any(c.drop != "none" for c in method.credit) and batch.step is None:
        return "the number of the step, from which it draws what to leave out"
    if method.needs_hidden_states:
        return "the hidden states that predicted its tokens, which a record does not hold; where the method itself trained, its weights are in the record"
    if any(c.base == "tracked" for c in method.credit) and (batch.tracked_R is None or np.isnan(batch.tracked_R).any()):
        return "a success rate tracked for each prompt, which only a run of such a method records"
    if objective.needs_reference and np.isnan(batch.ref_N).any():
        return "log-probs under a reference model, which were not recorded"
    if after and not batch.rescored:
        return "log-probs after the step's updates, which were not recorded for every rollout"
    return "" if taken_R.any() else "a group with different rewards, which this step does not have"


def _left_out(method: Method, objective: Objective) -> tuple[str, ...]:
    masked = objective.answer_weight != 1 and any(p.knob == "llds_coef" for p in method.penalties)
    out = ["LLDS-MA's weight of the final answer, as the record does not mark answers"] if masked else []
    if method.sampler == "replay_success":
        out.append("stored successes beyond those that the recorded run inserted itself")
    if method.sampler == "hinted":
        out.append("prompts sampled again behind a hint, beyond those that the recorded run hinted itself")
    return tuple(out)


def _spread(values_B: Array, taken_R: Array) -> Array:
    out_R = np.zeros(len(taken_R))
    out_R[taken_R] = values_B
    return out_R

"""Credit and ratios for parts of a completion: ranks of a list (Rank-GRPO), steps of a trajectory (GiGPO), actions of a system (HRPO).

No task here takes several turns yet, so no method trains with the last two; they are complete for whoever brings rows with their
segments. Shape letters here: N rows (completions or steps), K ranks, B and T as elsewhere. Arithmetic is in the tensors' own type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from grpo_core.algorithms.registry import Registry

RANK_EPSILON = 1e-4
OUTSIDE, END = -1, -2
"""What a token is that belongs to no item: nothing of the list, or its end token. Items are numbered from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Earned:
    """What the rollouts of a batch earned, before it is spread over their tokens: advantages (B,), rank rewards (B, K), and who is compared."""

    advantages_B: Tensor
    ranks_BK: Tensor | None
    group_B: Tensor
    scored_B: Tensor


SPREADS: Registry[Callable[[Earned, Tensor, Tensor | None], Tensor]] = Registry("spread over tokens")
"""Each takes what was earned, the completions' mask (B, T) and their items (B, T), and gives every token's advantage (B, T)."""


@SPREADS.register("rows")
def over_rows(earned: Earned, mask_BT: Tensor, item_BT: Tensor | None) -> Tensor:
    """The rollout's advantage on each of its tokens."""
    return earned.advantages_B[:, None] * mask_BT


@SPREADS.register("ranks")
def over_ranks(earned: Earned, mask_BT: Tensor, item_BT: Tensor | None) -> Tensor:
    """Each item's own advantage on its tokens, compared with the same rank of the group, and the shaping of the list's length (`spread_ranks`).

    Rank-GRPO; `item_BT` numbers the items, with OUTSIDE and END. ε is 1e-6, as for the other methods here.
    """
    assert earned.ranks_BK is not None and item_BT is not None
    credit_BK, ranks = torch.zeros_like(earned.ranks_BK), earned.ranks_BK.shape[1]
    for group in earned.group_B.unique():
        rows = ((earned.group_B == group) & earned.scored_B).nonzero().squeeze(1)
        if len(rows) > 1:
            credit_BK[rows] = rank_credit(earned.ranks_BK[rows], epsilon=1e-6)
    items_B = item_BT.amax(1) + 1
    ending_B = torch.where(items_B == ranks, 1.0, torch.where(items_B < ranks, -1.0, 0.0))
    return spread_ranks(credit_BK, item_BT, end_BT=item_BT == END, ending_B=ending_B) * earned.scored_B[:, None] * mask_BT


def ratio_segments(item_BT: Tensor, ranks: int) -> Tensor:
    """Which tokens share a ratio (B, T): those of an item, all of the items beyond the list, and the end token for itself; −1 outside."""
    return torch.where(item_BT == END, ranks + 1, item_BT.clamp(max=ranks))


def discounts(ranks: int) -> Tensor:
    """d_j = 1/log2(j + 2) from 0, (K,) float64 (Rank-GRPO, `reward_funcs.py`)."""
    return torch.tensor([1 / math.log2(j + 2) for j in range(ranks)], dtype=torch.float64)


def rank_rewards(hits_NK: Tensor, *, decay: str = "log_decay") -> Tensor:
    """Reward of every rank (N, K) from which items were hits (Rank-GRPO, `reward_funcs.py` of yaochenzhu/Rank-GRPO).

    `log_decay`: Σ_{j≥k} hit_j · d_j with d_0 = 1 and d_j = 1/log2(j + 2) from 0, what the list earns from this rank on; `exp_inf`: the hit
    alone. Raises ValueError for another name.
    """
    if decay == "exp_inf":
        return hits_NK.clone()
    if decay != "log_decay":
        raise ValueError(f"unknown decay {decay!r}; known: exp_inf, log_decay")
    return (hits_NK * discounts(hits_NK.shape[1]).to(hits_NK.dtype)).flip(1).cumsum(1).flip(1)


def rank_credit(rewards_NK: Tensor, *, epsilon: float = RANK_EPSILON) -> Tensor:
    """(r − mean)/(std + ε) over the group's rows at each rank (N, K), std over n−1; exactly 0 where all are equal (Rank-GRPO)."""
    if len(rewards_NK) < 2:
        raise ValueError(f"rank_credit compares rows of a group, got {len(rewards_NK)}; it needs at least 2")
    tied_1K = (rewards_NK == rewards_NK[:1]).all(0, keepdim=True)
    centred_NK = rewards_NK - rewards_NK.mean(0, keepdim=True)
    return (centred_NK / (rewards_NK.std(0, keepdim=True) + epsilon)).masked_fill(tied_1K, 0.0)


def spread_ranks(credit_BK: Tensor, rank_BT: Tensor, *, end_BT: Tensor, ending_B: Tensor, overflow: float = 0.1, ending: float = 0.1) -> Tensor:
    """Each token's advantage (B, T): that of its rank, then Rank-GRPO's shaping of the list's length, added after the norm.

    `rank_BT` is the token's rank from 0, K and above for items beyond the list (−`overflow` each token) and −1 outside; `end_BT` marks the
    end token, which gets `ending` times the row's `ending_B`: 1 where the list has exactly K items, −1 where it ends early, 0 where it is longer,
    as each token beyond it is charged already.
    """
    ranks = credit_BK.shape[1]
    inside_BT = (rank_BT >= 0) & (rank_BT < ranks) & ~end_BT
    spread_BT = credit_BK.gather(1, rank_BT.clamp(0, ranks - 1)) * inside_BT
    beyond_BT = (rank_BT >= ranks) & ~end_BT
    return spread_BT - overflow * beyond_BT + ending * ending_B.to(spread_BT.dtype)[:, None] * end_BT


def segment_log_ratio(logp_BT: Tensor, before_BT: Tensor, segment_BT: Tensor) -> Tensor:
    """Mean log-ratio of the token's segment on each of its tokens (B, T), the log of a geometric mean; 0 outside segments, which are −1.

    Rank-GRPO clips it at 0.06 below and 0.08 above.
    """
    inside_BT = segment_BT >= 0
    change_BT = (logp_BT - before_BT) * inside_BT
    place_BT, count = segment_BT.clamp(min=0), int(segment_BT.max()) + 1 if segment_BT.numel() else 1
    zeros = torch.zeros(len(logp_BT), max(count, 1), dtype=change_BT.dtype, device=change_BT.device)
    sums_BS = zeros.scatter_add(1, place_BT, change_BT)
    tokens_BS = zeros.scatter_add(1, place_BT, inside_BT.to(change_BT.dtype))
    return (sums_BS / tokens_BS.clamp(min=1)).gather(1, place_BT) * inside_BT


def returns_to_go(rewards_N: Tensor, trajectory_N: Tensor, *, gamma: float = 0.95) -> Tensor:
    """R_t = r_t + γ·R_{t+1} inside each trajectory (N,); the steps of one stand in order of time."""
    out_N, ahead = torch.zeros_like(rewards_N), {}
    for n in range(len(rewards_N) - 1, -1, -1):
        which = int(trajectory_N[n])
        ahead[which] = out_N[n] = rewards_N[n] + gamma * ahead.get(which, 0.0)
    return out_N


def gigpo(rewards_N: Tensor, trajectory_N: Tensor, anchors: Sequence[Hashable], *, gamma: float = 0.95, weight: float = 1.0) -> Tensor:
    """A_E + w · A_S of the steps of one prompt's trajectories (N,) (GiGPO, arXiv:2505.10978), both minus a mean and without a std.

    A_E compares the trajectories' summed rewards, each trajectory counted once; the original code averages over steps, so that long
    ones weigh more. A_S compares returns to go of steps whose observation (`anchors`) is the same; a step alone with its own has 0.
    """
    which_N = torch.unique(trajectory_N, return_inverse=True)[1]
    totals_M = torch.zeros(int(which_N.max()) + 1, dtype=rewards_N.dtype).index_add(0, which_N, rewards_N)
    episode_N = (totals_M - totals_M.mean())[which_N] if len(totals_M) > 1 else totals_M[which_N]
    clusters: dict[Hashable, list[int]] = {}
    for n, anchor in enumerate(anchors):
        clusters.setdefault(anchor, []).append(n)
    returns_N, step_N = returns_to_go(rewards_N, trajectory_N, gamma=gamma), torch.zeros_like(rewards_N)
    for members in clusters.values():
        step_N[members] = returns_N[members] - returns_N[members].mean()
    return episode_N + weight * step_N


def hrpo(rewards_M: Tensor, trajectory_N: Tensor, action_rewards_N: Tensor, *, weight: float = 1.0, epsilon: float = 1e-6) -> Tensor:
    """(R − mean)/std of the finished systems, on each of their actions, plus w times the action's own reward (N,) (HRPO, arXiv:2506.08507).

    Assumed: the paper's formula could not be obtained; this is the reading that its text allows, std over n−1, w free. `trajectory_N`
    numbers each action's system among `rewards_M`. Systems that all earn the same are not compared.
    """
    tied = len(rewards_M) < 2 or bool((rewards_M == rewards_M[0]).all())
    compared_M = torch.zeros_like(rewards_M) if tied else (rewards_M - rewards_M.mean()) / (rewards_M.std() + epsilon)
    return compared_M[trajectory_N] + weight * action_rewards_N

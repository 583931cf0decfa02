"""Token weights W: detached multipliers of the policy term, one (B, T) tensor per rule; a method's rules are multiplied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from grpo_core.algorithms.nthr import Pull
from grpo_core.algorithms.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What weight rules look at: right-padded completions, their loss mask, and per row its group, reward advantage and mean entropy.

    `advantages_B` is r − baseline, before anything else is added to it. `first_entropy` is the mean of the entropies of the
    run's first rollouts. Entropies are in nats per token. `reference_B` marks worked answers, None where there are none. `pull` is what NTHR
    found, None where it was not measured.
    """

    ids_BT: Tensor
    mask_BT: Tensor
    group_B: Tensor
    advantages_B: Tensor
    entropies_B: Tensor
    first_entropy: float
    reference_B: Tensor | None = None
    pull: Pull | None = None


class Ruled(Protocol):
    """What `token_weights` reads of a method's weight: its name in the registry and its number."""

    name: str
    value: float


WEIGHTS: Registry[Callable[[Written, float], Tensor]] = Registry("token weight")

ALIGNMENT = 0.6
"""λ of GRAO (arXiv:2508.07750): with the group normalised over its G + 1 rows its alignment term is (1 + λ) times the policy term and λ/G
more imitation, so that it only scales the learning rate and β (variants.md E5)."""


def token_weights(written: Written, rules: Sequence[Ruled]) -> Tensor:
    """The product of the rules, (B, T); 1 where none has anything to say."""
    weights_BT = torch.ones_like(written.mask_BT)
    for rule in rules:
        weights_BT = weights_BT * WEIGHTS[rule.name](written, rule.value)
    return weights_BT


def conflict_runs(ids_BT: Tensor, mask_BT: Tensor, group_B: Tensor, advantages_B: Tensor) -> tuple[Tensor, Tensor]:
    """Which tokens lie in a conflict run from the head, and which in one from the tail, both (B, T) bool.

    A token conflicts if it stands at the same position in at least one row with A > 0 and one with A < 0 of its group; only the
    unbroken run that begins with the first token counts, and with rows aligned at their ends the run that ends with the last.
    Rows with A = 0 take no part (GTPO, arXiv:2508.03772, as in its `build_conflict_mask`). Text that others wrote into a completion, where the
    mask has holes, does not count: positions and ends are those of the trained tokens.
    """
    trained_BT = mask_BT > 0
    order_BT = (~trained_BT).long().argsort(dim=1, stable=True)  # trained tokens first, in order
    place_BT = order_BT.argsort(dim=1)
    closed_BT, inside_BT = ids_BT.gather(1, order_BT), trained_BT.gather(1, order_BT)
    head_BT = _initial_run(closed_BT, inside_BT, group_B, advantages_B)
    slots = torch.arange(ids_BT.shape[1], device=ids_BT.device)
    mirrored_BT = trained_BT.sum(1, keepdim=True) - 1 - slots  # position counted from the last token; its own inverse
    index_BT = mirrored_BT.clamp(min=0)
    tail_BT = _initial_run(closed_BT.gather(1, index_BT), mirrored_BT >= 0, group_B, advantages_B).gather(1, index_BT) & inside_BT
    return head_BT.gather(1, place_BT) & trained_BT, tail_BT.gather(1, place_BT) & trained_BT


def _initial_run(ids_BT: Tensor, inside_BT: Tensor, group_B: Tensor, advantages_B: Tensor) -> Tensor:
    """(B, T) True while every token of the row so far also stands at its position in a row of the other sign."""
    width, vocabulary = ids_BT.shape[1], int(ids_BT.max()) + 1
    slots = torch.arange(width, device=ids_BT.device)
    places_N = ((group_B[:, None] * width + slots) * vocabulary + ids_BT).flatten()
    _, place_N = places_N.unique(return_inverse=True)

    def held_by(rows_B: Tensor) -> Tensor:
        held_K = torch.zeros(int(place_N.max()) + 1, device=ids_BT.device)
        return (held_K.index_add(0, place_N, (inside_BT & rows_B[:, None]).flatten().float()) > 0)[place_N].view_as(ids_BT)

    conflict_BT = held_by(advantages_B > 0) & held_by(advantages_B < 0) & inside_BT & (advantages_B != 0)[:, None]
    return conflict_BT.long().cumprod(1).bool()


def _conflict_factor(run_BT: Tensor, advantages_B: Tensor, amplify: float) -> Tensor:
    """`amplify` on conflict tokens of rows with A > 0, 0 on those of rows with A < 0, 1 elsewhere."""
    inside_B1 = torch.where(advantages_B[:, None] > 0, amplify, 0.0).float()
    return torch.where(run_BT, inside_B1, 1.0)


@WEIGHTS.register("conflict")
def conflict(written: Written, amplify: float) -> Tensor:
    """λ of GTPO (arXiv:2508.03772): conflict tokens weigh `amplify` in better completions and nothing in worse ones."""
    head_BT, tail_BT = conflict_runs(written.ids_BT, written.mask_BT, written.group_B, written.advantages_B)
    return _conflict_factor(head_BT | tail_BT, written.advantages_B, amplify)


@WEIGHTS.register("conflict_released")
def conflict_released(written: Written, amplify: float) -> Tensor:
    """λ as GTPO's released code has it: λ_head · λ_tail, so `amplify`² where the runs overlap, over max(1, longer of the two runs)."""
    runs = conflict_runs(written.ids_BT, written.mask_BT, written.group_B, written.advantages_B)
    head_BT, tail_BT = (_conflict_factor(run_BT, written.advantages_B, amplify) for run_BT in runs)
    longest_B1 = torch.maximum(*(run_BT.sum(1, keepdim=True) for run_BT in runs))
    return head_BT * tail_BT / longest_B1.clamp(min=1)


@WEIGHTS.register("exp_advantage")
def exp_advantage(written: Written, temperature: float) -> Tensor:
    """exp(A / τ) on every token of a rollout: better ones weigh more, worse ones less (RED-Weight, arXiv:2509.24203)."""
    return (written.advantages_B / temperature).exp().to(written.mask_BT.dtype)[:, None].expand_as(written.mask_BT)


@WEIGHTS.register("nthr")
def nthr(written: Written, beta: float) -> Tensor:
    """η = 2·|½ − p| on tokens of worse completions whose s⁻ is above β times the anchor of their group, 1 elsewhere (arXiv:2505.18830, §5.3)."""
    assert written.pull is not None
    pull = written.pull
    held_BT = (pull.scores_BT > beta * pull.anchor_B[:, None]) & (written.advantages_B < 0)[:, None]  # no comparison with NaN holds
    return torch.where(held_BT, pull.damping_B[:, None], 1.0).to(written.mask_BT.dtype)


@WEIGHTS.register("mirror")
def mirror(written: Written, temperature: float) -> Tensor:
    """1 / (1 + τ) on every token (OPMD, arXiv:2505.17826): the larger the temperature, the closer the policy stays."""
    return torch.full_like(written.mask_BT, 1 / (1 + temperature))


@WEIGHTS.register("reference")
def reference(written: Written, imitation: float) -> Tensor:
    """(1 + λ)·n/G on sampled rows, (βG + λ)·n/G on the worked answer of a group of G sampled rows and n in all; β = `imitation`.

    Under the normaliser `sequence`, with A over all n rows, the loss is then −J of GRAO (arXiv:2508.07750): J = (1/G) Σ A_i J_i + β A_y J_y
    + (λ/G) Σ A_i (J_i − J_y), J_i the mean log-prob of row i's tokens. A group without a worked answer has the first and the last term.
    """
    inside_B = (written.mask_BT > 0).any(1).double()
    worked_B = torch.zeros_like(inside_B, dtype=torch.bool) if written.reference_B is None else written.reference_B

    def in_group(values_B: Tensor) -> Tensor:
        return torch.zeros_like(values_B).index_add(0, written.group_B, values_B)[written.group_B]

    sampled_B = in_group(inside_B * ~worked_B).clamp(min=1)
    factor_B = torch.where(worked_B, imitation * sampled_B + ALIGNMENT, 1 + ALIGNMENT) * in_group(inside_B) / sampled_B
    return factor_B.to(written.mask_BT.dtype)[:, None].expand_as(written.mask_BT)


@WEIGHTS.register("entropy_filter")
def entropy_filter(written: Written, ceiling: float) -> Tensor:
    """δ of GTPO: completions with mean entropy above `ceiling` are left out, unless the run already began above it.

    Below ln 2 nats the likeliest token has on average more than half of the probability.
    """
    if written.first_entropy > ceiling:
        return torch.ones_like(written.mask_BT)
    return entropy_filter_always(written, ceiling)


@WEIGHTS.register("entropy_filter_always")
def entropy_filter_always(written: Written, ceiling: float) -> Tensor:
    """Completions with mean entropy above `ceiling` are left out, wherever the run began (GTPO's released code)."""
    return (written.entropies_B <= ceiling).to(written.mask_BT.dtype)[:, None].expand_as(written.mask_BT)

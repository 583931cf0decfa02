"""Advantages from rewards: A = whole( Σ_c w_c · Norm_c( value_c − Base_c(group) ) · Scale_c ), one value per rollout.

Rows of one group share an integer in `group_B`. Rows whose scoring failed have `scored_B` False: they are left out of every
statistic and get advantage 0. Arithmetic is in float64, and a group tied in the value is a case of its own, never an epsilon:
its deviations are exactly 0. Only a norm over the whole batch may still move it. A value of several columns (the parts of a reward)
is a summand for each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from grpo_core.algorithms.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of every rollout, (B,) each: total reward, +1 if correct and −1 if not, mean token entropy in nats, tokens.

    `parts_BK` are the unweighted parts of each reward, `part_weights_K` what they weigh in its total. `draws_B` is a random number in
    [0, 1) per rollout, for what is left out at random, `greedy_B` the reward of its prompt's greedy completion, `tracked_B` the success
    rate of its prompt that a memory brings. `reference_B` marks worked answers among the rollouts. `ranks_BK` is what
    every item of a ranked list earned.
    """

    rewards_B: Tensor
    verdicts_B: Tensor | None = None
    entropies_B: Tensor | None = None
    lengths_B: Tensor | None = None
    parts_BK: Tensor | None = None
    part_weights_K: Tensor | None = None
    draws_B: Tensor | None = None
    greedy_B: Tensor | None = None
    tracked_B: Tensor | None = None
    reference_B: Tensor | None = None
    ranks_BK: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """How the rollouts of a batch belong together, (B,) each: group number, whether scored and compared, tokens; the rest as in Facts."""

    group_B: Tensor
    scored_B: Tensor
    lengths_B: Tensor
    draws_B: Tensor | None = None
    greedy_B: Tensor | None = None
    tracked_B: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRule:
    """A baseline (B,) of a value (B,) and the number its row gives it. `compares` says that a tied group has advantage 0 under it."""

    of: Callable[[Tensor, Rows, float], Tensor]
    compares: bool = True


VALUES: Registry[Callable[[Facts], Tensor]] = Registry("advantage value")
BASES: Registry[BaseRule] = Registry("baseline")
NORMS: Registry[Callable[[Tensor, Tensor, Rows, float], Tensor]] = Registry("advantage norm")
SCALES: Registry[Callable[[Tensor], Tensor]] = Registry("advantage scale")
DROPS: Registry[Callable[[Tensor, Rows], Tensor]] = Registry("drop rule")
"""Each gives the rollouts (B,) that are left out of their group: of its statistics, and with advantage 0."""
WHOLES: Registry[Callable[[Tensor, Tensor, float], Tensor]] = Registry("norm over the batch")
"""Each takes the sum of all summands (B,), which rollouts are scored, and epsilon."""


class Summand(Protocol):
    """What `credit` reads of a component: names in the registries and a weight."""

    value: str
    base: str
    norm: str
    scale: str
    drop: str
    weight: float
    at: float


def credit(
    facts: Facts, group_B: Tensor, scored_B: Tensor, components: Sequence[Summand], *, whole: str = "none", epsilon: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Advantages and baselines (B,), float64.

    The baseline returned is that of the first component, columns weighted and added up. Raises ValueError for a name not in the
    registries.
    """
    advantages_B = torch.zeros(len(group_B), dtype=torch.float64)
    lengths_B = torch.ones_like(advantages_B) if facts.lengths_B is None else facts.lengths_B.double()
    rows = Rows(
        group_B=group_B, scored_B=scored_B, lengths_B=lengths_B, draws_B=facts.draws_B, greedy_B=facts.greedy_B, tracked_B=facts.tracked_B
    )
    baselines: list[Tensor] = []
    for component in components:
        baseline_B = torch.zeros_like(advantages_B)
        for values_B, weight in _columns(component.value, facts):
            normed_B, base_B = _compared(component, values_B.masked_fill(~scored_B, 0.0), rows, epsilon)
            advantages_B = advantages_B + component.weight * weight * SCALES[component.scale](normed_B) * normed_B
            baseline_B = baseline_B + weight * base_B
        baselines.append(baseline_B)
    return WHOLES[whole](advantages_B.masked_fill(~scored_B, 0.0), scored_B, epsilon), baselines[0]


def _columns(name: str, facts: Facts) -> list[tuple[Tensor, float]]:
    """A value (B,) with weight 1, or its columns (B, K): parts of a reward with their weights, others with weight 1."""
    values = VALUES[name](facts).double()
    if values.dim() == 1:
        return [(values, 1.0)]
    weights = facts.part_weights_K.tolist() if name == "parts" and facts.part_weights_K is not None else [1.0] * values.shape[1]
    return list(zip(values.unbind(1), weights, strict=True))


def _compared(component: Summand, values_B: Tensor, rows: Rows, epsilon: float) -> tuple[Tensor, Tensor]:
    """Norm(value − base) and the base, (B,) each; 0 for rollouts that are not scored, left out or without a base, and for tied groups if compared."""
    base = BASES[component.base]
    rows = replace(rows, scored_B=rows.scored_B & ~DROPS[component.drop](values_B, rows))
    base_B = base.of(values_B, rows, component.at)
    void_B = ~rows.scored_B | base_B.isnan()
    if base.compares:
        void_B = void_B | tied(values_B, rows.group_B, rows.scored_B)
    centred_B = (values_B - base_B).masked_fill(void_B, 0.0)
    return NORMS[component.norm](centred_B, values_B, rows, epsilon), base_B


def tied(rewards_B: Tensor, group_B: Tensor, scored_B: Tensor) -> Tensor:
    """(B,) True where all scored rewards of the row's group are equal, or fewer than two rows are scored."""
    n = int(group_B.max()) + 1 if len(group_B) else 0
    high = torch.full((n,), -torch.inf, dtype=rewards_B.dtype).scatter_reduce(0, group_B, rewards_B.masked_fill(~scored_B, -torch.inf), "amax")
    low = torch.full((n,), torch.inf, dtype=rewards_B.dtype).scatter_reduce(0, group_B, rewards_B.masked_fill(~scored_B, torch.inf), "amin")
    return (high <= low)[group_B]


@VALUES.register("outcome")
def outcome(facts: Facts) -> Tensor:
    """The total reward."""
    return facts.rewards_B


@VALUES.register("verdict")
def verdict(facts: Facts) -> Tensor:
    """+1 for a correct rollout, −1 for a wrong one (arXiv:2506.01347 §2)."""
    assert facts.verdicts_B is not None
    return facts.verdicts_B


@VALUES.register("correct")
def correct(facts: Facts) -> Tensor:
    """1 for a correct rollout, 0 for a wrong one."""
    assert facts.verdicts_B is not None
    return (facts.verdicts_B + 1) / 2


@VALUES.register("parts")
def parts(facts: Facts) -> Tensor:
    """Every part of the reward for itself, (B, K) (GDPO, arXiv:2601.05242)."""
    assert facts.parts_BK is not None
    return facts.parts_BK


@VALUES.register("ranks")
def ranks(facts: Facts) -> Tensor:
    """What every item of the list earned, (B, K) (Rank-GRPO)."""
    assert facts.ranks_BK is not None
    return facts.ranks_BK


@VALUES.register("certainty")
def certainty(facts: Facts) -> Tensor:
    """−⟨H⟩, the mean token entropy of the completion with its sign turned (GTPO, arXiv:2508.03772)."""
    assert facts.entropies_B is not None
    return -facts.entropies_B


@VALUES.register("success")
def success(facts: Facts) -> Tensor:
    """1 for a correct rollout, 0 for a wrong one."""
    assert facts.verdicts_B is not None
    return (facts.verdicts_B > 0).double()


def mean_base(rewards_B: Tensor, rows: Rows, number: float = 0.0) -> Tensor:
    """Mean reward of the group's scored rollouts (GRPO, arXiv:2402.03300)."""
    return _group_sum(rewards_B * rows.scored_B, rows) / _group_count(rows).clamp(min=1)


def leave_one_out_base(rewards_B: Tensor, rows: Rows, number: float = 0.0) -> Tensor:
    """Mean reward of the other scored rollouts of the group (RLOO, arXiv:2402.14740)."""
    others_B = _group_sum(rewards_B * rows.scored_B, rows) - rewards_B * rows.scored_B
    return others_B / (_group_count(rows) - rows.scored_B.double()).clamp(min=1)


def length_weighted_base(rewards_B: Tensor, rows: Rows, number: float = 0.0) -> Tensor:
    """Mean reward of the group weighted by length, Σ l·r / Σ l: the baseline of least variance where a rollout's gradient grows with √l.

    OPO (arXiv:2505.23585).
    """
    weight_B = rows.lengths_B * rows.scored_B
    return _group_sum(rewards_B * weight_B, rows) / _group_sum(weight_B, rows).clamp(min=1)


def second_best_base(rewards_B: Tensor, rows: Rows, number: float = 0.0) -> Tensor:
    """The group's second-highest reward, which is the highest where two share it (pass@k, arXiv:2503.19595); 0 for a single rollout."""
    out_B = torch.zeros_like(rewards_B)
    for group in rows.group_B.unique():
        members_B = rows.group_B == group
        known = rewards_B[members_B & rows.scored_B]
        if len(known) > 1:
            out_B[members_B] = known.topk(2).values[1]
    return out_B


def zero_base(rewards_B: Tensor, rows: Rows, number: float = 0.0) -> Tensor:
    """No baseline: every rollout stands for itself, whatever its group did (REINFORCE)."""
    return torch.zeros_like(rewards_B)


def below_mean_base(rewards_B: Tensor, rows: Rows, number: float) -> Tensor:
    """Mean reward of the group less `number`, so that every rollout is pushed up by that much more (AsymRE, arXiv:2506.20520)."""
    return mean_base(rewards_B, rows) - number


def log_average_exp_base(rewards_B: Tensor, rows: Rows, number: float) -> Tensor:
    """τ · log mean exp(r / τ) over the group's scored rollouts, τ = `number`: the mean for large τ, the maximum for small.

    OPMD (arXiv:2505.17826), after the log-partition function of Kimi k1.5 (arXiv:2501.12599).
    """
    highest_B = _group_highest(rewards_B, rows)
    risen_B = ((rewards_B - highest_B).clamp(max=0) / number).exp() * rows.scored_B
    return highest_B + number * (_group_sum(risen_B, rows) / _group_count(rows).clamp(min=1)).clamp(min=1e-300).log()


def greedy_base(rewards_B: Tensor, rows: Rows, number: float = 0.0) -> Tensor:
    """The reward of the prompt's greedy completion (ReMax, arXiv:2310.10505); NaN where it could not be scored."""
    assert rows.greedy_B is not None
    return rows.greedy_B.double()


def tracked_base(rewards_B: Tensor, rows: Rows, number: float = 0.0) -> Tensor:
    """p̂ of the rollout's prompt, tracked over earlier steps (SPO, arXiv:2509.13232)."""
    assert rows.tracked_B is not None
    return rows.tracked_B.double()


BASES.register("mean")(BaseRule(of=mean_base))
BASES.register("below_mean")(BaseRule(of=below_mean_base, compares=False))
BASES.register("log_average_exp")(BaseRule(of=log_average_exp_base))
BASES.register("leave_one_out")(BaseRule(of=leave_one_out_base))
BASES.register("length_weighted")(BaseRule(of=length_weighted_base))
BASES.register("second_best")(BaseRule(of=second_best_base))
BASES.register("greedy")(BaseRule(of=greedy_base, compares=False))
BASES.register("zero")(BaseRule(of=zero_base, compares=False))
BASES.register("tracked")(BaseRule(of=tracked_base, compares=False))


@NORMS.register("none")
def no_norm(centred_B: Tensor, rewards_B: Tensor, rows: Rows, epsilon: float) -> Tensor:
    """r − base as it is (Dr. GRPO, arXiv:2503.20783; RLOO)."""
    return centred_B


@NORMS.register("std")
def std_norm(centred_B: Tensor, rewards_B: Tensor, rows: Rows, epsilon: float) -> Tensor:
    """Divided by the group's standard deviation over n−1 plus epsilon (TRL: 1e-4, verl: 1e-6)."""
    return centred_B / (_group_variance(rewards_B, rows, correction=1).sqrt() + epsilon)


@NORMS.register("std_population")
def std_population_norm(centred_B: Tensor, rewards_B: Tensor, rows: Rows, epsilon: float) -> Tensor:
    """Divided by the group's standard deviation over n plus epsilon."""
    return centred_B / (_group_variance(rewards_B, rows, correction=0).sqrt() + epsilon)


@NORMS.register("variance")
def variance_norm(centred_B: Tensor, rewards_B: Tensor, rows: Rows, epsilon: float) -> Tensor:
    """Divided by the group's variance over n: with values 1 and 0 that is 1/n⁺ for each positive and −1/n⁻ for each negative, times n.

    DisCO's difference of mean scores (arXiv:2505.12366) as an advantage; no epsilon, as tied groups are 0 already.
    """
    return centred_B / _group_variance(rewards_B, rows, correction=0).clamp(min=1e-12)


@NORMS.register("token_whiten")
def token_whiten_norm(centred_B: Tensor, rewards_B: Tensor, rows: Rows, epsilon: float) -> Tensor:
    """Minus the mean and over the standard deviation (n−1) of all tokens of the batch, each with its rollout's value.

    REINFORCE++ (arXiv:2501.03262 Eq. 8), 1e-8 under the root as in verl. A group tied in reward is moved too where lengths differ.
    """
    tokens_B = rows.lengths_B * rows.scored_B
    count = tokens_B.sum().clamp(min=2)
    from_mean_B = centred_B - (centred_B * tokens_B).sum() / count
    return from_mean_B * ((from_mean_B**2 * tokens_B).sum() / (count - 1) + 1e-8).rsqrt()


@NORMS.register("nonzero_share")
def nonzero_share_norm(centred_B: Tensor, rewards_B: Tensor, rows: Rows, epsilon: float) -> Tensor:
    """Divided by the share of rollouts that have a deviation at all, so that groups without signal do not shrink the step.

    α = B / #nonzero of GPG (arXiv:2504.02546), with f_norm = 1.
    """
    live = ((centred_B != 0) & rows.scored_B).sum()
    return centred_B * (rows.scored_B.sum() / live.clamp(min=1))


@NORMS.register("batch_std")
def batch_std_norm(centred_B: Tensor, rewards_B: Tensor, rows: Rows, epsilon: float) -> Tensor:
    """(x − mean)/(std + 1e-8) over the scored rollouts of the batch, std over n−1 (SPO's released code); 0 where all are equal.

    A group tied in the value is moved too.
    """
    known = centred_B[rows.scored_B]
    if len(known) < 2 or (known == known[0]).all():
        return torch.zeros_like(centred_B)
    return (centred_B - known.mean()) / (known.std() + 1e-8)


@SCALES.register("one")
def one(normed_B: Tensor) -> Tensor:
    """Every rollout."""
    return torch.ones_like(normed_B)


@SCALES.register("positives")
def positives(normed_B: Tensor) -> Tensor:
    """Only what lies above the baseline (positive-sample reinforcement, arXiv:2506.01347)."""
    return (normed_B > 0).double()


@SCALES.register("negatives")
def negatives(normed_B: Tensor) -> Tensor:
    """Only what lies below the baseline (negative-sample reinforcement, arXiv:2506.01347)."""
    return (normed_B < 0).double()


@DROPS.register("none")
def nothing_dropped(values_B: Tensor, rows: Rows) -> Tensor:
    """Every scored rollout is compared."""
    return torch.zeros_like(rows.scored_B)


@DROPS.register("balance")
def balance(values_B: Tensor, rows: Rows) -> Tensor:
    """Rollouts below the group's mean, drawn at random until there are no more of them than of the others (RED-Drop, arXiv:2509.24203).

    Those with the smallest draws are left out.
    """
    assert rows.draws_B is not None
    out_B = torch.zeros_like(rows.scored_B)
    low_B = rows.scored_B & (values_B < mean_base(values_B, rows)) & ~tied(values_B, rows.group_B, rows.scored_B)
    for group in rows.group_B.unique():
        members_B = rows.group_B == group
        low = (members_B & low_B).nonzero().squeeze(1)
        surplus = 2 * len(low) - int((members_B & rows.scored_B).sum())
        if surplus > 0:
            out_B[low[rows.draws_B[low].argsort()[:surplus]]] = True
    return out_B


@WHOLES.register("none")
def as_summed(advantages_B: Tensor, scored_B: Tensor, epsilon: float) -> Tensor:
    """The sum of the summands as it is."""
    return advantages_B


@WHOLES.register("batch_std")
def batch_std(advantages_B: Tensor, scored_B: Tensor, epsilon: float) -> Tensor:
    """Divided by the standard deviation (n−1) over the scored rollouts of the batch plus epsilon (GDPO, arXiv:2601.05242).

    The paper takes off the batch's mean first, which is 0 for summands that are centred on their groups; not doing so keeps tied
    groups at exactly 0.
    """
    count = scored_B.sum().clamp(min=2)
    mean = advantages_B.sum() / count
    return advantages_B / ((((advantages_B - mean) ** 2) * scored_B).sum().div(count - 1).sqrt() + epsilon)


def _group_highest(x_B: Tensor, rows: Rows) -> Tensor:
    """(B,) highest value of the row's group among scored rows; 0 where none is scored."""
    n = int(rows.group_B.max()) + 1 if len(rows.group_B) else 0
    found = torch.full((n,), -torch.inf, dtype=x_B.dtype).scatter_reduce(0, rows.group_B, x_B.masked_fill(~rows.scored_B, -torch.inf), "amax")
    return found.masked_fill(found.isinf(), 0.0)[rows.group_B]


def _group_sum(x_B: Tensor, rows: Rows) -> Tensor:
    """(B,) sum over the row's group."""
    n = int(rows.group_B.max()) + 1 if len(rows.group_B) else 0
    return torch.zeros(n, dtype=x_B.dtype).index_add(0, rows.group_B, x_B)[rows.group_B]


def _group_count(rows: Rows) -> Tensor:
    return _group_sum(rows.scored_B.double(), rows)


def _group_variance(rewards_B: Tensor, rows: Rows, *, correction: int) -> Tensor:
    deviation_B = (rewards_B - mean_base(rewards_B, rows)) * rows.scored_B
    return _group_sum(deviation_B**2, rows) / (_group_count(rows) - correction).clamp(min=1)

"""Facts that hold for every batch: padding, row order, micro-batches, and what is equal at the first update."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_core.algorithms.baselines import BASES
from grpo_core.algorithms.credit import credit
from grpo_core.algorithms.group_objectives import GROUP_OBJECTIVES
from grpo_core.algorithms.loss import Objective, loss_batch, policy_loss
from grpo_core.algorithms.normalisers import NORMALISERS
from grpo_core.algorithms.norms import NORMS, WHOLES
from grpo_core.algorithms.penalties import PENALTIES
from grpo_core.algorithms.registry import Registry
from grpo_core.algorithms.segments import SPREADS
from grpo_core.algorithms.selections import DROPS, SCALES
from grpo_core.algorithms.surrogates import LEVELS, SURROGATES
from grpo_core.algorithms.values import VALUES, Facts
from grpo_core.algorithms.weights import WEIGHTS
from grpo_core.method_row import CONTRASTS, STANDALONE, Component
from grpo_core.methods import METHODS

NAMES = sorted(METHODS)
LOG_PROBS = {"clipped_weight", "gamma_gate", "log_prob", *(f"{region}{how}" for region in ("one_side", "two_side", "ring") for how in ("", "_weighted"))}
"""Surrogates whose gradient is a weight times that of log π; the others have that of a ratio."""


def random_batch(seed: int, rows: int = 6, width: int = 5):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, width + 1, (rows,), generator=generator)
    mask = (torch.arange(width)[None] < lengths[:, None]).double()
    before = -torch.rand(rows, width, generator=generator, dtype=torch.float64) * 3 * mask
    logp = before + torch.randn(rows, width, generator=generator, dtype=torch.float64) * 0.3 * mask
    advantages = torch.randn(rows, 1, generator=generator, dtype=torch.float64).expand(rows, width)
    return dict(before=before, logp=logp, advantages=advantages, mask=mask, ref=before - 0.1 * mask, group=torch.arange(rows) // 3,
                segment=torch.arange(width).expand(rows, width) // 2)


def objective_of(name: str) -> Objective:
    method = METHODS[name]
    return Objective(
        surrogate=method.surrogate, level=method.level, clip=method.clip or (0, 0), normaliser=method.normaliser,
        penalties={penalty.name: max(penalty.coef, 0.1) for penalty in method.penalties},
        group=None if method.group is None else (method.group.name, method.group.value),
    )


def loss_and_gradient(objective, batch, *, max_length=5, parts=None):
    logp = batch["logp"].clone().requires_grad_()
    whole = loss_batch(
        objective, before_BT=batch["before"], advantages_BT=batch["advantages"], mask_BT=batch["mask"], max_length=max_length, ref_BT=batch["ref"],
        group_B=batch["group"], now_BT=batch["logp"], segment_BT=batch["segment"],
    )  # fmt: skip
    rows = parts or [slice(None)]
    total = sum(policy_loss(objective, logp[part], whole.rows(part)).total for part in rows)
    total.backward()
    return total.detach(), logp.grad


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_every_row_is_registered(name):
    for method in (METHODS[name], METHODS[name].as_released()):
        assert SURROGATES[method.surrogate] and LEVELS[method.level] and NORMALISERS[method.normaliser]
        for component in method.credit:
            assert BASES[component.base] and NORMS[component.norm] and VALUES[component.value] and SCALES[component.scale] and DROPS[component.drop]
        assert WHOLES[method.whole] and SPREADS[method.spread] and (method.group is None or GROUP_OBJECTIVES[method.group.name])
        for penalty in method.penalties:
            assert PENALTIES[penalty.name]
        for weight in method.weights:
            assert WEIGHTS[weight.name]


def test_what_stands_alone_is_what_no_base_takes_from_the_group():
    assert {name for name in BASES if not BASES[name].compares} == {*STANDALONE, "below_mean"}
    assert {name for name in PENALTIES if PENALTIES[name].groups} == set(CONTRASTS)


def test_a_registry_refuses_duplicates_and_names_what_it_knows():
    registry = Registry("thing")
    registry.register("one")(1)
    with pytest.raises(ValueError, match="registered already"):
        registry.register("one")
    with pytest.raises(ValueError, match="unknown thing 'two'; known: one"):
        registry["two"]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_micro_batches_give_the_same_loss_and_gradient(name, seed):
    batch, objective = random_batch(seed), objective_of(name)
    whole, whole_gradient = loss_and_gradient(objective, batch)
    split, split_gradient = loss_and_gradient(objective, batch, parts=[slice(0, 1), slice(1, 4), slice(4, 6)])
    torch.testing.assert_close(split, whole)
    torch.testing.assert_close(split_gradient, whole_gradient)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_padding_and_row_order_change_nothing(name, seed):
    batch, objective = random_batch(seed), objective_of(name)
    loss, gradient = loss_and_gradient(objective, batch)
    wide = {"advantages": batch["advantages"][:, :1].expand(6, 8), "group": batch["group"], "segment": torch.arange(8).expand(6, 8) // 2}
    padded = {k: wide[k] if k in wide else torch.cat([v, torch.zeros(6, 3, dtype=v.dtype)], dim=1) for k, v in batch.items()}
    padded_loss, padded_gradient = loss_and_gradient(objective, padded)
    torch.testing.assert_close(padded_loss, loss)
    torch.testing.assert_close(padded_gradient[:, :5], gradient)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    shuffled_loss, shuffled_gradient = loss_and_gradient(objective, {k: v[order] for k, v in batch.items()})
    torch.testing.assert_close(shuffled_loss, loss)
    torch.testing.assert_close(shuffled_gradient, gradient[order])


@pytest.mark.parametrize("name", NAMES)
def test_only_a_constant_normaliser_minds_how_long_a_completion_may_be(name):
    """Padding is not in it, so no normaliser minds padding; Dr. GRPO's divides by the limit itself."""
    batch, objective = random_batch(5), replace(objective_of(name), penalties={})
    short, long = (loss_and_gradient(objective, batch, max_length=length)[1] for length in (5, 10))
    torch.testing.assert_close(long * (2 if METHODS[name].normaliser == "constant" else 1), short)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_tokens_that_others_wrote_get_no_gradient_and_count_for_nothing(name, seed):
    """Observations inside completions: whatever stands there, loss and gradient are those of the completions with it cut out."""
    batch, objective, generator = random_batch(seed, width=7), objective_of(name), torch.Generator().manual_seed(seed)
    kept = batch["mask"] * (torch.rand(batch["mask"].shape, generator=generator) < 0.7)
    kept[:, 0] = 1
    order = (1 - kept).argsort(dim=1, stable=True)
    noise = torch.randn(kept.shape, generator=generator, dtype=torch.float64) * (1 - kept)
    holed = batch | {"mask": kept} | {name: batch[name] * kept + noise * scale for name, scale in (("before", 1), ("logp", 2), ("ref", 3))}
    cut = {key: value if key in ("group", "advantages") else value.gather(1, order) for key, value in holed.items()}
    cut |= {key: cut[key] * cut["mask"] for key in ("before", "logp", "ref")}
    loss, gradient = loss_and_gradient(objective, holed)
    cut_loss, cut_gradient = loss_and_gradient(objective, cut)
    assert not gradient[kept == 0].any()
    torch.testing.assert_close(loss, cut_loss)
    torch.testing.assert_close(gradient.gather(1, order), cut_gradient)


@pytest.mark.parametrize("level", sorted(LEVELS))
@pytest.mark.parametrize("surrogate", sorted(SURROGATES))
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_at_the_first_update_every_surrogate_has_the_gradient_of_reinforce(surrogate, level, seed):
    batch = random_batch(seed)
    batch["logp"] = batch["before"]
    objective = Objective(surrogate=surrogate, level=level, clip=(0.2, 0.2), normaliser="token", penalties={})
    _, gradient = loss_and_gradient(objective, batch)
    want = -batch["advantages"] * NORMALISERS["token"](batch["mask"], 5)
    if level == "sequence_sum" and surrogate not in LOG_PROBS:  # every token of a row has the gradient of all of them
        want = want * batch["mask"].sum(1, keepdim=True)
    torch.testing.assert_close(gradient, want)


@pytest.mark.parametrize("name", NAMES)
def test_rows_with_no_advantage_have_no_gradient_unless_a_penalty_needs_them(name):
    batch, objective = random_batch(3), objective_of(name)
    batch["advantages"] = torch.zeros(6, 5, dtype=torch.float64)
    batch["logp"] = batch["before"] - 0.2 * batch["mask"]  # less likely than when sampled, which every penalty minds
    plain = replace(objective, penalties={})
    assert not plain.needs_tied_groups and loss_and_gradient(plain, batch)[1].abs().max() == 0
    if objective.penalties:
        assert objective.needs_tied_groups and loss_and_gradient(objective, batch)[1].abs().max() > 0


def rewards_of(seed: int):
    """Two groups of four with lengths, no two rewards of a group alike."""
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.cat([torch.randperm(9, generator=generator)[:4] for _ in range(2)]).double()
    facts = dict(
        rewards_B=rewards, lengths_B=torch.randint(1, 9, (8,), generator=generator), draws_B=torch.rand(8, generator=generator), tracked_B=torch.zeros(8)
    )
    return facts, torch.arange(8) // 4


def credited(facts: dict, group, component: Component, rewards=None):
    """Advantages; a greedy completion has the reward of the other group's first rollout."""
    facts = facts if rewards is None else facts | {"rewards_B": rewards}
    facts = facts | {"greedy_B": facts["rewards_B"][(1 - group) * 4]}
    return credit(Facts(**facts), group, torch.ones(8, dtype=torch.bool), [component])[0]


@pytest.mark.parametrize("norm", sorted(NORMS))
@pytest.mark.parametrize("base", sorted(BASES))
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_a_shift_and_a_scale_of_all_rewards_change(base, norm, seed):
    facts, group = rewards_of(seed)
    component = Component(base=base, norm=norm, at=0.5)
    plain = credited(facts, group, component)
    if base not in STANDALONE or norm in ("token_whiten", "batch_std"):  # compared with something that shifts along
        torch.testing.assert_close(credited(facts, group, component, facts["rewards_B"] + 3), plain)
    scale = {"std": 1, "std_population": 1, "token_whiten": 1, "batch_std": 1, "variance": 1 / 5}.get(norm, 5)
    if base in ("below_mean", "log_average_exp"):  # not in proportion: their number does not scale along
        return
    torch.testing.assert_close(credited(facts, group, component, facts["rewards_B"] * 5), scale * plain, rtol=1e-5, atol=1e-5)


def test_what_shift_and_scale_do_where_nothing_scales_along():
    facts, group = rewards_of(4)
    alone = Component(base="zero", norm="none")
    torch.testing.assert_close(credited(facts, group, alone, facts["rewards_B"] + 3), credited(facts, group, alone) + 3)
    tracked = Component(base="tracked", norm="none")
    torch.testing.assert_close(credited(facts, group, tracked, facts["rewards_B"] + 3), credited(facts, group, tracked) + 3)
    lifted = Component(base="below_mean", norm="none", at=0.1)  # 5·(r − mean) + 0.1
    torch.testing.assert_close(credited(facts, group, lifted, facts["rewards_B"] * 5), 5 * (credited(facts, group, lifted) - 0.1) + 0.1)
    greatest = Component(base="log_average_exp", norm="none", at=1.0)
    assert (credited(facts, group, greatest, facts["rewards_B"] * 5) / credited(facts, group, greatest)).std() > 0.01


def known(rewards, group) -> Facts:
    """Everything a method may look at, of rollouts that are right where they earn 1; prompts tracked at 0.3, greedy completions at 0.5."""
    size = len(rewards)
    return Facts(
        rewards_B=rewards, verdicts_B=2 * rewards - 1, entropies_B=torch.linspace(0.1, 0.6, size).double(), lengths_B=torch.arange(size) % 5 + 1,
        parts_BK=rewards[:, None], part_weights_K=torch.ones(1), draws_B=torch.linspace(0, 0.9, size), greedy_B=torch.full((size,), 0.5),
        tracked_B=torch.full((size,), 0.3), reference_B=torch.zeros(size, dtype=torch.bool), ranks_BK=rewards[:, None],
    )  # fmt: skip


MOVED_ALWAYS = {"spo", "reinforce_pp", "reinforce_pp_baseline", "gepo", "asymre", "gtpo", "remax", "w_reinforce"}
MOVED = {1.0: MOVED_ALWAYS | {"psr"}, 0.0: MOVED_ALWAYS | {"nsr"}}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reward", MOVED)
def test_which_methods_move_a_group_that_earned_the_same_throughout(name, reward):
    """All right or all wrong, beside a mixed group: the tracker's, REINFORCE++'s, AsymRE's, GTPO's entropy, a greedy rollout, a verdict alone."""
    group = torch.arange(8) // 4
    rewards = torch.tensor([1.0, 0, 1, 0] + [reward] * 4, dtype=torch.float64)
    method = METHODS[name]
    found, _ = credit(known(rewards, group), group, torch.ones(8, dtype=torch.bool), method.credit, whole=method.whole)
    assert bool(found[4:].abs().max() > 1e-9) == (name in MOVED[reward])
    assert found[:4].any() or name == "pass_at_k"  # which two that share the best teach nothing


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_advantages_do_not_depend_on_the_order_of_rows(name, seed):
    generator = torch.Generator().manual_seed(seed)
    rewards, order = torch.randint(0, 2, (8,), generator=generator).double(), torch.randperm(8, generator=generator)
    group, method = torch.arange(8) // 4, METHODS[name]
    facts = known(rewards, group)
    values = {name: getattr(facts, name) for name in Facts.__slots__}
    shuffled = Facts(**{name: value if name == "part_weights_K" else value[order] for name, value in values.items()})
    of = [credit(facts, g, torch.ones(8, dtype=torch.bool), method.credit, whole=method.whole)[0] for facts, g in ((facts, group), (shuffled, group[order]))]
    torch.testing.assert_close(of[1], of[0][order])


@pytest.mark.parametrize("name", [name for name in NAMES if METHODS[name].ties_teach_nothing])
def test_a_rollout_without_another_to_compare_with_teaches_nothing(name):
    """verl leaves its reward as it is; TRL refuses groups of one."""
    facts, method = known(torch.tensor([1.0, 1, 0]).double(), None), METHODS[name]
    found, _ = credit(facts, torch.tensor([0, 1, 1]), torch.ones(3, dtype=torch.bool), method.credit, whole=method.whole)
    assert found[0] == 0 and found[1] > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_tied_group_among_others_is_taught_nothing_by_methods_that_compare_within_groups(name):
    facts, group = rewards_of(1)
    facts["rewards_B"] = torch.cat([facts["rewards_B"][:4], torch.full((4,), 7.0, dtype=torch.float64)])
    for component in METHODS[name].credit:
        if component.value == "outcome":
            assert (credited(facts, group, component)[4:] == 0).all() == component.within_groups


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_rloo_is_dr_grpo_times_g_over_g_minus_1(seed):
    facts, group = rewards_of(seed)
    dr_grpo, rloo = (credited(facts, group, METHODS[name].credit[0]) for name in ("dr_grpo", "rloo"))
    torch.testing.assert_close(rloo, dr_grpo * 4 / 3)

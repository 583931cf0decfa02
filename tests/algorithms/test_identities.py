"""What is equal to what, by algebra: each identity on random batches, against the other side of it written out here."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_core.algorithms.credit import credit
from grpo_core.algorithms.group_objectives import Scores, pulls
from grpo_core.algorithms.penalties import PENALTIES, k3
from grpo_core.algorithms.values import Facts
from grpo_core.method_row import Component
from grpo_core.methods import METHODS
from tests.algorithms.test_goldens import LOGP, MASK, REF, advantages, graded, of_method
from tests.algorithms.test_invariances import loss_and_gradient, random_batch

SEEDS = st.integers(0, 10_000)
ONE_GROUP = torch.zeros(8, dtype=torch.long)


def close(found, want, atol=1e-6):
    torch.testing.assert_close(found, torch.as_tensor(want, dtype=torch.float64), atol=atol, rtol=0)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, right=st.integers(1, 7))
def test_the_variance_in_the_denominator_is_discos_one_over_the_share_of_each_side(seed, right):
    verdicts = torch.where(torch.randperm(8, generator=torch.Generator().manual_seed(seed)) < right, 1.0, -1.0)
    found = credit(Facts(rewards_B=verdicts, verdicts_B=verdicts), ONE_GROUP, torch.ones(8, dtype=torch.bool), METHODS["disco_b"].credit)[0]
    close(found, torch.where(verdicts > 0, 8 / right, -8 / (8 - right)).double())


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_disco_pushes_wrong_answers_down_in_proportion_to_how_likely_they_are(seed):
    """The pull of a wrong row is −G · softmax(s / τ) over the group's wrong rows, of a right one G / n⁺."""
    scores, signs = torch.randn(8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), torch.tensor([1.0, 1, 1, -1, -1, -1, -1, -1])
    found, _ = pulls("discriminate", Scores(scores_B=scores, advantages_B=signs, group_B=ONE_GROUP, inside_B=torch.ones(8, dtype=torch.bool)), 0.7)
    close(found, torch.cat([torch.full((3,), 8 / 3, dtype=torch.float64), -8 * (scores[3:] / 0.7).softmax(0)]))


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_reg_grpos_loss_is_twice_what_the_correlation_lacks(seed):
    generator = torch.Generator().manual_seed(seed)
    scores, rewards = torch.randn(8, generator=generator, dtype=torch.float64), torch.randperm(8, generator=generator).double()
    advantages_B = advantages(METHODS["reg_grpo"].credit[0], rewards=rewards, lengths=(1,) * 8, epsilon=0.0)
    rows = Scores(scores_B=scores, advantages_B=advantages_B, group_B=ONE_GROUP, inside_B=torch.ones(8, dtype=torch.bool))
    corr = torch.corrcoef(torch.stack([scores, rewards]))[0, 1]
    assert -pulls("regress", rows, 1e-6)[1].item() == pytest.approx(2 * (1 - corr.item()), rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_gspos_own_ratio_has_the_gradient_of_its_straight_through_form(seed):
    """verl's s_i,t = sg(s_i) · exp(logp − sg(logp)), clipped per token, for an advantage that is one per row."""
    batch, (low, high) = random_batch(seed), (0.05, 0.1)
    logp = batch["logp"].clone().requires_grad_()
    mean_B1 = ((batch["logp"] - batch["before"]) * batch["mask"]).sum(1, keepdim=True) / batch["mask"].sum(1, keepdim=True)
    ratio = mean_B1.exp() * (logp - batch["logp"]).exp()
    free, held = ratio * batch["advantages"], ratio.clamp(1 - low, 1 + high) * batch["advantages"]
    lengths_B1 = batch["mask"].sum(1, keepdim=True)
    (-(torch.minimum(free, held) * batch["mask"] / lengths_B1).sum() / len(logp)).backward()
    torch.testing.assert_close(loss_and_gradient(of_method("gspo", clip=(low, high)), batch)[1], logp.grad)


def test_the_quadratic_penalty_is_dros():
    """DRO, −A · logp + β/2 · (logp − before)² with β = 0.1 over the tokens, numbers compared with verl: Kimi's penalty with half of β."""
    result, gradient = graded(of_method("opmd_kimi", clip=(0, 0), penalties={"k2_before": 0.05}))
    assert result.total.item() == pytest.approx(-0.075797, abs=1e-6)
    close(gradient, [[-0.06125, -0.065, 0], [0.06625, 0.0625, 0.06125], [0.0575, 0, 0], [-0.0625, -0.059375, 0]])


def test_estimates_of_a_kl_by_hand():
    """Token means on the toy batch, of the policy against the reference; and of one token with π = .5 and .4 in the reference."""
    nothing = torch.zeros_like(MASK)
    k1, k2 = (PENALTIES[name].values(LOGP, REF, None, nothing, MASK).sum().item() / 8 for name in ("kl_hinge", "k2_before"))
    assert (-k1, k2 / 2) == pytest.approx((0.043750, 0.024219), abs=1e-6)  # the one is of the other direction, the other without its half
    assert (k3((REF - LOGP) * MASK).sum() / 8).item() == pytest.approx(0.023856, abs=1e-6)
    assert k3(torch.tensor(0.4 / 0.5).log()).item() == pytest.approx(0.0231, abs=5e-5)


@pytest.mark.parametrize("right", range(1, 8))
def test_dividing_by_the_std_gives_every_mixed_group_the_same_mass(right):
    """With p right of 8: √((1−p)/p) up and √(p/(1−p)) down, so that the mean of A² is 1; without the std it is p(1−p)."""
    rewards, p = torch.tensor([1.0] * right + [0.0] * (8 - right)), right / 8
    found = advantages(Component(norm="std_population"), rewards=rewards, lengths=(1,) * 8, epsilon=0.0)
    close(found, [((1 - p) / p) ** 0.5] * right + [-((p / (1 - p)) ** 0.5)] * (8 - right))
    plain = advantages(Component(norm="none"), rewards=rewards, lengths=(1,) * 8)
    assert (found.square().mean().item(), plain.square().mean().item()) == pytest.approx((1, p * (1 - p)))


def test_one_right_of_four_by_either_std():
    of = {norm: advantages(Component(norm=norm), rewards=torch.tensor([1.0, 0, 0, 0]), epsilon=0.0)[0].item() for norm in ("std", "std_population")}
    assert of == pytest.approx({"std": 1.5, "std_population": 3**0.5})


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_whitening_deviations_from_the_group_is_reinforce_pp_with_a_baseline(seed):
    """RF++-baseline is Dr. GRPO's advantage less its mean over all tokens, over its standard deviation (n−1) over all tokens."""
    rng = np.random.default_rng(seed)
    rewards, lengths, groups = torch.from_numpy(rng.permutation(8) * 1.0), rng.integers(1, 6, 8), [0] * 4 + [1] * 4
    plain = advantages(METHODS["dr_grpo"].credit[0], rewards=rewards, lengths=lengths.tolist(), groups=groups)
    tokens = plain.repeat_interleave(torch.from_numpy(lengths))
    found = advantages(METHODS["reinforce_pp_baseline"].credit[0], rewards=rewards, lengths=lengths.tolist(), groups=groups)
    close(found, (plain - tokens.mean()) / tokens.std())


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].clip])
def test_nothing_is_held_while_the_policy_is_the_one_that_sampled(name):
    assert not graded(of_method(name), before_BT=LOGP)[0].side_BT.any()

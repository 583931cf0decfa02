"""GDPO, ReMax and the methods of arXiv:2509.24203 by hand: values and gradients on the toy batch of test_goldens, and what is equal to what."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_core.algorithms.credit import credit
from grpo_core.algorithms.loss import loss_batch, policy_loss
from grpo_core.algorithms.values import Facts
from grpo_core.algorithms.weights import Written, token_weights
from grpo_core.method_row import Component
from grpo_core.methods import METHODS
from tests.algorithms.test_goldens import ADVANTAGES, BEFORE, LOGP, MASK, REWARDS, advantages, graded, of_method
from tests.algorithms.test_invariances import loss_and_gradient, random_batch

BOTH = torch.ones(4, dtype=torch.bool)
ONE_GROUP = torch.zeros(4, dtype=torch.long)


def close(found, want, atol=1e-6):
    torch.testing.assert_close(found, torch.tensor(want, dtype=torch.float64), atol=atol, rtol=0)


def gdpo(parts, weights, group, *, scored=None):
    rewards = (torch.tensor(parts, dtype=torch.float64) * torch.tensor(weights)).sum(1)
    facts = Facts(rewards_B=rewards, parts_BK=torch.tensor(parts, dtype=torch.float64), part_weights_K=torch.tensor(weights, dtype=torch.float64))
    scored = torch.ones(len(parts), dtype=torch.bool) if scored is None else torch.tensor(scored)
    return credit(facts, torch.tensor(group), scored, METHODS["gdpo"].credit, whole=METHODS["gdpo"].whole)[0]


@pytest.mark.parametrize(
    ("name", "changes", "loss", "gradient"),
    [
        ("rec_one_side_is", {}, -0.078179, [[-0.069073, -0.051171, 0], [0.084366, 0.0625, 0.056552], [0, 0, 0], [-0.0625, 0, 0]]),
        ("rec_one_side", {}, -0.043750, [[-0.0625, -0.0625, 0], [0.0625, 0.0625, 0.0625], [0, 0, 0], [-0.0625, 0, 0]]),
        ("rec_two_side_is", {}, 0.065243, [[-0.069073, -0.051171, 0], [0, 0.0625, 0.056552], [0, 0, 0], [-0.0625, 0, 0]]),
        ("rec_ring", {}, 0.0625, [[-0.0625, -0.0625, 0], [0, 0.0625, 0.0625], [0, 0, 0], [-0.0625, 0, 0]]),
        ("asymre", {}, -0.078125, [[-0.0625, -0.0625, 0], [0.0625, 0.0625, 0.0625], [0.0625, 0, 0], [-0.0625, -0.0625, 0]]),
    ],
)
def test_loss_and_gradient(name, changes, loss, gradient):
    """With A = ±1/2 whatever the method makes of rewards."""
    result, grad = graded(of_method(name, **({"clip": (0, 0)} if METHODS[name].clip is None else {}), **changes))
    assert result.total.item() == pytest.approx(loss, abs=1e-6)
    close(grad, gradient)


def test_the_ring_brings_back_what_is_far_gone_the_wrong_way():
    # ratios of 0.3 and 4 with either sign: between the bounds of 0.6 and 2 beyond 1 nothing counts, beyond them what A pulls back does
    ratios = torch.tensor([[0.3, 0.7, 2.5, 4.0]] * 2, dtype=torch.float64)
    signs = torch.tensor([[1.0], [-1.0]]).expand(2, 4)
    batch = dict(before_BT=torch.zeros(2, 4, dtype=torch.float64), advantages_BT=signs, mask_BT=torch.ones(2, 4), max_length=4)
    logp = ratios.log().requires_grad_()
    result = policy_loss(of_method("rec_ring"), logp, loss_batch(of_method("rec_ring"), **batch))
    result.total.backward()
    assert (logp.grad * -8).tolist() == [[1, 0, 0, 0], [0, 0, 0, -1]]
    assert result.side_BT.tolist() == [[0, -1, 1, 1], [-1, -1, 1, 0]]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_rec_one_side_with_importance_weight_has_the_gradient_of_ppos_clip(seed):
    batch = random_batch(seed)
    clip, region = (loss_and_gradient(of_method(name, normaliser="token"), batch)[1] for name in ("grpo", "rec_one_side_is"))
    torch.testing.assert_close(region, clip)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_asymre_has_the_gradient_of_reinforce_with_forward_kl(seed):
    batch = random_batch(seed)
    plain = of_method("asymre", clip=(0, 0), penalties={"forward_kl": 0.1})
    shifted = of_method("asymre", clip=(0, 0))
    regularised = loss_and_gradient(plain, batch)[1]
    risen = loss_and_gradient(shifted, batch | {"advantages": batch["advantages"] + 0.1})[1]
    torch.testing.assert_close(risen, regularised)
    component, mean = METHODS["asymre"].credit[0], Component(norm="none")
    torch.testing.assert_close(advantages(component), advantages(mean) + 0.1)
    close(advantages(component, rewards=torch.ones(4)), [0.1] * 4)  # a tied group too


def test_opmd_by_hand():
    close(advantages(METHODS["opmd"].credit[0]), [0.5, -0.5, -0.5, 0.5])
    close(advantages(METHODS["opmd_log_average"].credit[0]), [0.379885, -0.620115, -0.620115, 0.379885])
    # five times the rewards give 1.807 times the positive advantage: log-average-exp is not in proportion
    assert advantages(METHODS["opmd_log_average"].credit[0], rewards=5 * REWARDS)[0].item() / 0.379885 == pytest.approx(1.807, abs=1e-3)
    close(advantages(METHODS["opmd_log_average"].credit[0], rewards=REWARDS + 3), [0.379885, -0.620115, -0.620115, 0.379885])
    assert not advantages(METHODS["opmd_log_average"].credit[0], rewards=torch.full((4,), 0.7)).any()
    assert torch.isfinite(advantages(METHODS["opmd_log_average"].credit[0], rewards=torch.tensor([-1e4, torch.nan, -1e4 - 1, 5e3]))).all()
    weights = token_weights(written([1.0, -1, -1, 1]), METHODS["opmd"].weights)
    result, grad = graded(of_method("opmd", clip=(0, 0)), multipliers_BT=weights)
    assert result.total.item() == pytest.approx(-0.078125 / 2)  # ÷ (1 + τ)
    torch.testing.assert_close(grad, -ADVANTAGES * MASK / 16)


def test_kimis_penalty_is_the_squared_change_of_log_prob():
    # d = .1 −.2 .3 −.1 −.4 .25: Σd² = .3725; over 8 tokens times 0.1, gradient 2·0.1·d/8
    objective = of_method("opmd_kimi", clip=(0, 0), penalties={"k2_before": 0.1})
    result, grad = graded(objective)
    assert result.terms["k2_before"].sum().item() == pytest.approx(0.1 * 0.3725 / 8)
    torch.testing.assert_close(grad, (-ADVANTAGES * MASK + 0.2 * (LOGP - BEFORE)) / 8)


def written(earned) -> Written:
    return Written(
        ids_BT=torch.zeros(4, 3, dtype=torch.long), mask_BT=MASK, group_B=ONE_GROUP, advantages_B=torch.tensor(earned, dtype=torch.float64),
        entropies_B=torch.zeros(4), first_entropy=0.0,
    )  # fmt: skip


def test_red_weight_by_hand():
    weights = token_weights(written([0.5, -0.5, 0.0, 1.0]), METHODS["red_weight"].weights)
    close(weights[:, 0], [1.648721, 0.606531, 1.0, 2.718282])


def dropped(rewards, draws, group=None):
    facts = Facts(rewards_B=torch.tensor(rewards, dtype=torch.float64), draws_B=torch.tensor(draws))
    scored = ~facts.rewards_B.isnan()
    return credit(facts, torch.tensor(group or [0] * len(rewards)), scored, METHODS["red_drop"].credit)[0].tolist()


def test_red_drop_evens_groups_out_and_takes_the_mean_of_those_kept():
    # one right of five: three of the four wrong ones go, those with the smallest draws; mean of the two kept is 1/2
    assert dropped([1, 0, 0, 0, 0], [0.0, 0.3, 0.9, 0.1, 0.2]) == [0.5, 0, -0.5, 0, 0]
    assert dropped([1, 1, 0, 0], [0.4, 0.3, 0.2, 0.1]) == [0.5, 0.5, -0.5, -0.5]  # even already
    assert dropped([1, 1, 1, 0], [0.4, 0.3, 0.2, 0.1]) == [0.25, 0.25, 0.25, -0.75]  # better ones are never dropped
    assert dropped([0.7] * 4, [0.4, 0.3, 0.2, 0.1]) == [0, 0, 0, 0]
    # a failed rollout is neither; groups do not mix
    assert dropped([1, float("nan"), 0, 0, 0, 1], [0.1, 0.2, 0.9, 0.3, 0.8, 0.1], [0, 0, 0, 0, 1, 1]) == [0.5, 0, -0.5, 0, -0.5, 0.5]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_red_drop_does_not_depend_on_the_order_of_rows(seed):
    generator = torch.Generator().manual_seed(seed)
    rewards, draws, order = torch.randint(0, 2, (8,), generator=generator), torch.rand(8, generator=generator), torch.randperm(8, generator=generator)
    group = torch.arange(8) // 4
    plain = torch.tensor(dropped(rewards.tolist(), draws.tolist(), group.tolist()))
    shuffled = torch.tensor(dropped(rewards[order].tolist(), draws[order].tolist(), group[order].tolist()))
    torch.testing.assert_close(shuffled, plain[order])
    assert ((plain < 0).sum() <= (plain > 0).sum()) and (plain[(group == 0)].sum().abs() < 1e-9)


def test_gdpo_by_hand():
    # part 1: 1 0 | 1 1, part 2: 0 0 | 4 0, weights 1 and 2. z: ±1/√2, 0 | 0, ±1/√2 (n−1); sums ±.7071 | ±1.4142; their std over 4 rows, n−1,
    # is √((2·½ + 2·2)/3) = 1.290994
    found = gdpo([[1, 0], [0, 0], [1, 4], [1, 0]], [1.0, 2.0], [0, 0, 1, 1])
    close(found, [0.547723, -0.547723, 1.095445, -1.095445], atol=3e-6)  # ε = 1e-6 twice
    # the total alone sees a gap of 1 in the first group and of 8 in the second, and makes both ±1/√2
    grpo = credit(Facts(rewards_B=torch.tensor([1.0, 0, 9, 1])), torch.tensor([0, 0, 1, 1]), BOTH, METHODS["grpo"].credit)[0]
    close(grpo, [0.5**0.5, -(0.5**0.5)] * 2, atol=3e-6)


def test_gdpo_tells_apart_what_has_the_same_total():
    parts = [[1, 0], [0, 1], [0, 1], [0, 1]]  # every total is 1
    assert not advantages(METHODS["grpo"].credit[0], rewards=torch.ones(4)).any()
    assert gdpo(parts, [1.0, 1.0], [0] * 4).abs().max() < 1e-9  # z of the two parts are opposite here and cancel
    assert gdpo(parts, [1.0, 3.0], [0] * 4).abs().min() > 0


def test_gdpo_with_one_part_is_grpo_over_the_batchs_spread():
    rewards, group = torch.tensor([1.0, 0, 0, 0, 1, 1, 0, 0]), torch.arange(8) // 4
    found = gdpo([[r] for r in rewards.tolist()], [0.5], group.tolist())
    grpo = credit(Facts(rewards_B=rewards), group, torch.ones(8, dtype=torch.bool), METHODS["grpo"].credit)[0]
    torch.testing.assert_close(found, grpo / grpo.std(), atol=1e-5, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_gdpo_does_not_mind_shift_or_scale_of_a_part_and_ties_get_exactly_nothing(seed):
    generator = torch.Generator().manual_seed(seed)
    parts = torch.stack([torch.randperm(9, generator=generator)[:8], torch.randperm(9, generator=generator)[:8]], dim=1).double()
    group = [0] * 4 + [1] * 4
    plain = gdpo(parts.tolist(), [1.0, 0.5], group)
    torch.testing.assert_close(gdpo((parts * torch.tensor([5.0, 1.0]) + torch.tensor([0.0, 3.0])).tolist(), [1.0, 0.5], group), plain, atol=1e-5, rtol=1e-5)
    parts[4:] = torch.tensor([0.95, 0.1])
    tied = gdpo(parts.tolist(), [1.0, 0.5], group)
    assert not tied[4:].any() and tied[:4].any() and not gdpo([[0.3, 0.1]] * 4, [1.0, 1.0], [0] * 4).any()
    parts[0] = torch.nan
    failed = gdpo(parts.tolist(), [1.0, 0.5], group, scored=[False] + [True] * 7)
    assert torch.isfinite(failed).all() and failed[0] == 0


def test_remax_compares_with_the_greedy_completion():
    facts = Facts(rewards_B=REWARDS, greedy_B=torch.tensor([1.0, 1, 1, 1]))
    found, base = credit(facts, ONE_GROUP, BOTH, METHODS["remax"].credit)
    assert found.tolist() == [0, -1, -1, 0] and base.tolist() == [1] * 4
    tied = credit(Facts(rewards_B=torch.zeros(4), greedy_B=torch.ones(4)), ONE_GROUP, BOTH, METHODS["remax"].credit)[0]
    assert tied.tolist() == [-1] * 4  # all worse than the greedy one
    unknown = credit(Facts(rewards_B=REWARDS, greedy_B=torch.full((4,), torch.nan)), ONE_GROUP, BOTH, METHODS["remax"].credit)[0]
    assert not unknown.any()

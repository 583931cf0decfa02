"""Hand-worked and cross-checked numbers: one prompt, G = 4, T = 3, lengths [2, 3, 1, 2], rewards [1, 0, 0, 1].

Values and gradients were compared with verl's own functions where the method exists there.
"""

import math

import pytest
import torch

from grpo_core.algorithms.credit import credit
from grpo_core.algorithms.loss import Objective, loss_batch, policy_loss
from grpo_core.algorithms.penalties import action_runs, llds_action, llds_response
from grpo_core.algorithms.values import Facts
from grpo_core.method_row import Component
from grpo_core.methods import METHODS

MASK = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0]], dtype=torch.float64)
BEFORE = torch.tensor([[-1.0, -0.5, 0], [-2.0, -1.0, -0.7], [-0.3, 0, 0], [-1.2, -0.4, 0]], dtype=torch.float64)
LOGP = BEFORE + torch.tensor([[0.1, -0.2, 0], [0.3, 0, -0.1], [-0.4, 0, 0], [0, 0.25, 0]], dtype=torch.float64)
REF = BEFORE - 0.05 * MASK
REWARDS = torch.tensor([1.0, 0, 0, 1])
ADVANTAGES = torch.tensor([0.5, -0.5, -0.5, 0.5], dtype=torch.float64)[:, None].expand(4, 3)


def advantages(*components: Component, rewards=REWARDS, epsilon=1e-6, lengths=(2, 3, 1, 2), groups=None):
    scored = ~torch.isnan(rewards)
    group = torch.tensor(groups) if groups else torch.zeros(len(rewards), dtype=torch.long)
    return credit(Facts(rewards_B=rewards, lengths_B=torch.tensor(lengths)), group, scored, components, epsilon=epsilon)[0]


def graded(objective: Objective, **batch):
    logp = LOGP.clone().requires_grad_()
    inputs = dict(before_BT=BEFORE, advantages_BT=ADVANTAGES, mask_BT=MASK, max_length=3) | batch
    loss = policy_loss(objective, logp, loss_batch(objective, **inputs))
    loss.total.backward()
    return loss, logp.grad


def of_method(name: str, **changes) -> Objective:
    method = METHODS[name]
    settings = dict(surrogate=method.surrogate, level=method.level, clip=method.clip, normaliser=method.normaliser, penalties={})
    return Objective(**(settings | changes))


@pytest.mark.parametrize(
    ("component", "epsilon", "size"),
    [
        (Component(base="mean", norm="std"), 1e-4, 0.865875),
        (Component(base="mean", norm="std"), 1e-6, 0.866024),
        (Component(base="mean", norm="std_population"), 0.0, 1.0),
        (Component(base="mean", norm="none"), 1e-6, 0.5),
        (Component(base="leave_one_out", norm="none"), 1e-6, 2 / 3),
        (METHODS["reinforce_pp"].credit[0], 1e-6, 0.935414),
        (METHODS["reinforce_pp_baseline"].credit[0], 1e-6, 0.935414),
        (METHODS["opo"].credit[0], 1e-6, 0.5),
    ],
)
def test_advantages(component, epsilon, size):
    expected = size * torch.tensor([1.0, -1, -1, 1], dtype=torch.float64)
    torch.testing.assert_close(advantages(component, epsilon=epsilon), expected, atol=1e-6, rtol=0)


def test_reinforce_pp_baseline_moves_a_group_tied_in_reward_where_lengths_differ():
    """+.3536 with the toy's rows as two groups: deviations 0, −1/2, 1/2, 0 over 2, 3, 1, 2 tokens have mean −1/8 and variance 1/8 (n−1 = 7)."""
    found = advantages(*METHODS["reinforce_pp_baseline"].credit, rewards=torch.tensor([1.0, 0, 1, 1]), groups=[0, 1, 1, 0])
    assert found.tolist() == pytest.approx([8**-0.5, -3 * 8**-0.5, 5 * 8**-0.5, 8**-0.5], abs=1e-6) and found[0] == pytest.approx(0.3536, abs=1e-4)


def test_gpg_counts_rollouts_without_a_deviation():
    """Rewards 1, 0 | 1, 1: two of four have one, so A = ±1/2 · 4/2; verl counts the three rewards that are not 0 and has ±1/2 · 4/3."""
    found = advantages(*METHODS["gpg"].credit, rewards=torch.tensor([1.0, 0, 1, 1]), groups=[0, 0, 1, 1])
    assert found.tolist() == [1, -1, 0, 0]


@pytest.mark.parametrize(
    ("name", "changes", "loss", "gradient"),
    [
        ("grpo", {"normaliser": "token"}, -0.004325, [[-0.069073, -0.051171, 0], [0.084366, 0.0625, 0.056552], [0, 0, 0], [-0.0625, 0, 0]]),
        ("grpo", {}, -0.022132, [[-0.069073, -0.051171, 0], [0.056244, 0.041667, 0.037702], [0, 0, 0], [-0.0625, 0, 0]]),
        ("dr_grpo", {}, -0.002884, [[-0.046049, -0.034114, 0], [0.056244, 0.041667, 0.037702], [0, 0, 0], [-0.041667, 0, 0]]),
        ("dapo", {}, -0.009325, [[-0.069073, -0.051171, 0], [0.084366, 0.0625, 0.056552], [0, 0, 0], [-0.0625, 0, 0]]),
        ("gspo", {"clip": (0.2, 0.2)}, -0.026930, [[-0.059452, -0.059452, 0], [0.044539, 0.044539, 0.044539], [0, 0, 0], [-0.070822, -0.070822, 0]]),
        (
            "cispo", {"clip": (0.2, 0.2)}, -0.086007,
            [[-0.069073, -0.051171, 0], [0.075, 0.0625, 0.056552], [0.05, 0, 0], [-0.0625, -0.075, 0]],
        ),
        (
            "cispo", {"clip": (1.0, 0.2)}, -0.080333,  # TRL: no lower bound
            [[-0.069073, -0.051171, 0], [0.075, 0.0625, 0.056552], [0.041895, 0, 0], [-0.0625, -0.075, 0]],
        ),
        ("sapo", {}, -0.067061, [[-0.068883, -0.050753, 0], [0.054388, 0.041667, 0.037608], [0.081329, 0, 0], [-0.0625, -0.078655, 0]]),
        ("gmpo", {"clip": (0.2, 0.2)}, -0.021091, [[-0.059452, -0.059452, 0], [0.044539, 0.044539, 0.044539], [0, 0, 0], [-0.069073, 0, 0]]),
        # by hand: ratios of means .951229 1.068939 .670320 (held at .8) 1.133148, times lengths 2 3 1 2, over 4 rows
        ("luspo", {"clip": (0.2, 0.2)}, -0.020242, [[-0.118904, -0.118904, 0], [0.133617, 0.133617, 0.133617], [0, 0, 0], [-0.141643, -0.141643, 0]]),
        # by hand: sums −.1 .2 −.4 .25, φ = e^(3 + 2s − 3e^s) for A > 0 and e^(2 + 3s − 2e^s) below: 1.089249 1.170223 .582375 .703226; times
        # A · logp of the row sums −1.6 −3.5 −.7 −1.35, over 8 tokens
        ("vespo", {}, -0.113206, [[-0.068078, -0.068078, 0], [0.073139, 0.073139, 0.073139], [0.036398, 0, 0], [-0.043952, -0.043952, 0]]),
        ("gpg", {}, -0.0, [[-0.0625, -0.0625, 0], [0.0625, 0.0625, 0.0625], [0.0625, 0, 0], [-0.0625, -0.0625, 0]]),
        ("rloo", {}, -0.022132, [[-0.069073, -0.051171, 0], [0.056244, 0.041667, 0.037702], [0, 0, 0], [-0.0625, 0, 0]]),
    ],
)
def test_loss_and_gradient(name, changes, loss, gradient):
    result, grad = graded(of_method(name, **changes))
    assert result.total.item() == pytest.approx(loss, abs=1e-6)
    torch.testing.assert_close(grad, torch.tensor(gradient, dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_baseline_weighted_by_length():
    found = advantages(METHODS["opo"].credit[0], lengths=(2, 1, 1, 4))  # (2 + 4) / 8
    assert found.tolist() == [0.25, -0.75, -0.75, 0.25]


def test_pass_at_k_rewards_the_single_best_alone():
    component = METHODS["pass_at_k"].credit[0]
    found = advantages(component, rewards=torch.tensor([1, 0.5, 0, 0.2]))
    torch.testing.assert_close(found, torch.tensor([1.149600, 0, 0, 0], dtype=torch.float64), atol=1e-6, rtol=0)
    assert not advantages(component).any()  # two share the best
    assert not advantages(component, rewards=torch.tensor([torch.nan, 1, torch.nan, torch.nan])).any()


def test_gpg_makes_up_for_rollouts_without_signal():
    found = advantages(METHODS["gpg"].credit[0], rewards=torch.tensor([1.0, 0, 1, 1]), groups=[0, 0, 1, 1])
    assert found.tolist() == [1, -1, 0, 0]  # ±½ × 4 rollouts / 2 that differ from their group's mean


def test_whitening_over_tokens_moves_a_tied_group_where_lengths_differ():
    """±1/2 on 1 and 3 tokens and 0 on 4: mean −1/8, variance (9 + 3·(3/8)²·…)/7 of deviations 5/8, −3/8, 1/8."""
    found = advantages(METHODS["reinforce_pp_baseline"].credit[0], rewards=torch.tensor([1.0, 0, 1, 1]), lengths=(1, 3, 2, 2), groups=[0, 0, 1, 1])
    std = ((25 + 3 * 9 + 4) / 64 / 7) ** 0.5
    torch.testing.assert_close(found, torch.tensor([5, -3, 1, 1], dtype=torch.float64) / 8 / std)


def test_clip_sides():
    # ratios 1.105 .819 | 1.350 1 .905 | .670 | 1 1.284; A = + − − +: only row 2 (low, A<0) and row 3's last (high, A>0) are held
    result, _ = graded(of_method("grpo"))
    assert result.side_BT.tolist() == [[0, 0, 0], [0, 0, 0], [-1, 0, 0], [0, 1, 0]]


def test_k3_to_reference():
    # token-mean k3 of KL(policy ‖ reference) on the toy batch is .023856
    objective = of_method("grpo", normaliser="token", penalties={"kl_ref_k3": 1.0})
    result, _ = graded(objective, ref_BT=REF)
    assert result.terms["kl_ref_k3"].sum().item() == pytest.approx(0.023856, abs=1e-6)


# Response 0 (A = +1, 5 trained tokens, token 2 a tool's): before − now = −.2, .1, ., .4, −.1, 0. Response 1 (A = −1) fell by 1 everywhere.
LLDS_BEFORE = torch.tensor([[-1, -1, 0, -0.5, -0.5, -0.5], [-1, -1, -1, -1, -1, 0]], dtype=torch.float64)
LLDS_NOW = torch.tensor([[-0.8, -1.1, 0, -0.9, -0.4, -0.5], [-2, -2, -2, -2, -2, 0]], dtype=torch.float64)
LLDS_MASK = torch.tensor([[1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 0]], dtype=torch.float64)
LLDS_ADVANTAGES = torch.tensor([[1.0], [-1.0]], dtype=torch.float64).expand(2, 6)


def llds(gate: str, normaliser: str = "preserve", *, answer_weight: float = 1.0, answer=None):
    """(value, gradient) of λ = 0.2 times LLDS on the worked batch."""
    name, now = f"llds_{gate}", LLDS_NOW.clone().requires_grad_()
    objective = of_method("grpo_llds", penalties={name: 0.2}, over={name: normaliser}, answer_weight=answer_weight)
    batch = loss_batch(objective, before_BT=LLDS_BEFORE, advantages_BT=LLDS_ADVANTAGES, mask_BT=LLDS_MASK, max_length=6, answer_BT=answer)
    term = policy_loss(objective, now, batch).terms[name].sum()
    term.backward()
    return term.item(), now.grad


@pytest.mark.parametrize(
    ("gate", "normaliser", "value", "gradient"),
    [
        # response: the sum .2 > 0 opens it, .1 + .4 = .5 over the 5 preserved tokens (paper) or all 10 (released code)
        ("response", "preserve", 0.020, [0, -0.04, 0, -0.04, 0, 0]),
        ("response", "loss", 0.010, [0, -0.02, 0, -0.02, 0, 0]),
        # action: the first run sums to −.1 and stays shut, the second to .3
        ("action", "preserve", 0.016, [0, 0, 0, -0.04, 0, 0]),
        ("action", "loss", 0.008, [0, 0, 0, -0.02, 0, 0]),
        ("token", "preserve", 0.020, [0, -0.04, 0, -0.04, 0, 0]),
        ("token", "loss", 0.010, [0, -0.02, 0, -0.02, 0, 0]),
    ],
)
def test_llds_by_hand(gate, normaliser, value, gradient):
    """λ/N on each active token, 0 on the one that did not move; the response with A < 0 adds nothing."""
    found, grad = llds(gate, normaliser)
    assert found == pytest.approx(value)
    torch.testing.assert_close(grad, torch.tensor([gradient, [0] * 6], dtype=torch.float64))


def test_llds_with_answer_weight_by_hand():
    # β = ½ on the last three tokens: (.1 + ½ · .4) · .2 / 5; the gates and the normaliser do not see β
    answer = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 0]], dtype=torch.float64)
    value, grad = llds("response", answer_weight=0.5, answer=answer)
    assert value == pytest.approx(0.012)
    torch.testing.assert_close(grad[0], torch.tensor([0, -0.04, 0, -0.02, 0, 0], dtype=torch.float64))
    assert llds("action", answer_weight=0.0, answer=answer)[0] == 0


def test_the_action_gate_is_the_response_gate_without_tool_tokens():
    mask = torch.ones_like(LLDS_MASK)
    assert action_runs(LLDS_MASK).tolist() == [[1, 1, 0, 2, 2, 2], [1, 1, 1, 1, 1, 0]]
    arguments = (LLDS_NOW, LLDS_BEFORE, None, LLDS_ADVANTAGES, mask)
    assert torch.equal(llds_action(*arguments), llds_response(*arguments)) and llds_action(*arguments).sum() > 0


@pytest.mark.parametrize("gate", ["response", "action", "token"])
def test_llds_is_zero_while_the_policy_is_the_sampler(gate):
    objective = of_method("grpo_llds", penalties={f"llds_{gate}": 0.2})
    logp = (BEFORE - 1e-5 * MASK).requires_grad_()  # rounding between sampler and trainer
    batch = loss_batch(objective, before_BT=BEFORE, advantages_BT=ADVANTAGES, mask_BT=MASK, max_length=3)
    term = policy_loss(objective, logp, batch).terms[f"llds_{gate}"].sum()
    term.backward()
    assert term.item() == 0 and logp.grad.abs().max() == 0


@pytest.mark.parametrize("reward", [0.0, 0.1, 0.95, 1.0])
@pytest.mark.parametrize("component", [Component(norm="std"), Component(norm="none"), Component(base="leave_one_out", norm="none")])
def test_a_tied_group_teaches_exactly_nothing(component, reward):
    assert advantages(component, rewards=torch.full((8,), reward)).abs().max() == 0.0


def test_failed_rollouts_leave_the_statistics():
    # rewards 1, 0 and one failure: mean 1/2, std over n−1 = √(1/2), so ±1/√2 and 0
    found = advantages(Component(norm="std"), rewards=torch.tensor([1.0, 0.0, float("nan")]), epsilon=0.0)
    torch.testing.assert_close(found, torch.tensor([0.5**0.5, -(0.5**0.5), 0.0], dtype=torch.float64))


def test_groups_do_not_mix():
    rewards = torch.tensor([1.0, 0, 5, 3])
    found, base = credit(Facts(rewards_B=rewards), torch.tensor([0, 0, 1, 1]), torch.ones(4, dtype=torch.bool), [Component(norm="none")])
    assert found.tolist() == [0.5, -0.5, 1, -1]
    assert base.tolist() == [0.5, 0.5, 4, 4]


def test_negative_and_positive_sample_reinforcement():
    # one mixed group and one that is all wrong; total rewards of any size, the verdict alone counts
    facts = Facts(rewards_B=torch.tensor([3.0, 0.2, 0, 0]), verdicts_B=torch.tensor([1.0, -1, -1, -1]))
    group, scored = torch.tensor([0, 0, 1, 1]), torch.tensor([True, True, True, False])

    def of(name):
        return credit(facts, group, scored, METHODS[name].credit)[0].tolist()

    assert of("psr") == [1, 0, 0, 0] and of("nsr") == [0, -1, -1, 0] and of("w_reinforce") == [0.1, -1, -1, 0]


def test_reinforce_has_value_a_and_gradient_a_wherever_the_policy_is():
    objective = of_method("gtpo", clip=(0, 0), normaliser="token")
    result, grad = graded(objective)
    assert result.total.item() == pytest.approx(-(ADVANTAGES * MASK).sum().item() / 8)
    torch.testing.assert_close(grad, -ADVANTAGES * MASK / 8)
    assert not result.side_BT.any()


def test_multipliers_weigh_the_policy_term_and_not_the_penalties():
    objective = of_method("grpo", penalties={"kl_ref_k3": 1.0})
    doubled, halves = torch.full_like(MASK, 2.0), torch.zeros_like(MASK)
    plain = graded(objective, ref_BT=REF)[0].terms
    for factor, multipliers in ((2, doubled), (0, halves)):
        found = graded(objective, ref_BT=REF, multipliers_BT=multipliers)[0].terms
        torch.testing.assert_close(found["policy"], factor * plain["policy"])
        torch.testing.assert_close(found["kl_ref_k3"], plain["kl_ref_k3"])


def one_token(objective: Objective, ratio: float, advantage: float) -> tuple[float, float, int]:
    """Loss, its gradient and the clip side of a single token."""
    logp = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, 1, dtype=torch.float64)
    found = policy_loss(objective, logp, loss_batch(objective, before_BT=0 * one, advantages_BT=advantage * one, mask_BT=one, max_length=1))
    found.total.backward()
    return found.total.item(), logp.grad.item(), int(found.side_BT)


@pytest.mark.parametrize(("ratio", "advantage", "loss", "gradient"), [(6, -1, 3.0, 0.0), (2, -1, 2.0, 2.0), (6, 1, -1.3, 0.0), (0.5, -1, 0.8, 0.0)])
def test_dual_clip(ratio, advantage, loss, gradient):
    """ARPO's bounds .2/.3: ρ = 6 with A = −1 costs 3 and pushes nothing; below the bounds it is the clip."""
    assert one_token(of_method("arpo"), ratio, advantage)[:2] == pytest.approx((loss, gradient), abs=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "side"),
    [(6, -1, 4.0, 0.0, 1), (3, -1, 3.0, 3.0, 0), (6, 1, -1.2, 0.0, 1), (1.1, 1, -1.1, -1.1, 0), (0.5, -1, 0.8, 0.0, -1)],
)
def test_no_ratio_counts_as_more_than_the_cap(ratio, advantage, loss, gradient, side):
    """TRL's δ = 4: ρ = 6 with A = −1 costs 4 and pushes nothing."""
    assert one_token(of_method("grpo", cap=4.0), ratio, advantage) == pytest.approx((loss, gradient, side), abs=1e-6)
    without = one_token(of_method("grpo"), ratio, advantage)
    assert without == pytest.approx((6.0, 6.0, 0) if ratio == 6 and advantage < 0 else (loss, gradient, side), abs=1e-6)

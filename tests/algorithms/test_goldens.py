"""Hand-worked and cross-checked numbers: one prompt, G = 4, T = 3, lengths [2, 3, 1, 2], rewards [1, 0, 0, 1].

Values and gradients were compared with verl's own functions where the method exists there.
"""

import pytest
import torch

from grpo_core.algorithms.credit import credit
from grpo_core.algorithms.loss import Objective, loss_batch, policy_loss
from grpo_core.methods import METHODS, Component

MASK = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0]], dtype=torch.float64)
BEFORE = torch.tensor([[-1.0, -0.5, 0], [-2.0, -1.0, -0.7], [-0.3, 0, 0], [-1.2, -0.4, 0]], dtype=torch.float64)
LOGP = BEFORE + torch.tensor([[0.1, -0.2, 0], [0.3, 0, -0.1], [-0.4, 0, 0], [0, 0.25, 0]], dtype=torch.float64)
REF = BEFORE - 0.05 * MASK
REWARDS = torch.tensor([1.0, 0, 0, 1])
ADVANTAGES = torch.tensor([0.5, -0.5, -0.5, 0.5], dtype=torch.float64)[:, None].expand(4, 3)


def advantages(*components: Component, rewards=REWARDS, epsilon=1e-6):
    scored = ~torch.isnan(rewards)
    return credit(rewards, torch.zeros(len(rewards), dtype=torch.long), scored, components, epsilon=epsilon)[0]


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
    ],
)
def test_advantages(component, epsilon, size):
    expected = size * torch.tensor([1.0, -1, -1, 1], dtype=torch.float64)
    torch.testing.assert_close(advantages(component, epsilon=epsilon), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "changes", "loss", "gradient"),
    [
        ("grpo", {"normaliser": "token"}, -0.004325, [[-0.069073, -0.051171, 0], [0.084366, 0.0625, 0.056552], [0, 0, 0], [-0.0625, 0, 0]]),
        ("grpo", {}, -0.022132, [[-0.069073, -0.051171, 0], [0.056244, 0.041667, 0.037702], [0, 0, 0], [-0.0625, 0, 0]]),
        ("dr_grpo", {}, -0.002884, [[-0.046049, -0.034114, 0], [0.056244, 0.041667, 0.037702], [0, 0, 0], [-0.041667, 0, 0]]),
        ("dapo", {}, -0.009325, [[-0.069073, -0.051171, 0], [0.084366, 0.0625, 0.056552], [0, 0, 0], [-0.0625, 0, 0]]),
        ("gspo", {"clip": (0.2, 0.2)}, -0.026930, [[-0.059452, -0.059452, 0], [0.044539, 0.044539, 0.044539], [0, 0, 0], [-0.070822, -0.070822, 0]]),
        ("rloo", {}, -0.022132, [[-0.069073, -0.051171, 0], [0.056244, 0.041667, 0.037702], [0, 0, 0], [-0.0625, 0, 0]]),
    ],
)
def test_loss_and_gradient(name, changes, loss, gradient):
    result, grad = graded(of_method(name, **changes))
    assert result.total.item() == pytest.approx(loss, abs=1e-6)
    torch.testing.assert_close(grad, torch.tensor(gradient, dtype=torch.float64), atol=1e-6, rtol=0)


def test_clip_sides():
    # ratios 1.105 .819 | 1.350 1 .905 | .670 | 1 1.284; A = + − − +: only row 2 (low, A<0) and row 3's last (high, A>0) are held
    result, _ = graded(of_method("grpo"))
    assert result.side_BT.tolist() == [[0, 0, 0], [0, 0, 0], [-1, 0, 0], [0, 1, 0]]


def test_k3_to_reference():
    # token-mean k3 of KL(policy ‖ reference) on the toy batch is .023856
    objective = of_method("grpo", normaliser="token", penalties={"kl_ref_k3": 1.0})
    result, _ = graded(objective, ref_BT=REF)
    assert result.terms["kl_ref_k3"].sum().item() == pytest.approx(0.023856, abs=1e-6)


def test_llds_response_by_hand():
    # Response 0 (A = +1, 5 trained tokens, token 2 a tool's): before − now = −.2, .1, ., .4, −.1, 0; its sum .2 > 0 opens the gate.
    # numerator .1 + .4 = .5; paper's normaliser counts the 5 preserved tokens: .2 · .5 / 5 = .02. Response 1 (A = −1) adds nothing.
    before = torch.tensor([[-1, -1, 0, -0.5, -0.5, -0.5], [-1, -1, -1, -1, -1, 0]], dtype=torch.float64)
    now = torch.tensor([[-0.8, -1.1, 0, -0.9, -0.4, -0.5], [-2, -2, -2, -2, -2, 0]], dtype=torch.float64).requires_grad_()
    mask = torch.tensor([[1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 0]], dtype=torch.float64)
    advantage = torch.tensor([[1.0], [-1.0]], dtype=torch.float64).expand(2, 6)
    objective = of_method("grpo_llds", penalties={"llds_response": 0.2})
    batch = loss_batch(objective, before_BT=before, advantages_BT=advantage, mask_BT=mask, max_length=6)
    term = policy_loss(objective, now, batch).terms["llds_response"].sum()
    term.backward()
    assert term.item() == pytest.approx(0.02)
    # λ/N on each active token, 0 on the token that did not move
    torch.testing.assert_close(now.grad[0], torch.tensor([0, -0.04, 0, -0.04, 0, 0], dtype=torch.float64))
    assert now.grad[1].abs().max() == 0


def test_llds_is_zero_while_the_policy_is_the_sampler():
    objective = of_method("grpo_llds", penalties={"llds_response": 0.2})
    logp = (BEFORE - 1e-5 * MASK).requires_grad_()  # rounding between sampler and trainer
    batch = loss_batch(objective, before_BT=BEFORE, advantages_BT=ADVANTAGES, mask_BT=MASK, max_length=3)
    term = policy_loss(objective, logp, batch).terms["llds_response"].sum()
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
    found, base = credit(rewards, torch.tensor([0, 0, 1, 1]), torch.ones(4, dtype=torch.bool), [Component(norm="none")])
    assert found.tolist() == [0.5, -0.5, 1, -1]
    assert base.tolist() == [0.5, 0.5, 4, 4]

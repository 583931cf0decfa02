"""GRAO: the group and its worked answer as one objective, against worked numbers and the paper's own sum."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_core.algorithms.credit import credit
from grpo_core.algorithms.loss import Objective, loss_batch, policy_loss
from grpo_core.algorithms.values import Facts
from grpo_core.methods import METHODS
from grpo_core.objectives import multipliers_of
from tests.algorithms.test_invariances import random_batch

METHOD = METHODS["grao"]
OBJECTIVE = Objective(surrogate="log_prob", level="token", clip=(0, 0), normaliser="sequence", penalties={})
LAMBDA = 0.6


def grao(logp_BT, mask_BT, rewards_B, reference_B, group_B, parts=None):
    """(advantages, loss, gradient) by the registries, in the parts of a micro-batch."""
    facts = Facts(rewards_B=rewards_B, entropies_B=torch.zeros_like(rewards_B), reference_B=reference_B)
    advantages_B, _ = credit(facts, group_B, ~rewards_B.isnan(), METHOD.credit)
    mask_BT = mask_BT * ~rewards_B.isnan()[:, None]
    weights_BT = multipliers_of(METHOD, facts, ids_BT=torch.zeros_like(mask_BT).long(), mask_BT=mask_BT, group_B=group_B, first_entropy=0.0)
    logp = logp_BT.clone().requires_grad_()
    whole = loss_batch(
        OBJECTIVE, before_BT=logp_BT, advantages_BT=advantages_B[:, None] * mask_BT, mask_BT=mask_BT, max_length=3, multipliers_BT=weights_BT
    )
    loss = sum(policy_loss(OBJECTIVE, logp[part], whole.rows(part)).total for part in parts or [slice(None)])
    loss.backward()
    return advantages_B, loss.detach(), logp.grad


def directly(logp_BT, mask_BT, advantages_B, reference_B, group_B, beta=0.5):
    """−J as the paper writes it, group by group, and its gradient; rows of every group alike in number."""
    logp = logp_BT.clone().requires_grad_()
    mean_B = (logp * mask_BT).sum(1) / mask_BT.sum(1)
    values = []
    for group in group_B.unique():
        sampled, worked = (group_B == group) & ~reference_B, (group_B == group) & reference_B
        a, j, j_y = advantages_B[sampled], mean_B[sampled], mean_B[worked]
        values.append((a * j).mean() + beta * (advantages_B[worked] * j_y).sum() + LAMBDA * (a * (j - j_y)).mean())
    loss = -torch.stack(values).mean()
    return loss.detach(), torch.autograd.grad(loss, logp)[0]


def test_by_hand():
    logp = torch.tensor([[-0.9, -0.7, 0], [-1.7, -1, -0.8], [-0.7, 0, 0], [-1.2, -0.15, 0], [-0.8, 0, 0]], dtype=torch.float64)
    mask = (logp != 0).double()
    rewards, reference = torch.tensor([1.0, 0, 0, 1, 1], dtype=torch.float64), torch.arange(5) == 4
    advantages, loss, gradient = grao(logp, mask, rewards, reference, torch.zeros(5, dtype=torch.long))
    torch.testing.assert_close(advantages, torch.tensor([0.816497, -1.224745, -1.224745, 0.816497, 0.816497], dtype=torch.float64), atol=1e-5, rtol=0)
    assert -loss == pytest.approx(0.008165, abs=1e-5)
    want, want_gradient = directly(logp, mask, advantages, reference, torch.zeros(5, dtype=torch.long))
    torch.testing.assert_close(loss, want)
    torch.testing.assert_close(gradient, want_gradient)
    assert gradient[4, 0] == pytest.approx(-0.816497 * (0.5 + LAMBDA / 4), abs=1e-5)  # E5: the answer's share is β + λ/G


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_it_is_the_papers_sum_in_any_order_width_and_micro_batch(seed):
    batch = random_batch(seed)
    rewards, reference = torch.tensor([1.0, 0, 1, 0.5, 0, 1], dtype=torch.float64), torch.arange(6) % 3 == 2
    inputs = (batch["logp"], batch["mask"], rewards, reference, batch["group"])
    advantages, loss, gradient = grao(*inputs)
    want, want_gradient = directly(batch["logp"], batch["mask"], advantages, reference, batch["group"])
    torch.testing.assert_close(loss, want)
    torch.testing.assert_close(gradient, want_gradient)
    split = grao(*inputs, parts=[slice(0, 2), slice(2, 5), slice(5, 6)])
    torch.testing.assert_close(split[1:], (loss, gradient))
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    shuffled = grao(*(values[order] for values in inputs))
    torch.testing.assert_close(shuffled[1:], (loss, gradient[order]))
    wide = [torch.cat([values, torch.zeros(6, 2, dtype=torch.float64)], dim=1) for values in inputs[:2]]
    padded = grao(*wide, *inputs[2:])
    torch.testing.assert_close((padded[1], padded[2][:, :5]), (loss, gradient))


def test_tied_groups_failed_rows_and_groups_without_an_answer():
    logp, mask, group = -torch.ones(3, 2, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64), torch.zeros(3, dtype=torch.long)
    reference = torch.tensor([False, False, True])
    nan = float("nan")
    assert not grao(logp, mask, torch.ones(3, dtype=torch.float64), reference, group)[2].any()
    failed = grao(logp, mask, torch.tensor([0.0, nan, 1.0], dtype=torch.float64), reference, group)
    kept = torch.tensor([0, 2])
    want = directly(logp[kept], mask[kept], failed[0][kept], reference[kept], group[kept])[1]
    torch.testing.assert_close(failed[2], torch.stack([want[0], torch.zeros(2, dtype=torch.float64), want[1]]))
    without = grao(logp, mask, torch.tensor([0.0, 1.0, nan], dtype=torch.float64), reference, group)
    torch.testing.assert_close(without[2], torch.tensor([[0.4, 0.4], [-0.4, -0.4], [0, 0]], dtype=torch.float64), atol=1e-5, rtol=0)

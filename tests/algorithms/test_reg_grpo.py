"""Reg-GRPO (arXiv:2506.07464) on the toy batch of test_goldens, and what it is equal to."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_core.algorithms.loss import Objective, loss_batch, policy_loss
from grpo_core.method_row import Component
from grpo_core.methods import METHODS
from tests.algorithms.test_goldens import BEFORE, LOGP, MASK, advantages
from tests.algorithms.test_invariances import random_batch

METHOD = METHODS["reg_grpo"]
ONE_GROUP = torch.zeros(4, dtype=torch.long)


def fitted(logp, advantages_B, *, before=BEFORE, mask=MASK, group=ONE_GROUP, floor=0.01, parts=None):
    """(objective, gradient of the loss)."""
    chosen = Objective(surrogate=METHOD.surrogate, level=METHOD.level, clip=(0, 0), normaliser=METHOD.normaliser, penalties={}, group=("regress", floor))
    logp = logp.clone().requires_grad_()
    inputs = dict(before_BT=before, advantages_BT=advantages_B[:, None].expand_as(mask), mask_BT=mask, max_length=3, group_B=group, now_BT=logp.detach())
    whole = loss_batch(chosen, **inputs)
    sum(policy_loss(chosen, logp[part], whole.rows(part)).total for part in parts or [slice(None)]).backward()
    return whole.objective.item(), logp.grad


def directly(logp, advantages_B, before, mask):
    """The mean squared difference of one group, by autograd."""
    logp = logp.clone().requires_grad_()
    ratios = ((logp - before) * mask).sum(1)
    loss = ((advantages_B - (ratios - ratios.mean()) / ratios.std(correction=0)) ** 2).mean()
    return loss.item(), torch.autograd.grad(loss, logp)[0]


def test_by_hand():
    # log-ratios −.1 .2 −.4 .25 against rewards 1 0 0 1: 2 · (1 − corr)
    advantages_B = advantages(METHOD.credit[0])
    value, grad = fitted(LOGP, advantages_B)
    corr = torch.corrcoef(torch.tensor([[-0.1, 0.2, -0.4, 0.25], [1.0, 0, 0, 1]]))[0, 1].item()
    assert -value == pytest.approx(1.328751, abs=1e-5) == pytest.approx(2 * (1 - corr), abs=1e-5)
    loss, want = directly(LOGP, advantages_B, BEFORE, MASK)
    assert -value == pytest.approx(loss)
    torch.testing.assert_close(grad, want)


def test_at_the_policy_that_sampled_the_floor_sets_the_gradient():
    """All log-ratios are 0: the gradient is REINFORCE's over whole completions times 2 / floor, where without a floor it is 0/0."""
    advantages_B = advantages(METHOD.credit[0])
    value, grad = fitted(BEFORE, advantages_B)
    assert -value == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(grad, -200 * advantages_B[:, None] / 4 * MASK)


def test_the_value_at_the_policy_that_sampled():
    """Every log-ratio is 0, so the mean of A² is left: 0.74974 with the std over n−1 and ε = 1e-4, as in TRL; 1 with the row's std over n."""
    assert -fitted(BEFORE, advantages(Component(norm="std"), epsilon=1e-4))[0] == pytest.approx(0.74974, abs=1e-5)


def test_a_tied_group_is_taught_nothing_and_failed_rows_take_no_part():
    assert not fitted(LOGP, torch.zeros(4, dtype=torch.float64))[1].any()
    mask, advantages_B = MASK.clone(), torch.tensor([1.0, -1, 0, 0.0], dtype=torch.float64)
    mask[3] = 0
    value, grad = fitted(LOGP, advantages_B, mask=mask)
    loss, want = directly(LOGP[:3], advantages_B[:3], BEFORE[:3], MASK[:3])
    assert -value == pytest.approx(loss) and not grad[3].any()
    torch.testing.assert_close(grad[:3], want)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_groups_may_be_split_over_micro_batches_and_only_the_spacing_of_changes_counts(seed):
    batch = random_batch(seed)
    advantages_B = torch.tensor([1.0, -1, 0, 0.5, 0.5, -1], dtype=torch.float64)
    inputs = dict(before=batch["before"], mask=batch["mask"], group=batch["group"])
    value, whole = fitted(batch["logp"], advantages_B, **inputs)
    split = fitted(batch["logp"], advantages_B, parts=[slice(0, 1), slice(1, 5), slice(5, 6)], **inputs)[1]
    torch.testing.assert_close(split, whole)
    twice = batch["before"] + 2 * (batch["logp"] - batch["before"])
    assert fitted(twice, advantages_B, floor=1e-4, **inputs)[0] == pytest.approx(fitted(batch["logp"], advantages_B, floor=1e-4, **inputs)[0])

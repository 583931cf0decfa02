"""GEPO's preference of winners over losers as a term beside the policy loss: values, gradients, and what leaves them alone."""

from math import exp

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_core.algorithms.group_objectives import Scores, slopes
from grpo_core.algorithms.loss import Objective, loss_batch, policy_loss
from grpo_core.algorithms.penalties import GEPO_BETA, prefer_winners
from grpo_core.errors import ConfigError
from tests.algorithms.test_invariances import random_batch
from tests.trainer.small_runs import small_config

ONLY = Objective(surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token", penalties={"gepo": 0.01})


def directly(rewards_B, signs_B, group_B):
    """L_GEPO as the paper writes it, a group at a time, the variance over n."""
    values = []
    for group in group_B.unique():
        won, lost = rewards_B[(group_B == group) & (signs_B > 0)], rewards_B[(group_B == group) & (signs_B < 0)]
        both = len(won) and len(lost)
        values.append(-torch.log(torch.sigmoid(won.mean() - lost.mean())) + won.var(correction=0) if both else rewards_B.sum() * 0)
    return torch.stack(values).mean()


def test_by_hand():
    """Winners .2 and .4, losers −.1 and .1: −log σ(.3) = .554355 and a variance of .01."""
    rewards = torch.tensor([0.2, 0.4, -0.1, 0.1], dtype=torch.float64)
    signs, one = torch.tensor([1.0, 1, -1, -1]), torch.zeros(4, dtype=torch.long)
    rows = Scores(scores_B=rewards / GEPO_BETA, advantages_B=signs, group_B=one, inside_B=torch.ones(4, dtype=torch.bool))
    slope, value = slopes(prefer_winners, rows)
    assert value == pytest.approx(0.554355 + 0.01, abs=1e-6) and value == pytest.approx(directly(rewards, signs, one).item())
    pull = 1 / (1 + exp(0.3)) / 2
    want = GEPO_BETA * torch.tensor([-pull - 0.1, -pull + 0.1, pull, pull], dtype=torch.float64)
    torch.testing.assert_close(slope, want)


def stream(batch, advantages, objective=ONLY, parts=None):
    """(GEPO's term, gradient of the whole loss)."""
    logp = batch["logp"].clone().requires_grad_()
    whole = loss_batch(
        objective, before_BT=batch["before"], advantages_BT=advantages, mask_BT=batch["mask"], max_length=5, ref_BT=batch["ref"], group_B=batch["group"],
        now_BT=batch["logp"],
    )  # fmt: skip
    losses = [policy_loss(objective, logp[part], whole.rows(part)) for part in parts or [slice(None)]]
    sum(loss.total for loss in losses).backward()
    return sum(loss.terms.get("gepo", torch.zeros(())).sum() for loss in losses).detach(), logp.grad


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_its_term_is_its_value_and_its_gradient_exact_in_any_micro_batches(seed):
    batch = random_batch(seed)
    signs = torch.tensor([1.0, -1, 1, 1, -1, -1], dtype=torch.float64)
    advantages = signs[:, None] * batch["mask"]
    plain = stream(batch, advantages, Objective(surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token", penalties={}))[1]
    logp = batch["logp"].clone().requires_grad_()
    loss = 0.01 * directly(GEPO_BETA * ((logp - batch["ref"]) * batch["mask"]).sum(1), signs, batch["group"])
    want = torch.autograd.grad(loss, logp)[0]
    for parts in (None, [slice(0, 1), slice(1, 5), slice(5, 6)]):
        term, gradient = stream(batch, advantages, parts=parts)
        torch.testing.assert_close(term, loss.detach())
        torch.testing.assert_close(gradient - plain, want)


def test_a_group_of_one_kind_is_not_pulled_and_failed_rows_take_no_part():
    batch = random_batch(1)
    signs = torch.tensor([1.0, 1, 1, 1, -1, 1], dtype=torch.float64)
    rows = Scores(scores_B=torch.arange(6.0), advantages_B=signs, group_B=batch["group"], inside_B=torch.tensor([True] * 5 + [False]))
    slope, value = slopes(prefer_winners, rows)
    assert not slope[:3].any() and slope[3] < 0 < slope[4] and slope[5] == 0
    assert value == pytest.approx(torch.log1p(torch.tensor(GEPO_BETA).exp()).item() / 2)  # one winner, one loser, 1 nat·β behind; two groups


def test_a_group_of_one_has_nobody_to_prefer():
    with pytest.raises(ConfigError, match="group_size=1"):
        small_config(method="gepo", group_size=1)

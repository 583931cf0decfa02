"""DisCO (arXiv:2505.12366) on the toy batch of test_goldens, against numbers of its released functions, and its identities."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_core.algorithms.credit import credit
from grpo_core.algorithms.group_objectives import Scores, pulls
from grpo_core.algorithms.loss import Objective, loss_batch, policy_loss
from grpo_core.algorithms.values import Facts
from grpo_core.methods import METHODS
from tests.algorithms.test_goldens import BEFORE, LOGP, MASK
from tests.algorithms.test_invariances import random_batch

VERDICTS = torch.tensor([1.0, -1, -1, 1])
ONE_GROUP = torch.zeros(4, dtype=torch.long)


def objective(name: str, *, beta: float = 1000.0) -> Objective:
    method = METHODS[name]
    group = None if method.group is None else (method.group.name, method.group.value)
    return Objective(
        surrogate=method.surrogate, level=method.level, clip=(0, 0), normaliser=method.normaliser, penalties={"kl_hinge": beta} if beta else {}, group=group
    )


def earned(verdicts, group, scored=None):
    facts = Facts(rewards_B=torch.zeros(len(verdicts)), verdicts_B=verdicts)
    return credit(facts, group, torch.ones(len(verdicts), dtype=torch.bool) if scored is None else scored, METHODS["disco_b"].credit)[0]


def graded(name, logp, *, beta=1000.0, verdicts=VERDICTS, group=ONE_GROUP, before=BEFORE, mask=MASK, parts=None):
    logp = logp.clone().requires_grad_()
    chosen = objective(name, beta=beta)
    advantages = earned(verdicts, group)[:, None].expand_as(mask)
    whole = loss_batch(chosen, before_BT=before, advantages_BT=advantages, mask_BT=mask, max_length=3, group_B=group, now_BT=logp.detach())
    losses = [policy_loss(chosen, logp[part], whole.rows(part)) for part in parts or [slice(None)]]
    sum(one.total for one in losses).backward()
    return losses, whole, logp.grad


def test_advantages_are_one_over_the_share_of_each_side():
    # p = 1/4: 1/p = 4 and −1/(1−p) = −4/3
    found = earned(torch.tensor([1.0, -1, -1, -1]), ONE_GROUP)
    torch.testing.assert_close(found, torch.tensor([4, -4 / 3, -4 / 3, -4 / 3], dtype=torch.float64))
    assert not earned(torch.ones(4), ONE_GROUP).any() and not earned(-torch.ones(4), ONE_GROUP).any()
    failed = earned(torch.tensor([1.0, -1, -1, 0]), ONE_GROUP, torch.tensor([True, True, True, False]))
    torch.testing.assert_close(failed, torch.tensor([3, -1.5, -1.5, 0], dtype=torch.float64))


def test_the_basic_form_by_hand():
    (loss,), whole, grad = graded("disco_b", LOGP)
    # scores −.8 −1.166667 −.7 −.675: J = .195833; KL .00625 and (KL − 1e-4) · KL · 1000 = .038437
    assert loss.terms["policy"].sum().item() == pytest.approx(-0.195833, abs=1e-6)
    assert loss.terms["kl_hinge"].sum().item() == pytest.approx(0.038437, abs=1e-6)
    assert loss.total.item() == pytest.approx(-0.157396, abs=1e-6) and whole.objective is None
    # each right row pushes ½ over its length, each wrong one −½; the hinge 1000 · .00615 / 8 on every token
    lengths = MASK.sum(1, keepdim=True)
    want = (-0.5 * VERDICTS[:, None] / lengths - 1000 * 0.00615 / 8) * MASK
    torch.testing.assert_close(grad, want)


@pytest.mark.parametrize(("name", "true"), [("disco", -0.154674), ("disco_ratio", -0.114603)])
def test_the_true_objective_is_kept_beside_a_loss_that_does_not_say_it(name, true):
    (loss,), whole, _ = graded(name, LOGP)
    assert -whole.objective.item() + loss.terms["kl_hinge"].sum().item() == pytest.approx(true, abs=1e-6)


@pytest.mark.parametrize("name", ["disco", "disco_ratio"])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_gradient_is_that_of_the_objective_itself(name, seed):
    """∂/∂logp of mean s⁺ − τ log mean exp(s⁻/τ), by autograd, in two groups of which one may have one side only."""
    batch, generator = random_batch(seed), torch.Generator().manual_seed(seed)
    verdicts = torch.randint(0, 2, (6,), generator=generator) * 2.0 - 1
    logp, tau = batch["logp"].clone().requires_grad_(), METHODS[name].group.value
    token = logp if name == "disco" else (logp - batch["before"]).exp()
    scores = (token * batch["mask"]).sum(1) / batch["mask"].sum(1)
    total = 0.0
    for group in (slice(0, 3), slice(3, 6)):
        good, bad = scores[group][verdicts[group] > 0], scores[group][verdicts[group] < 0]
        if len(good) and len(bad):
            total = total + good.mean() - tau * ((bad / tau).exp().mean()).log()
    want = torch.autograd.grad(-total / 2, logp)[0] if isinstance(total, torch.Tensor) else torch.zeros_like(logp)
    _, whole, grad = graded(name, batch["logp"], beta=0.0, verdicts=verdicts, group=batch["group"], before=batch["before"], mask=batch["mask"])
    torch.testing.assert_close(grad, want)
    assert whole.objective.item() == pytest.approx(float(torch.as_tensor(total).detach()) / 2, abs=1e-9)
    inputs = dict(verdicts=verdicts, group=batch["group"], before=batch["before"], mask=batch["mask"])
    split = graded(name, batch["logp"], parts=[slice(0, 2), slice(2, 6)], **inputs)[2]  # micro-batches that split a group
    torch.testing.assert_close(split, graded(name, batch["logp"], **inputs)[2])


def test_at_a_large_temperature_all_wrong_answers_weigh_alike():
    rows = Scores(
        scores_B=torch.tensor([-1.0, -2, -3, -4]), advantages_B=torch.tensor([2.0, -1, -1, -1]), group_B=ONE_GROUP, inside_B=torch.ones(4, dtype=torch.bool)
    )
    hot, value = pulls("discriminate", rows, 1e6)
    torch.testing.assert_close(hot, torch.tensor([4, -4 / 3, -4 / 3, -4 / 3]), atol=1e-5, rtol=0)  # those of the basic form
    assert value.item() == pytest.approx(2, abs=1e-2)
    assert pulls("discriminate", rows, 0.01)[0].tolist() == pytest.approx([4, -4, 0, 0], abs=1e-6)  # the likeliest wrong answer alone


def test_the_bound_by_hand():
    """Every token .01 less likely: KL .01, term 1000 · .0099 · .01 and gradient −1000 · .0099 / 8 on all 8 tokens; nothing below the bound."""
    (loss,), _, grad = graded("disco_b", BEFORE - 0.01 * MASK)
    plain = graded("disco_b", BEFORE - 0.01 * MASK, beta=0.0)[2]
    assert loss.terms["kl_hinge"].sum().item() == pytest.approx(0.099, abs=1e-6)
    torch.testing.assert_close(grad - plain, -1.2375 * MASK)
    for moved in (0.0, 5e-5, -0.01):  # where it was, within the bound, and likelier
        (loss,), _, grad = graded("disco_b", BEFORE - moved * MASK)
        torch.testing.assert_close(grad, graded("disco_b", BEFORE - moved * MASK, beta=0.0)[2])


def test_the_two_scores_agree_while_the_policy_is_the_sampler():
    log_l, l_ratio = (graded(name, BEFORE)[2] for name in ("disco_b", "disco_b_ratio"))
    torch.testing.assert_close(l_ratio, log_l)

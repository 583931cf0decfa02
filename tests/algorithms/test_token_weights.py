"""Facts that hold for the token weights W of every rule, and for the loss under the W of every method: padding, row order, and what others wrote."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from grpo_core.algorithms.loss import loss_batch, policy_loss
from grpo_core.algorithms.nthr import Pull
from grpo_core.algorithms.segments import gigpo, hrpo
from grpo_core.algorithms.weights import WEIGHTS, Written, token_weights
from grpo_core.method_row import Weight
from grpo_core.methods import METHODS
from tests.algorithms.test_goldens import of_method

WEIGHED = {name: method for name, method in METHODS.items() if method.weights} | {"gtpo_released": METHODS["gtpo"].as_released()}
ROWS, WIDTH = 8, 6


def random_written(seed: int) -> Written:
    """Two groups of four over three tokens, so that runs meet; every row begins with a trained token and may have holes."""
    generator = torch.Generator().manual_seed(seed)

    def number(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    mask_BT = (number(ROWS, WIDTH) < 0.7).double()
    mask_BT[:, 0] = 1
    ids_BT = torch.randint(1, 4, (ROWS, WIDTH), generator=generator)
    group_B = torch.arange(ROWS) // 4
    pull = Pull(
        scores_BT=torch.where(number(ROWS, WIDTH) < 0.2, torch.nan, number(ROWS, WIDTH) - 0.3), anchor_B=number(2)[group_B], damping_B=number(2)[group_B]
    )
    return Written(
        ids_BT=ids_BT, mask_BT=mask_BT, group_B=group_B, advantages_B=torch.randint(-1, 2, (ROWS,), generator=generator).double(), entropies_B=number(ROWS),
        first_entropy=0.5, reference_B=torch.arange(ROWS) % 4 == 3, pull=pull,
    )  # fmt: skip


def changed(written: Written, tokens, rows=lambda values_B: values_B) -> Written:
    """The same batch with `tokens` done to everything per token and `rows` to everything per row."""
    pull = Pull(scores_BT=tokens(written.pull.scores_BT), anchor_B=rows(written.pull.anchor_B), damping_B=rows(written.pull.damping_B))
    per_row = {name: rows(getattr(written, name)) for name in ("group_B", "advantages_B", "entropies_B", "reference_B")}
    return replace(written, ids_BT=tokens(written.ids_BT), mask_BT=tokens(written.mask_BT), pull=pull, **per_row)


def wider(values_BT: Tensor) -> Tensor:
    return torch.cat([values_BT, torch.zeros(len(values_BT), 3, dtype=values_BT.dtype)], dim=1)


def to_the_front(mask_BT: Tensor) -> Tensor:
    """The order that brings trained tokens together: with its holes at the end a completion is as if they were cut out."""
    return (mask_BT == 0).long().argsort(dim=1, stable=True)


def of_rule(name: str, written: Written) -> Tensor:
    return token_weights(written, [Weight(name=name, value=0.6)]) * written.mask_BT


@pytest.mark.parametrize("rule", sorted(WEIGHTS))
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_padding_row_order_and_what_others_wrote_change_no_weight(rule, seed):
    written = random_written(seed)
    found = of_rule(rule, written)
    torch.testing.assert_close(of_rule(rule, changed(written, wider)), wider(found))
    order_B = torch.randperm(ROWS, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(of_rule(rule, changed(written, lambda v: v[order_B], lambda v: v[order_B])), found[order_B])
    front_BT = to_the_front(written.mask_BT)
    torch.testing.assert_close(of_rule(rule, changed(written, lambda v: v.gather(1, front_BT))), found.gather(1, front_BT))
    elsewhere = replace(written, ids_BT=torch.where(written.mask_BT > 0, written.ids_BT, 9))
    torch.testing.assert_close(of_rule(rule, elsewhere), found)


@pytest.mark.parametrize("name", sorted(WEIGHED))
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_padding_row_order_and_what_others_wrote_change_no_loss_under_weights(name, seed):
    method, written = WEIGHED[name], random_written(seed)
    generator = torch.Generator().manual_seed(seed)
    before_BT = -torch.rand(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    logp_BT = before_BT + 0.3 * torch.randn(ROWS, WIDTH, generator=generator, dtype=torch.float64)
    objective = of_method(method.name, normaliser=method.normaliser, clip=method.clip or (0, 0))

    def graded(change=lambda v: v, rows=lambda v: v) -> tuple[Tensor, Tensor]:
        now_BT, batch = change(logp_BT).requires_grad_(), changed(written, change, rows)
        advantages_BT = batch.advantages_B[:, None].expand_as(batch.mask_BT)
        inputs = dict(before_BT=change(before_BT), advantages_BT=advantages_BT, mask_BT=batch.mask_BT, max_length=WIDTH, group_B=batch.group_B)
        whole = loss_batch(objective, multipliers_BT=token_weights(batch, method.weights), **inputs)
        loss = policy_loss(objective, now_BT, whole).total
        (gradient,) = torch.autograd.grad(loss, now_BT)
        return loss.detach(), gradient

    loss, gradient = graded(lambda v: v.clone())
    assert not gradient[written.mask_BT == 0].any()
    order_B, front_BT = torch.randperm(ROWS, generator=generator), to_the_front(written.mask_BT)
    torch.testing.assert_close(graded(wider), (loss, wider(gradient)))
    torch.testing.assert_close(graded(lambda v: v[order_B], lambda v: v[order_B]), (loss, gradient[order_B]))
    torch.testing.assert_close(graded(lambda v: v.gather(1, front_BT)), (loss, gradient.gather(1, front_BT)))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_which_trajectory_comes_first_changes_no_credit_of_steps_and_actions(seed):
    """GiGPO's steps of one trajectory stand in order of time; HRPO's actions may stand in any."""
    generator = torch.Generator().manual_seed(seed)
    trajectory_N, rewards_N = torch.arange(12) // 3, torch.randn(12, generator=generator, dtype=torch.float64)
    anchors = torch.randint(0, 3, (12,), generator=generator)
    order_N = (torch.randperm(4, generator=generator)[:, None] * 3 + torch.arange(3)).flatten()
    found = gigpo(rewards_N, trajectory_N, anchors.tolist())
    torch.testing.assert_close(gigpo(rewards_N[order_N], trajectory_N[order_N], anchors[order_N].tolist()), found[order_N])
    systems_M, of_M, any_N = rewards_N[:4], torch.randperm(4, generator=generator), torch.randperm(12, generator=generator)
    moved_N = of_M.argsort()[trajectory_N[any_N]]
    torch.testing.assert_close(hrpo(systems_M[of_M], moved_N, rewards_N[any_N]), hrpo(systems_M, trajectory_N, rewards_N)[any_N])

"""Rank-GRPO in the trainer: every item's own advantage and ratio, recorded, and resumed."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_core.algorithms.loss import Objective, loss_batch, policy_loss
from grpo_core.algorithms.segments import END, rank_credit, rank_rewards
from grpo_core.algorithms.values import Facts
from grpo_core.methods import METHODS
from grpo_core.objectives import credited
from grpo_core.trace.tables import to_tables
from grpo_core.trainer.batch import train_batch
from grpo_core.trainer.clock import Clock
from grpo_core.trainer.collect import collect_groups
from grpo_core.trainer.step import run_step
from tests.trainer.small_runs import small_config, small_state

METHOD = METHODS["rank_grpo"]
ITEMS = torch.tensor([[0, 0, 1, 2, END], [0, 1, END, -1, -1], [0, 0, 1, 2, 3]])
INSIDE = (torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])).double()
HITS = torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 1, 0]], dtype=torch.float64)


def earned(hits=HITS, rewards=(1.0, 0, 0), items=ITEMS, inside=INSIDE):
    facts = Facts(rewards_B=torch.tensor(rewards, dtype=torch.float64), ranks_BK=rank_rewards(hits))
    return credited(METHOD, facts, torch.zeros(len(hits), dtype=torch.long), inside_BT=inside, item_BT=items)


def test_every_token_has_the_advantage_of_its_item():
    """K = 3: a whole list that ends, one that ends early, and one that goes on without an end."""
    credit = rank_credit(rank_rewards(HITS), epsilon=1e-6)
    found = earned()
    a, b, c = credit.tolist()
    want = [[a[0], a[0], a[1], a[2], 0.1], [b[0], b[1], -0.1, 0, 0], [c[0], c[0], c[1], c[2], -0.1]]
    torch.testing.assert_close(found.advantages_BT, torch.tensor(want, dtype=torch.float64))
    assert found.segment_BT.tolist() == [[0, 0, 1, 2, 4], [0, 1, 4, -1, -1], [0, 0, 1, 2, 3]]
    assert found.baseline_B[0] == pytest.approx(rank_rewards(HITS).mean(0).sum().item())


def test_a_list_that_is_too_long_is_charged_for_what_is_beyond_it_and_not_for_its_end():
    items = torch.tensor([[0, 1, 2, END, -1], [0, 1, 2, 3, END], [0, 1, END, -1, -1]])
    found = earned(items=items, inside=(items != -1).double()).advantages_BT
    assert found[0, 3] == pytest.approx(0.1) and found[1, 3:].tolist() == pytest.approx([-0.1, 0]) and found[2, 2] == pytest.approx(-0.1)


def test_a_failed_row_is_left_out_of_its_ranks_and_not_pushed():
    found = earned(rewards=(1.0, 0, float("nan")))
    credit = rank_credit(rank_rewards(HITS[:2]), epsilon=1e-6)
    assert not found.advantages_BT[2].any()
    torch.testing.assert_close(found.advantages_BT[0, 2], credit[0, 1])


def gradient(logp, before, advantages, mask, segments, parts=None):
    objective = Objective(surrogate="clip", level="segment", clip=METHOD.clip, normaliser="sequence", penalties={})
    logp = logp.clone().requires_grad_()
    whole = loss_batch(objective, before_BT=before, advantages_BT=advantages, mask_BT=mask, max_length=5, segment_BT=segments)
    losses = [policy_loss(objective, logp[part], whole.rows(part)) for part in parts or [slice(None)]]
    sum(loss.total for loss in losses).backward()
    return sum(loss.total for loss in losses).detach(), logp.grad, torch.cat([loss.side_BT for loss in losses])


def test_the_clip_holds_items():
    """d = [.1, .3 | −.2, 0, .4]: ratios 1.221403 and 1.068939 against 1.08; the first is held where A > 0, the second never."""
    before, mask = torch.zeros(1, 5, dtype=torch.float64), torch.ones(1, 5, dtype=torch.float64)
    logp, segments = torch.tensor([[0.1, 0.3, -0.2, 0.0, 0.4]], dtype=torch.float64), torch.tensor([[0, 0, 1, 1, 1]])
    loss, found, side = gradient(logp, before, mask, mask, segments)
    assert loss == pytest.approx(-(2 * 1.08 + 3 * 1.068939) / 5, abs=1e-6) and side.tolist() == [[1, 1, 0, 0, 0]]
    torch.testing.assert_close(found, torch.tensor([[0, 0, *[-1.068939 / 5] * 3]], dtype=torch.float64), atol=1e-6, rtol=0)
    down = gradient(logp, before, -mask, mask, segments)[1]
    torch.testing.assert_close(down, torch.tensor([[*[1.221403 / 5] * 2, *[1.068939 / 5] * 3]], dtype=torch.float64), atol=1e-6, rtol=0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_micro_batches_padding_and_order_change_nothing(seed):
    generator = torch.Generator().manual_seed(seed)
    before = -torch.rand(3, 5, generator=generator, dtype=torch.float64) * INSIDE
    logp = before + 0.1 * torch.randn(3, 5, generator=generator, dtype=torch.float64) * INSIDE
    found = earned()
    inputs = (logp, before, found.advantages_BT, INSIDE, found.segment_BT)
    loss, grad, _ = gradient(*inputs)
    torch.testing.assert_close(gradient(*inputs, parts=[slice(0, 1), slice(1, 3)])[:2], (loss, grad))
    order = torch.randperm(3, generator=generator)
    again = earned(HITS[order], tuple(torch.tensor([1.0, 0, 0])[order].tolist()), ITEMS[order], INSIDE[order])
    torch.testing.assert_close(gradient(logp[order], before[order], again.advantages_BT, INSIDE[order], again.segment_BT)[:2], (loss, grad[order]))
    zeros = torch.zeros(3, 2, dtype=torch.float64)
    wide = [torch.cat([values, zeros], dim=1) for values in (logp, before, found.advantages_BT, INSIDE)]
    padded = gradient(*wide, torch.cat([found.segment_BT, torch.full((3, 2), -1)], dim=1))
    torch.testing.assert_close((padded[0], padded[1][:, :5]), (loss, grad))


def test_it_trains_and_its_items_are_recorded(model_cache):
    state = small_state(model_cache, method="rank_grpo", warmup_steps=120, prompts_per_step=8)
    batch = train_batch(state, [j.scored for j in collect_groups(state, 0, Clock()) if j.kept], 0)
    trace = run_step(small_state(model_cache, method="rank_grpo", warmup_steps=120, prompts_per_step=8), 0)
    rollouts = [r for g in trace.groups for r in g.rollouts]
    for r, items in zip(rollouts, batch.unpad(batch.item_BT, "i8"), strict=True):
        assert r.items.tolist() == items.tolist() and (items[-1] == END) == (r.completion.finish == "stop")
        for item in set(items.tolist()) - {END}:
            assert len(set(r.advantages[items == item].tolist())) == 1
    assert len({float(a) for r in rollouts for a in r.advantages}) > 4 and trace.updates[1].clip_high is not None
    stored = to_tables(trace)["rollouts"].to_pylist()
    assert stored[0]["items"] == rollouts[0].items.tolist()
    plain = run_step(small_state(model_cache, warmup_steps=180), 0)
    assert to_tables(plain)["rollouts"].to_pylist()[0]["items"] is None


def test_a_rank_earns_what_its_option_says():
    config = small_config(method="rank_grpo", rank_decay="exp_inf")
    assert config.rank_decay == "exp_inf" and np.isclose(rank_rewards(HITS, decay="exp_inf"), HITS).all()

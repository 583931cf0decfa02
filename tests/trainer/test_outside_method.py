"""A method from outside the package: one row and one pure function, through the public registries alone, trained, weighed and drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from grpo_core.algorithms.credit import NORMS, Rows
from grpo_core.config import make_config
from grpo_core.equations import advantage
from grpo_core.lab.batch import RecordedBatch
from grpo_core.lab.push import push_of
from grpo_core.methods import METHODS, Component, Method
from grpo_core.trainer.step import run_step
from tests.trainer.small_runs import small_state


def range_norm(centred_B: torch.Tensor, rewards_B: torch.Tensor, rows: Rows, epsilon: float) -> torch.Tensor:
    """Divided by the largest reward minus the smallest of the group."""
    n = int(rows.group_B.max()) + 1
    high = torch.full((n,), -torch.inf, dtype=rewards_B.dtype).scatter_reduce(0, rows.group_B, rewards_B, "amax")
    low = torch.full((n,), torch.inf, dtype=rewards_B.dtype).scatter_reduce(0, rows.group_B, rewards_B, "amin")
    return centred_B / ((high - low)[rows.group_B] + epsilon)


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> Method:
    monkeypatch.setattr(NORMS, "_items", dict(NORMS._items))  # so that nothing of it stays
    NORMS.register("range")(range_norm)
    row = Method(
        name="grpo_range", title="GRPO by range", paper="arXiv:0000.00000", summary="Deviations over the range of the group.",
        credit=(Component(base="mean", norm="range"),), surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token",
        protects="nothing", costs="nothing",
    )  # fmt: skip
    monkeypatch.setitem(METHODS, row.name, row)
    return row


def test_it_trains_like_any_other(outside, model_cache):
    trace = run_step(small_state(model_cache, method=outside.name), 0)
    mixed = [g for g in trace.groups if len({r.reward.total for r in g.rollouts}) > 1]
    assert mixed
    for group in mixed:
        rewards = np.array([r.reward.total for r in group.rollouts])
        by_hand = (rewards - rewards.mean()) / np.ptp(rewards)
        np.testing.assert_allclose([r.advantages[0] for r in group.rollouts], by_hand, atol=1e-5)


def test_the_laboratory_weighs_it_and_its_equation_is_drawn(outside):
    nan = np.full(4, np.nan)
    batch = RecordedBatch(
        group_R=np.array([0, 0]), index_R=np.array([0, 1]), reward_R=np.array([2.0, 0.0]), verdict_R=np.array([1.0, -1]), length_R=np.array([2, 2]),
        first_round_R=np.ones(2, "?"), surplus_R=np.zeros(2, "?"), token_ids_N=np.arange(4), logp_N=np.full(4, -1.0), delta_N=nan, ref_N=nan, entropy_N=nan,
        first_entropy=float("nan"), max_length=2,
    )  # fmt: skip
    push = push_of(batch, make_config({"method": outside.name}), after=False)
    np.testing.assert_allclose(push.advantage_R, [0.5, -0.5], atol=1e-5)
    np.testing.assert_allclose(push.push_N, [0.125, 0.125, -0.125, -0.125], atol=1e-5)
    assert "range" in advantage(outside)

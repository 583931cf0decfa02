"""One training step: what it leaves behind is whole, and its shortcuts change nothing."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from grpo_core.algorithms.loss import Objective
from grpo_core.methods import METHODS
from grpo_core.records import POLICY, Group
from grpo_core.rollout.batch import rows_of
from grpo_core.trainer.batch import train_batch
from grpo_core.trainer.clock import Clock
from grpo_core.trainer.collect import collect_groups
from grpo_core.trainer.step import run_step
from grpo_core.trainer.update import Tally, run_updates
from tests.trainer.small_runs import small_state


def parameters(state):
    return torch.cat([p.detach().flatten() for p in state.model.parameters()])


def per_token(rollout):
    traces = [rollout.advantages, rollout.weights, rollout.clipped, rollout.completion.logp, rollout.completion.logp_sampling, rollout.completion.entropy]
    return [t for t in (*traces, rollout.logp_delta, rollout.logp_ref) if t is not None]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_leaves_a_whole_trace(model_cache, method):
    state = small_state(model_cache, method=method, max_sampling_rounds=2, eval_every=1, eval_prompts=8)
    before = parameters(state)
    trace = run_step(state, 0)
    kept = [g for g in trace.groups if g.kept]
    taught = any(r.advantages.any() for g in kept for r in g.rollouts)
    assert kept and taught != torch.equal(parameters(state), before)
    assert taught or method == "pass_at_k"  # which teaches nothing unless one rollout alone is best
    for group in trace.groups:
        sampled = [r for r in group.rollouts if r.completion.source == POLICY]
        assert len(sampled) == 4 and bool(group.reason) != group.kept
        for rollout in sampled:
            assert {len(t) for t in per_token(rollout)} == {len(rollout.completion.token_ids)}
            assert (rollout.logp_delta is not None) == group.kept
    assert len(trace.updates) == 2 and [u.update for u in trace.updates] == [0, 1]
    assert trace.updates[0].clip_low is None and (trace.updates[1].clip_low is not None) == (METHODS[method].clip is not None)
    weights = np.concatenate([r.weights for g in kept for r in g.rollouts])
    assert weights.mean() == pytest.approx(1, rel=1e-4)  # relative to the average loss token
    assert trace.evaluation.prompts == 8 and trace.evaluation.gold_logp < 0


def test_the_paired_change_is_after_minus_before(model_cache):
    state = small_state(model_cache)
    trace = run_step(state, 0)
    groups = [Group(prompt=g.prompt, completions=tuple(r.completion for r in g.rollouts)) for g in trace.groups]
    now_BT, _ = state.score(rows_of(groups, pad_id=state.writer.pad_id, device=state.writer.device))
    rollouts = [r for g in trace.groups for r in g.rollouts]
    for now, rollout in zip(now_BT.detach().numpy(), rollouts, strict=True):
        np.testing.assert_allclose(rollout.completion.logp + rollout.logp_delta, now[: len(rollout.logp_delta)], atol=1e-4)
    assert max(np.abs(r.logp_delta).max() for r in rollouts) > 1e-3


class ComputesEverything(Objective):
    """The same loss with no row skipped."""

    @property
    def needs_tied_groups(self) -> bool:
        return True


def updates(cache, *, objective=None, **changes):
    """Update traces and parameters after the updates of one step on a batch with tied and mixed groups."""
    state = small_state(cache, **(dict(prompts_per_step=8, max_sampling_rounds=1) | changes))
    if objective:
        state = dataclasses.replace(state, objective=objective(**{f.name: getattr(state.objective, f.name) for f in dataclasses.fields(Objective)}))
    batch = train_batch(state, [j.scored for j in collect_groups(state, 0, Clock())], 0)
    kinds = {tuple(batch.verdict_B[(batch.group_B == g) & ~batch.reference_B].unique().tolist()) for g in range(int(batch.group_B.max()) + 1)}
    assert len(kinds) > 1 and (-1.0, 1.0) in kinds, "the test needs tied and mixed groups"
    return run_updates(state, batch, 0).traces, parameters(state)


def assert_same_updates(one, other):
    for a, b in zip(one[0], other[0], strict=True):
        if a.objective is None:
            assert a.loss == pytest.approx(b.loss, abs=1e-6, rel=1e-5)
        else:  # the loss of a group objective says nothing, and where its scores are 0 it is rounding times the pulls
            assert a.objective == pytest.approx(b.objective, rel=1e-4)
        assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-3)
    torch.testing.assert_close(other[1], one[1], atol=1e-4, rtol=1e-3)  # a tenth of what Adam moves a weight by


@pytest.mark.parametrize("micro_batch", [3, 7])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_micro_batches_make_the_same_update(model_cache, method, micro_batch):
    assert_same_updates(updates(model_cache, method=method), updates(model_cache, method=method, micro_batch=micro_batch))


@pytest.mark.parametrize("method", ["grpo", "dr_grpo", "gspo"])
def test_rows_without_advantage_may_be_skipped(model_cache, method):
    assert_same_updates(updates(model_cache, method=method), updates(model_cache, method=method, objective=ComputesEverything))


def test_minibatches_hold_whole_groups_and_are_all_visited(model_cache):
    state = small_state(model_cache, prompts_per_step=8, minibatches=4, epochs=2)
    batch = train_batch(state, [j.scored for j in collect_groups(state, 0, Clock())], 0)
    traces = run_updates(state, batch, 0).traces
    assert [(u.epoch, u.minibatch) for u in traces] == [(e, m) for e in range(2) for m in range(4)]
    tokens_G = torch.zeros(8).index_add(0, batch.group_B, batch.mask_BT.sum(1))
    pairs = {int(one + other) for one, other in itertools.combinations(tokens_G.tolist(), 2)}
    assert all(update.tokens in pairs for update in traces)
    assert {sum(u.tokens for u in traces if u.epoch == e) for e in range(2)} == {int(tokens_G.sum())}


def test_a_share_of_the_groups_is_rescored(model_cache):
    trace = run_step(small_state(model_cache, rescore=0.5), 0)
    measured = [{r.logp_delta is not None for r in g.rollouts} for g in trace.groups]
    assert sorted(map(len, measured)) == [1] * 4 and sum(m == {True} for m in measured) == 2


def test_dynamic_sampling_drops_with_a_reason_and_stops_at_its_cap(model_cache):
    trace = run_step(small_state(model_cache, method="dapo", group_size=2, max_sampling_rounds=3), 0)
    kept, dropped = [g for g in trace.groups if g.kept], [g for g in trace.groups if not g.kept]
    assert len(kept) <= 4 and len(trace.groups) <= 12
    assert all(g.outcome == "mixed" for g in kept) and dropped and all(g.reason for g in dropped)
    assert {g.sampling_round for g in trace.groups} <= {0, 1, 2}


def test_dynamic_sampling_stops_at_its_cap_where_no_group_has_a_signal_and_does_the_same_again(model_cache):
    """Nearly greedy, all rollouts of a prompt are alike: two rounds of four prompts, none kept."""
    state = small_state(model_cache, method="dapo", group_size=2, max_sampling_rounds=2, temperature=1e-3)
    groups = collect_groups(state, 0, Clock())
    assert [j.scored.sampling_round for j in groups] == [0] * 4 + [1] * 4 and not any(j.kept for j in groups)
    again = collect_groups(small_state(model_cache, method="dapo", group_size=2, max_sampling_rounds=2, temperature=1e-3), 0, Clock())
    assert [j.scored.group.completions[0].text for j in again] == [j.scored.group.completions[0].text for j in groups]


def test_the_effective_sample_size_by_hand():
    """(Σρ)² / (n · Σρ²): ratios 1 1 1 2 and .01 .01 .01 2; not available before any token."""
    spread, single = Tally(ratio=5, ratio_squared=7, scored_tokens=4), Tally(ratio=2.03, ratio_squared=4.0003, scored_tokens=4)
    assert (spread.ess, single.ess, Tally().ess) == (pytest.approx(0.893, abs=5e-4), pytest.approx(0.258, abs=5e-4), None)


def test_a_reference_model_is_the_start_model(model_cache):
    state = small_state(model_cache, kl_coef=0.05)
    first, second = run_step(state, 0), run_step(state, 1)
    start = [r for g in first.groups for r in g.rollouts]
    for rollout in start:
        np.testing.assert_allclose(rollout.logp_ref, rollout.completion.logp, atol=2e-5)
    assert max(np.abs(r.logp_ref - r.completion.logp).max() for g in second.groups for r in g.rollouts) > 1e-3
    assert first.updates[1].kl_ref > 0 and "kl_ref_k3" in first.updates[1].terms


def test_lora_trains_only_the_adapter(model_cache):
    state = small_state(model_cache, lora_rank=4, kl_coef=0.05)
    frozen = {n: p.detach().clone() for n, p in state.model.named_parameters() if not p.requires_grad}
    run_step(state, 0)
    assert state.forward.name == "shared" and all(torch.equal(p, frozen[n]) for n, p in state.model.named_parameters() if n in frozen)


def test_remax_compares_with_a_greedy_completion_that_is_not_trained_on(model_cache):
    state = small_state(model_cache, method="remax", prompts_per_step=6)
    trace = run_step(state, 0)
    for group in trace.groups:
        assert group.greedy_reward in (0.0, 1.0) and group.baseline == group.greedy_reward and len(group.rollouts) == 4
        for rollout in group.rollouts:
            assert rollout.advantages[0] == rollout.reward.total - group.greedy_reward
    assert len({group.greedy_reward for group in trace.groups}) == 2, "the test needs prompts that are answered right and wrong"
    assert all(group.greedy_reward is None for group in run_step(small_state(model_cache), 0).groups)


def test_red_drop_draws_the_same_for_the_same_seed_and_step(model_cache):
    def advantages(step: int) -> list[float]:
        state = small_state(model_cache, method="red_drop", prompts_per_step=8, group_size=8)
        kept = [j.scored for j in collect_groups(state, 0, Clock())]
        batch = train_batch(state, kept, step)
        for group in batch.advantages_BT[:, 0].view(8, 8):
            assert (group < 0).sum() <= (group > 0).sum() and group.sum().abs() < 1e-6
        return batch.advantages_BT[:, 0].tolist()

    assert advantages(0) == advantages(0) != advantages(1)


def test_a_group_objective_is_recorded_and_its_bound_acts_after_the_first_update(model_cache):
    first, second = run_step(small_state(model_cache, method="disco"), 0).updates
    assert first.terms["kl_hinge"] == 0 and second.terms["kl_hinge"] > 0
    assert first.objective is not None and second.objective > first.objective  # it is what the update raises
    assert all(u.objective is None for u in run_step(small_state(model_cache), 0).updates)

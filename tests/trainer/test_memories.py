"""What a run remembers of its prompts: resumed bit for bit, recorded, and told apart from what was sampled."""

import numpy as np
import pytest

from grpo_core.algorithms.credit import credit
from grpo_core.algorithms.loss import loss_batch
from grpo_core.algorithms.values import Facts
from grpo_core.methods import METHODS
from grpo_core.records import POLICY, REPLAY
from grpo_core.trainer.batch import train_batch
from grpo_core.trainer.clock import Clock
from grpo_core.trainer.collect import collect_groups
from grpo_core.trainer.step import run_step
from grpo_core.trainer.update import run_updates
from tests.trainer.small_runs import Watched, small_config, small_state
from tests.trainer.test_resume import fingerprint

SPO = dict(method="spo", group_size=1, prompts_per_step=8, spo_pool=12)


@pytest.mark.parametrize("changes", [SPO, dict(SPO, prompt_sampler="uniform", spo_init=0, replay_size=16, replay_max_age=3), dict(replay_size=6)], ids=str)
def test_six_and_six_are_twelve(tmp_path, model_cache, changes):
    config = small_config(steps=12, checkpoint_every=5, **changes)
    whole, halves = Watched(tmp_path / "whole", model_cache), Watched(tmp_path / "halves", model_cache)
    whole.run(config)
    halves.run(config, stop_at=6)
    halves.run(config, resume=True)
    for a, b in zip(whole.traces, halves.traces, strict=True):
        assert fingerprint(a) == fingerprint(b), f"step {a.step} differs"
        assert [(g.prompt_state, g.baseline, g.sampler_score) for g in a.groups] == [(g.prompt_state, g.baseline, g.sampler_score) for g in b.groups]
        assert [(r.completion.source, r.completion.age) for g in a.groups for r in g.rollouts] == [
            (r.completion.source, r.completion.age) for g in b.groups for r in g.rollouts
        ]


def test_spo_holds_one_rollout_against_what_its_prompt_came_to_before(model_cache):
    state = small_state(model_cache, **SPO)
    known: dict[str, float] = {}
    for step in range(3):
        trace = run_step(state, step)
        assert all(len(g.rollouts) == 1 and g.kept and g.outcome in ("all_pass", "all_fail") for g in trace.groups)
        success = np.array([float(g.rollouts[0].reward.correct) for g in trace.groups])
        centred = success - [g.baseline for g in trace.groups]
        want = (centred - centred.mean()) / (centred.std(ddof=1) + 1e-8)
        assert [g.rollouts[0].advantages[0] for g in trace.groups] == pytest.approx(want, rel=1e-5)
        for group in trace.groups:
            if group.prompt.hash in known:
                assert group.baseline == known[group.prompt.hash] and group.prompt_state["drift"] > 0
            known[group.prompt.hash] = group.prompt_state["p"]


def test_spos_batch_norm_by_hand():
    import torch

    raw = torch.tensor([0.6875, -0.5, 0.1, -0.1], dtype=torch.float64)
    facts = Facts(rewards_B=raw, verdicts_B=torch.tensor([1.0, -1, 1, -1]), tracked_B=torch.tensor([1.0, 0, 1, 0]).double() - raw)
    found, base = credit(facts, torch.arange(4), torch.ones(4, dtype=torch.bool), METHODS["spo"].credit)
    torch.testing.assert_close(found, torch.tensor([1.295256, -1.105707, 0.107412, -0.296961], dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(base, facts.tracked_B)
    same, _ = credit(facts, torch.arange(4), torch.tensor([True, False, False, False]), METHODS["spo"].credit)
    assert (same == 0).all()


def test_a_replay_buffer_takes_its_share_and_keeps_what_the_writers_said(model_cache):
    state = small_state(model_cache, replay_size=12, replay_share=0.5, replay_max_age=2)
    written: dict[bytes, tuple[int, np.ndarray]] = {}
    for step in range(4):
        trace = run_step(state, step)
        replayed = [g for g in trace.groups if g.outcome == "replayed"]
        assert len(trace.groups) == 4 and len(replayed) == (0 if step == 0 else 2)
        for rollout in (r for g in replayed for r in g.rollouts):
            when, logp = written[rollout.completion.token_ids.tobytes() + rollout.completion.logp_sampling.tobytes()]
            assert rollout.completion.source == REPLAY and rollout.completion.age == step - when <= 2
            assert np.array_equal(rollout.logp_old, logp) and not np.array_equal(rollout.completion.logp, logp)
        for rollout in (r for g in trace.groups if g.outcome != "replayed" for r in g.rollouts):
            assert rollout.completion.source == POLICY and rollout.logp_old is None
            written[rollout.completion.token_ids.tobytes() + rollout.completion.logp_sampling.tobytes()] = step, rollout.completion.logp
        taught = any(r.advantages.any() for g in trace.groups for r in g.rollouts)  # else no row has a gradient, and none is weighed
        assert (trace.updates[0].ess is None) == (step == 0 or not taught) and (trace.updates[0].clip_low is None) == (step == 0)
        assert trace.updates[0].kl_before == pytest.approx(0, abs=1e-6)  # of the step's own rollouts alone


ARPO = dict(method="arpo", prompt_sampler="solvable", filter_pool=8, filter_rollouts=16, prompts_per_step=4, lr=3e-3)


def test_arpo_marks_what_it_replays_and_takes_its_ratio_from_the_writer(model_cache):
    state = small_state(model_cache, **ARPO)
    helped = []
    for step in range(12):
        trace = run_step(state, step)
        replayed = [(g, r) for g in trace.groups for r in g.rollouts if r.completion.source == REPLAY]
        for group, rollout in replayed:
            assert rollout is group.rollouts[0] and rollout.reward.correct and group.outcome == "all_fail" and group.kept
            assert rollout.completion.age >= 1 and rollout.advantages[0] > 0 > group.rollouts[1].advantages[0]
            assert rollout.logp_old is not None and group.prompt_state["stored"] >= 1 and group.prompt_state["trial_solved"] >= 1
        helped += replayed
        assert (trace.updates[0].ess is not None) == bool(replayed)
    assert helped, "no hopeless group met a stored success in 12 steps"


def test_arpo_resumes_bit_for_bit(tmp_path, model_cache):
    config = small_config(steps=12, **ARPO)
    whole, halves = Watched(tmp_path / "whole", model_cache), Watched(tmp_path / "halves", model_cache)
    whole.run(config)
    halves.run(config, stop_at=6)
    halves.run(config, resume=True)
    assert [fingerprint(t) for t in whole.traces] == [fingerprint(t) for t in halves.traces]
    sources = [[(r.completion.source, r.completion.age) for g in t.groups for r in g.rollouts] for t in whole.traces]
    assert sources == [[(r.completion.source, r.completion.age) for g in t.groups for r in g.rollouts] for t in halves.traces]
    assert any(source == REPLAY for step in sources[6:] for source, _ in step)


@pytest.mark.parametrize("method", ["reg_grpo", "disco"])
def test_a_group_objective_takes_its_scores_from_the_policy_of_today(model_cache, method):
    """At the first update too, where replayed rollouts were written by another."""
    state = small_state(model_cache, method=method, replay_size=8, replay_share=0.5)
    for step in range(2):
        run_step(state, step)
    batch = train_batch(state, [j.scored for j in collect_groups(state, 2, Clock()) if j.kept], 2)
    inputs = {name: getattr(batch, name) for name in ("before_BT", "advantages_BT", "mask_BT", "ref_BT", "multipliers_BT", "answer_BT", "group_B")}
    today, then = (
        float(loss_batch(state.objective, max_length=state.config.max_new_tokens, now_BT=now_BT, **inputs).objective) for now_BT in (batch.policy_BT, None)
    )
    assert batch.foreign_B.any() and today != then
    assert run_updates(state, batch, 2).traces[0].objective == pytest.approx(today, rel=1e-6)

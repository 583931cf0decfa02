"""What methods and options of collapse science do in real steps of the tiny model: GTPO, NSR and PSR, LLDS variants, NTHR."""

import numpy as np
import pytest
import torch

from grpo_core.algorithms.nthr import TokenFacts, gwhes, nthr, prediction_errors
from grpo_core.config import make_config
from grpo_core.errors import ConfigError
from grpo_core.notes import structural_notes
from grpo_core.objectives import objective_of
from grpo_core.records import Completion
from grpo_core.trainer.answers import answer_mask
from grpo_core.trainer.batch import train_batch
from grpo_core.trainer.clock import Clock
from grpo_core.trainer.collect import collect_groups
from grpo_core.trainer.step import run_step
from tests.trainer.small_runs import small_config, small_state


def rollouts(trace):
    return [r for g in trace.groups for r in g.rollouts if g.kept]


@pytest.mark.parametrize("changes", [dict(method=m) for m in ("gtpo", "nthr", "psr", "nsr", "w_reinforce")] + [
    dict(method="gtpo", gtpo_code="released", gtpo_entropy_coef=0.01, gtpo_conflict_weight=3.0),
    dict(method="grpo_llds", llds_gate="token", llds_normaliser="loss", llds_answer_weight=0.5),
    dict(method="grpo_llds", llds_gate="action"),
])  # fmt: skip
def test_three_steps(model_cache, changes):
    state = small_state(model_cache, prompts_per_step=8, **changes)
    start = torch.cat([p.detach().flatten() for p in state.model.parameters()]).clone()
    for step in range(3):
        trace = run_step(state, step)
        assert all(np.isfinite(u.loss) and np.isfinite(u.grad_norm) for u in trace.updates)
    moved = torch.cat([p.detach().flatten() for p in state.model.parameters()])
    assert moved.isfinite().all() and not torch.equal(moved, start)


def test_gtpo_protects_conflict_tokens_and_says_so_in_the_trace(model_cache):
    state = small_state(model_cache, method="gtpo", prompts_per_step=8, gtpo_conflict_weight=3.0)
    trace = run_step(state, 0)
    seen = set()
    for group in trace.groups:
        rewards = np.array([r.reward.total for r in group.rollouts])
        for rollout, reward in zip(group.rollouts, rewards, strict=True):
            entropy = rollout.completion.entropy.mean()
            np.testing.assert_allclose(rollout.advantages, reward - rewards.mean() - 0.1 * entropy, atol=1e-5)
            kept = state.memory.first_entropy > np.log(2) or entropy <= np.log(2)
            relative = rollout.weights / rollout.weights[rollout.weights > 0].min() if rollout.weights.any() else rollout.weights
            assert kept or not rollout.weights.any()
            if kept and reward != rewards.mean():
                assert set(np.round(relative, 3)) <= ({1.0, 3.0} if reward > rewards.mean() else {0.0, 1.0})
                seen |= {(reward > rewards.mean(), float(x)) for x in np.round(relative, 3)}
    assert {(True, 3.0), (False, 0.0)} <= seen, "the test needs conflict tokens"
    assert all(u.clip_low is None for u in trace.updates)


def test_nsr_moves_only_wrong_rollouts(model_cache):
    found = [(r.reward.correct, set(r.advantages.tolist())) for r in rollouts(run_step(small_state(model_cache, method="nsr"), 0))]
    assert {correct for correct, _ in found} == {True, False}
    assert all(values == ({0.0} if correct else {-1.0}) for correct, values in found)


def test_llds_options_reach_the_objective():
    plain = objective_of(small_config(method="grpo_llds"))
    assert plain.penalties == {"llds_response": 0.2} and plain.over == {"llds_response": "preserve"} and plain.answer_weight == 1
    changed = objective_of(small_config(method="grpo_llds", llds_gate="token", llds_normaliser="loss", llds_answer_weight=0.25, llds_coef=0.3))
    assert changed.penalties == {"llds_token": 0.3} and changed.over == {"llds_token": "loss"} and changed.answer_weight == 0.25


def test_answer_weight_and_gates_change_the_llds_term_as_they_should(model_cache):
    def term(**changes):
        trace = run_step(small_state(model_cache, method="grpo_llds", prompts_per_step=8, **changes), 0)
        assert trace.updates[0].terms["llds_" + changes.get("llds_gate", "response")] == 0  # the policy is still the sampler
        return trace.updates[1].terms["llds_" + changes.get("llds_gate", "response")]

    whole, action, token, masked = term(), term(llds_gate="action"), term(llds_gate="token"), term(llds_answer_weight=0.0)
    assert 0 < masked < whole and action == whole < token


def test_the_answer_of_a_completion(model_cache):
    state = small_state(model_cache)

    def mask(text, task="arithmetic", ends=True):
        ids = np.array([*state.policy.encode(text), *state.policy.eos_ids[:ends]])
        none = np.zeros(len(ids), "f4")
        completion = Completion(token_ids=ids, text=state.policy.decode(ids), logp_sampling=none, logp=none, entropy=none, finish="stop")
        return answer_mask(task, completion, state.policy.decode).tolist()

    assert mask("6+1=7:67") == [0, 0, 0, 0, 0, 0, 1, 1, 0]  # the end token is not part of it
    assert mask("6+1=7:6:7", ends=False) == [0] * 8 + [1]
    assert mask("6+1=7") == [0] * 6 and mask("6+1=7:") == [0] * 7
    assert mask("6+1=7:67", task="dataset") == [0] * 9


def test_nthr_is_measured_every_few_steps_on_mixed_groups_only(model_cache):
    state = small_state(model_cache, nthr_every=2, prompts_per_step=8)
    for step in range(2):
        trace = run_step(state, step)
        mixed = set()
        for group in trace.groups:
            both = len({r.reward.correct for r in group.rollouts}) == 2 and step == 0
            mixed.add(both)
            for r in group.rollouts:
                assert (r.gwhes is not None) == (both and r.reward.correct)
                assert (r.nthr is not None) == (both and not r.reward.correct)
                assert r.nthr is None or len(r.nthr) == len(r.completion.token_ids) and np.isfinite(r.nthr).all()
        assert (True in mixed) == (step == 0)


def test_nthr_is_that_of_the_models_own_hidden_states(model_cache):
    """Against transformers run row by row without padding, its last hidden states and full softmax."""
    state = small_state(model_cache, nthr_every=1, prompts_per_step=8, temperature=0.8, micro_batch=3)
    kept = [j.scored for j in collect_groups(state, 0, Clock())]
    before = [p.detach().clone() for p in state.model.parameters()]
    pressure = train_batch(state, kept, 0).pressure
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, state.model.parameters(), strict=True))
    at = next(i for i, s in enumerate(kept) if len({r.correct for r in s.rewards}) == 2)
    scored, first = kept[at], sum(len(s.rewards) for s in kept[:at])
    used = torch.from_numpy(np.unique(np.concatenate([c.token_ids for c in scored.group.completions])).astype("i8"))
    facts = []
    for completion in scored.group.completions:
        ids = torch.tensor([*scored.group.prompt.token_ids, *completion.token_ids])
        with torch.no_grad():
            out = state.model(input_ids=ids[None], output_hidden_states=True)
        place = slice(len(scored.group.prompt.token_ids) - 1, -1)
        logits = out.logits[0, place] / 0.8
        logits[:, list(state.writer.banned)] = -torch.inf
        index = torch.searchsorted(used, torch.from_numpy(completion.token_ids.astype("i8")))
        facts.append(TokenFacts(errors_NK=prediction_errors(logits.softmax(-1)[:, used], index), hidden_NH=out.hidden_states[-1][0, place]))
    verdicts = [r.correct for r in scored.rewards]
    good, bad = ([f for f, v in zip(facts, verdicts, strict=True) if v is kind] for kind in (True, False))
    expected_gwhes, expected_nthr = iter(gwhes(good, bad)), iter(nthr(good, bad).scores)
    for row, correct in enumerate(verdicts, first):
        if correct:
            assert pressure.gwhes[row] == pytest.approx(next(expected_gwhes), rel=1e-3, abs=1e-2)
        else:
            np.testing.assert_allclose(pressure.nthr[row], next(expected_nthr), rtol=1e-3, atol=1e-3)


def test_nthr_damps_what_it_measured_and_says_so_in_the_trace(model_cache):
    """With β = 0 recorded weights are those of GRPO, times η on the tokens of wrong rollouts with a score above 0; both are relative to their mean."""
    traces = [run_step(small_state(model_cache, prompts_per_step=8, **changes), 0) for changes in (dict(method="nthr", nthr_beta=0.0), {})]
    found, expected = [], []
    for group, other in zip(*(t.groups for t in traces), strict=True):
        share = np.mean([r.reward.correct for r in group.rollouts])
        for rollout, same in zip(group.rollouts, other.rollouts, strict=True):
            assert (rollout.nthr is not None) == (not rollout.reward.correct and share > 0)  # without nthr_every
            found.append(rollout.weights)
            expected.append(same.weights * (1 if rollout.nthr is None else np.where(rollout.nthr > 0, 2 * abs(0.5 - share), 1)))
    weights, damped = np.concatenate(found), np.concatenate(expected)
    np.testing.assert_allclose(weights, damped / damped.mean(), rtol=1e-5)
    assert damped.mean() < 1, "the test needs tokens that are damped"


def test_nthr_with_lora(model_cache):
    trace = run_step(small_state(model_cache, nthr_every=1, prompts_per_step=8, lora_rank=2), 0)
    assert any(r.nthr is not None for r in rollouts(trace)) and any(r.gwhes is not None for r in rollouts(trace))


def test_options_are_refused_where_they_are_not_read():
    with pytest.raises(ConfigError, match="llds_gate is set but method grpo does not read it; leave it at response or take one of grpo_llds"):
        make_config({"llds_gate": "token"})
    with pytest.raises(ConfigError, match="gtpo_entropy_coef is set but method grpo does not read it; leave it empty or take one of gtpo"):
        make_config({"gtpo_entropy_coef": 0.2})
    with pytest.raises(ConfigError, match="kl_coef is set but method gtpo does not read it"):
        make_config({"method": "gtpo", "kl_coef": 0.1})


def test_structural_notes():
    def notes(**changes):
        return " ".join(structural_notes(make_config(changes)))

    assert notes() == notes(method="grpo_llds") == notes(epochs=1) == notes(method="grpo_llds", epochs=1, minibatches=2) == ""
    assert "LLDS is exactly zero in this run" in notes(method="grpo_llds", epochs=1)
    assert "LLDS is off in this run" in notes(method="grpo_llds", llds_coef=0.0)
    assert "the same as response" in notes(method="grpo_llds", llds_gate="action")
    assert "nothing can be clipped" in notes(epochs=1, clip_high=0.3)
    assert "record=off does not keep" in notes(nthr_every=2, record="off")


def test_notes_on_what_a_method_cannot_do_in_a_run():
    def notes(**changes):
        return " ".join(structural_notes(make_config(changes)))

    assert "one reward part" in notes(method="gdpo") and "one reward part" not in notes(method="gdpo", overlong_buffer=8) + notes()
    two = dict(task="dataset", data="d.jsonl", rewards=("exact", "numeric=0.5"))
    assert "one reward part" not in notes(method="gdpo", **two)
    assert "exactly zero" in notes(method="disco_b", epochs=1) and "exactly zero" in notes(method="opmd_kimi", epochs=1)
    assert not notes(method="disco_b") + notes(method="opmd_kimi") + notes(method="opmd_kimi", epochs=1, k2_coef=0)

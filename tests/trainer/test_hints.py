"""Prompts sampled again behind a hint (Reg-GRPO): what is given, judged, trained on and recorded, and what leaves it out."""

from dataclasses import replace

import numpy as np
import pytest

from grpo_core.records import HINTED, POLICY, Group
from grpo_core.rollout.batch import rows_of
from grpo_core.tasks.hints import hint_length
from grpo_core.trace.tables import to_tables
from grpo_core.trainer.batch import score_quietly, train_batch
from grpo_core.trainer.clock import Clock
from grpo_core.trainer.collect import _scored_as_whole, collect_groups
from grpo_core.trainer.evaluate import evaluate, gold_completion
from grpo_core.trainer.step import run_step
from tests.trainer.small_runs import Watched, small_config, small_state
from tests.trainer.test_resume import fingerprint

REG = dict(method="reg_grpo", hint_strength=2.0)


@pytest.fixture(scope="module")
def second(model_cache):
    """The groups of a run's second step, its state before the step's updates, and the tensors it trains on."""
    state = small_state(model_cache, **REG)
    run_step(state, 0)
    judged = collect_groups(state, 1, Clock())
    kept = [j.scored for j in judged if j.kept]
    return state, judged, kept, train_batch(state, kept, 1)


def test_a_hard_prompt_is_given_the_beginning_of_its_worked_answer(model_cache, second):
    state, judged, kept, _ = second
    first = small_state(model_cache, **REG)
    before = np.mean([r.reward.total for g in run_step(first, 0).groups for r in g.rollouts])
    hinted = [place for place, j in enumerate(judged) if j.scored.group.prompt.hint_ids]
    assert hinted and len(kept) == 4 and len(judged) == 4 + len(hinted)
    for place in hinted:
        plain, given = judged[place - 1], judged[place]
        prompt, answer = given.scored.group.prompt, state.policy.encode(plain.scored.group.prompt.gold)
        tokens = hint_length(before - plain.scored.totals.mean(), 2.0, len(answer))
        assert prompt.hint_ids == tuple(answer[:tokens]) and prompt.gold.startswith(prompt.hint) and 0 < tokens < len(answer)
        assert replace(prompt, hint="", hint_ids=()) == plain.scored.group.prompt and prompt.hash == plain.scored.group.prompt.hash
        assert not plain.kept and f"hint of {tokens} token" in plain.reason and given.kept and given.scored.sampling_round == 1
        for completion, reward in zip(given.scored.group.completions, given.scored.rewards, strict=True):
            whole = prompt.hint + completion.text
            assert completion.source == HINTED and reward.total == float(completion.finish == "stop" and whole.partition(":")[2] == prompt.answer)


def test_an_answer_is_judged_as_a_whole(second):
    """With all of it but the last digit in the hint, the digit alone is right."""
    state, *_ = second
    prompt = state.task.held_out(1)[0]
    gold = gold_completion(state, prompt)
    ids = gold.token_ids.tolist()
    given = replace(prompt, hint_ids=tuple(ids[:-2]), hint=prompt.gold[:-1])
    for digit, right in ((ids[-2], 1.0), (ids[-3], 0.0)):
        written = replace(gold, token_ids=np.array([digit, ids[-1]]), text=state.writer.decode([digit]))
        scored = _scored_as_whole(state, Group(prompt=given, completions=(written,)))
        assert scored.rewards[0].total == right and scored.group.completions[0].text == written.text and scored.group.prompt == given


def test_rollouts_condition_on_the_hint_and_its_tokens_are_not_in_the_loss(second):
    state, _, kept, batch = second
    lengths = [len(c.token_ids) for s in kept for c in s.group.completions]
    assert batch.mask_BT.sum(1).tolist() == lengths and not batch.foreign_B.any()
    group = next(s.group for s in kept if s.group.prompt.hint_ids)
    place = next(i for i, s in enumerate(kept) if s.group is group)
    width = batch.rows.prompt_lengths_P[place]
    assert batch.rows.prompt_ids_PL[place, :width].tolist() == [*group.prompt.token_ids, *group.prompt.hint_ids]
    bare = Group(prompt=replace(group.prompt, hint="", hint_ids=()), completions=group.completions)
    behind, without = (score_quietly(state, rows_of([g], pad_id=state.writer.pad_id, device=state.writer.device)) for g in (group, bare))
    for row, completion in enumerate(group.completions):
        n = len(completion.token_ids)
        np.testing.assert_allclose(behind[row, :n].numpy(), completion.logp, atol=1e-4)
        assert np.abs(without[row, :n].numpy() - completion.logp).max() > 0.1


def test_what_was_hinted_is_recorded_and_left_out_of_what_the_policy_writes(model_cache):
    state = small_state(model_cache, **REG)
    run_step(state, 0)
    trace = run_step(state, 1)
    tables = to_tables(trace)
    (row,), groups, rollouts = (tables[name].to_pylist() for name in ("steps", "groups", "rollouts"))
    hinted = [g for g in trace.groups if g.prompt.hint_ids]
    plain = [r for g in trace.groups if not g.prompt.hint_ids for r in g.rollouts]
    assert hinted and (row["groups"], row["groups_kept"], row["groups_hinted"], row["rollouts"]) == (4, 4, len(hinted), 16)
    assert row["correct_rate"] == np.mean([r.reward.correct for r in plain]) and row["kl_step"] is not None and row["rollouts_replayed"] == 0
    for stored, group in zip(groups, trace.groups, strict=True):
        prompt = group.prompt
        assert stored["hint_tokens"] == len(prompt.hint_ids) and stored["prompt"] == prompt.text + prompt.hint
        assert stored["prompt_ids"] == list(prompt.given_ids) and stored["prompt_hash"] == replace(prompt, hint="", hint_ids=()).hash
        assert (stored["correct"], stored["size"], stored["replayed"]) == (sum(r.reward.correct for r in group.rollouts), 4, 0)
        assert (stored["delta_wrong"] is None) == (not group.kept or stored["correct"] == 4)
        assert {r["source"] for r in rollouts if r["group_index"] == stored["group_index"]} == {HINTED if prompt.hint_ids else POLICY}


def test_held_out_and_probe_prompts_are_never_hinted_and_no_hint_is_no_change(model_cache, monkeypatch):
    from grpo_core.trainer import evaluate as evaluation

    asked = []
    sample = evaluation.sample_groups
    monkeypatch.setattr(evaluation, "sample_groups", lambda writer, prompts, **how: asked.extend(prompts) or sample(writer, prompts, **how))
    state = small_state(model_cache, **REG, eval_prompts=8)
    run_step(state, 0)
    run_step(state, 1)
    evaluate(state)
    assert asked and not any(prompt.hint_ids for prompt in asked)
    off = small_state(model_cache, method="reg_grpo", hint_strength=0)
    traces = [run_step(off, step) for step in range(2)]
    assert off.memories.recent is None and all(r.completion.source == POLICY for t in traces for g in t.groups for r in g.rollouts)


def test_it_resumes_bit_for_bit(tmp_path, model_cache):
    config = small_config(steps=6, **REG)
    whole, halves = Watched(tmp_path / "whole", model_cache), Watched(tmp_path / "halves", model_cache)
    whole.run(config)
    halves.run(config, stop_at=3)
    halves.run(config, resume=True)
    assert [fingerprint(t) for t in whole.traces] == [fingerprint(t) for t in halves.traces]
    hints = [[g.prompt.hint for g in t.groups] for t in whole.traces]
    assert hints == [[g.prompt.hint for g in t.groups] for t in halves.traces] and any(any(step) for step in hints[3:])

"""Worked answers as rows of a group (GRAO): where they come from, what is recorded of them, and what leaves them out."""

import numpy as np
import pytest

from grpo_core.errors import ConfigError
from grpo_core.records import POLICY, REFERENCE
from grpo_core.trace.flat import flatten
from grpo_core.trace.tables import to_tables
from grpo_core.trainer.step import run_step
from tests.trainer.small_runs import small_config, small_state


@pytest.fixture(scope="module")
def trace(model_cache):
    return run_step(small_state(model_cache, method="grao"), 0)


def test_every_group_ends_with_the_tasks_worked_answer(trace):
    for group in trace.groups:
        *sampled, answer = group.rollouts
        assert [r.completion.source for r in group.rollouts] == [POLICY] * 4 + [REFERENCE]
        assert answer.completion.text == group.prompt.gold and answer.reward.total == 1 and answer.reward.correct
        assert answer.completion.logp is None and answer.completion.logp_sampling is None and answer.completion.entropy is None
        assert (answer.logp_old < 0).all() and answer.logp_delta is not None and all(r.logp_old is None for r in sampled)
        rewards = np.array([r.reward.total for r in group.rollouts])
        want = (rewards - rewards.mean()) / (rewards.std() + 1e-6) if np.ptp(rewards) else np.zeros(5)
        np.testing.assert_allclose([r.advantages[0] for r in group.rollouts], want, atol=1e-5)


def test_an_answer_is_taught_and_its_group_with_it(trace):
    hopeless = [g for g in trace.groups if g.outcome == "all_fail"]
    assert hopeless and all(g.rollouts[-1].advantages[0] > 0 > g.rollouts[0].advantages[0] for g in hopeless)
    assert trace.updates[0].ess is None and trace.updates[0].kl_before == pytest.approx(0, abs=1e-6)  # rounding differs between processors


def test_figures_of_what_the_policy_writes_leave_it_out(trace):
    flat, tables = flatten(trace), to_tables(trace)
    assert len(flat.written().length_R) == 16 and len(flat.length_R) == 20
    row = tables["steps"].to_pylist()[0]
    assert (row["rollouts"], row["rollouts_replayed"], row["replay_age"]) == (16, 0, None)
    sampled = [r for g in trace.groups for r in g.rollouts[:-1]]
    assert row["reward_mean"] == pytest.approx(np.mean([r.reward.total for r in sampled]))
    groups, rollouts = tables["groups"].to_pylist(), tables["rollouts"].to_pylist()
    assert all(g["size"] == 5 and g["replayed"] == 1 for g in groups)
    assert sum(g["correct"] for g in groups) == sum(r.reward.correct for r in sampled)
    for r in rollouts:
        answer = r["rollout_index"] == 4
        assert r["source"] == (REFERENCE if answer else POLICY)
        assert [(r[name] is None) == answer for name in ("logp_sampling", "logp_gap", "entropy")] == [True] * 3 and (r["logp_old"] is None) != answer


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(task="dataset", data="x.jsonl"), "set gold_column"),
        (dict(group_reward="e_grpo"), "leave it at none"),
        (dict(method="grpo", grao_imitation=1.0), "grao"),
    ],
)
def test_what_cannot_be_is_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        small_config(**{"method": "grao"} | changes)

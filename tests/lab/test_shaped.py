"""The laboratory's group-aware rewards against the trainer's own, on a step that samples the same under each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from grpo_core.lab.push import push_of
from grpo_core.lab.shaped import NotShaped, shaped
from grpo_core.tasks.shaping import ACROSS, ADDS, WITHIN
from tests.lab.test_figures import BATCH
from tests.lab.test_push import SETTINGS, stored, trained
from tests.trainer.small_runs import small_config

RULES = [
    dict(group_reward="otc"),
    dict(group_reward="otc", group_reward_weight=0.5, mark_pattern="1"),
    dict(group_reward="gcpo", mark_pattern=",5"),
    dict(group_reward="datarus"),
]
PLAIN = small_config(**SETTINGS)


@pytest.fixture(scope="module")
def plain(tmp_path_factory, model_cache):
    return stored(tmp_path_factory.mktemp("plain"), model_cache, overlong_buffer=10)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_advantages_and_pushes_are_those_of_a_run_that_was_trained_with_it(plain, tmp_path, model_cache, rule):
    config = small_config(**SETTINGS, **rule, overlong_buffer=10)
    asked = shaped(plain, small_config(**SETTINGS, overlong_buffer=10), config)
    recorded = stored(tmp_path, model_cache, **rule, overlong_buffer=10)
    np.testing.assert_allclose(asked.reward_R, recorded.reward_R, atol=1e-6)
    assert config.group_reward == "gcpo" or not np.allclose(asked.reward_R, plain.reward_R)  # else the rule did nothing; gcpo is worked by hand below
    assert set(asked.parts) == set(recorded.parts) == {*plain.parts, *ADDS[config.group_reward]}
    for name, values_R in recorded.parts.items():
        np.testing.assert_allclose(asked.parts[name], values_R, atol=1e-6)
    advantages, _, pushed = trained(model_cache, **rule, overlong_buffer=10)
    push = push_of(asked, config, after=False)
    np.testing.assert_allclose(push.advantage_N, advantages, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(push.push_N, pushed, rtol=1e-4, atol=1e-8)
    back = shaped(recorded, config, small_config(**SETTINGS, overlong_buffer=10))
    np.testing.assert_allclose(back.reward_R, plain.reward_R, atol=1e-6)
    assert set(back.parts) == set(plain.parts)


def test_gcpo_by_hand():
    """The step was used by the correct rollout of group 0 and not by the wrong one, so it earns 1 more; group 1 has one kind only."""
    batch = replace(BATCH, texts=("1=1", "1", "1=1"), parts={"exact": BATCH.reward_R}, part_weights={"exact": 1.0})
    gcpo = small_config(**SETTINGS, group_reward="gcpo", group_reward_weight=0.5)
    made = shaped(batch, PLAIN, gcpo)
    assert made.reward_R.tolist() == [1.5, 0, 1] and made.parts["auxiliary"].tolist() == [1, 0, 1]
    assert shaped(made, gcpo, PLAIN).reward_R.tolist() == [1, 0, 1]


def test_the_rule_of_the_run_leaves_the_record_alone(plain):
    rule = small_config(**SETTINGS, group_reward="e_grpo")
    assert shaped(plain, rule, rule) is plain


def test_rollouts_that_e_grpo_cuts_count_in_their_group_and_not_in_the_loss(tmp_path, model_cache):
    """By the record, as in the trainer: their advantage is that of a reward of 0, and none of their tokens is pushed."""
    rule = dict(group_reward="e_grpo", max_new_tokens=19)
    config, recorded = small_config(**SETTINGS, **rule), stored(tmp_path, model_cache, **rule)
    cut_R = recorded.cut_R
    assert cut_R.any() and not cut_R.all() and (recorded.length_R[cut_R] == 19).all() and (recorded.reward_R[cut_R] == 0).all()
    advantages, _, pushed = trained(model_cache, **rule)
    push = push_of(recorded, config, after=False)
    np.testing.assert_allclose(push.push_N, pushed, rtol=1e-4, atol=1e-8)
    cut_N = cut_R[recorded.rollout_N]
    assert (push.push_N[cut_N] == 0).all() and (push.push_N[~cut_N] != 0).any() and (push.advantage_R[cut_R] < 0).any()
    np.testing.assert_allclose(push.advantage_N[~cut_N], advantages[~cut_N], rtol=1e-5, atol=1e-6)
    back = shaped(recorded, config, small_config(**SETTINGS, max_new_tokens=19))
    assert not back.cut_R.any() and set(back.parts) == {"exact"}


def test_a_failed_reward_and_a_worked_answer_are_left_as_they_are(plain):
    fail_R, worked_R = (np.arange(len(plain.reward_R)) == n for n in (0, 1))
    batch = replace(plain, reward_R=np.where(fail_R, np.nan, np.where(worked_R, 7.0, plain.reward_R)), reference_R=worked_R)
    made = shaped(batch, PLAIN, small_config(**SETTINGS, group_reward="otc"))
    assert np.isnan(made.reward_R[0]) and made.reward_R[1] == 7.0 and not np.isnan(made.reward_R[2:]).any()


@pytest.mark.parametrize(
    ("rule", "lost", "says"),
    [
        (dict(group_reward="e_grpo"), {}, "entities of every prompt"),
        (dict(group_reward="ps_grpo", paraphrases=2), {}, "same question in other forms"),
        (dict(group_reward="otc"), dict(texts=None), "completions as text"),
        (dict(group_reward="gcpo"), dict(verdict_R=np.zeros(24)), "is correct"),
        (dict(group_reward="datarus"), dict(step=None), "number of the step"),
    ],
    ids=str,
)
def test_what_a_rule_reads_and_the_record_lacks_is_said(plain, rule, lost, says):
    with pytest.raises(NotShaped, match=says):
        shaped(replace(plain, **lost), PLAIN, small_config(**SETTINGS, **rule))


def test_replayed_rollouts_and_rewards_without_parts_are_not_shaped_again(plain):
    otc = small_config(**SETTINGS, group_reward="otc")
    with pytest.raises(NotShaped, match="replayed rollouts"):
        shaped(replace(plain, old_N=plain.logp_N), PLAIN, otc)
    with pytest.raises(NotShaped, match="were not recorded"):
        shaped(replace(plain, parts={}), otc, PLAIN)


def test_every_rule_says_which_part_it_adds():
    assert set(ADDS) == {*WITHIN, *ACROSS}

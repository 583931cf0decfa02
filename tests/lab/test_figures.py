"""Two groups worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from grpo_core.config import make_config
from grpo_core.lab.batch import Push, RecordedBatch
from grpo_core.lab.figures import opposed, relative, shared_tokens, summary, widest
from grpo_core.lab.process import LabDown, Laboratory
from grpo_core.lab.push import push_of

NAN = np.full(6, np.nan)
BATCH = RecordedBatch(
    group_R=np.array([0, 0, 1]), index_R=np.array([0, 1, 0]), reward_R=np.array([1.0, 0, 1]), verdict_R=np.array([1.0, -1, 1]), length_R=np.array([2, 2, 2]),
    first_round_R=np.ones(3, "?"), surplus_R=np.zeros(3, "?"), token_ids_N=np.array([7, 8, 7, 9, 7, 9]), logp_N=np.full(6, -1.0), delta_N=NAN, ref_N=NAN,
    entropy_N=NAN, first_entropy=float("nan"), max_length=2,
)  # fmt: skip


def push(*values: float, clipped: tuple[int, ...] = (0,) * 6) -> Push:
    shown = dict(advantage_R=np.zeros(3), advantage_N=np.zeros(6), weight_N=np.ones(6), clipped_N=np.array(clipped, "i1"))
    return Push(push_N=np.array(values), taken_R=np.ones(3, "?"), **shown)


def test_shared_tokens_stand_in_a_correct_and_a_wrong_rollout():
    assert shared_tokens(BATCH).tolist() == [True, False, True, False, False, False]


def test_the_summary_by_hand():
    found = summary(BATCH, push(1, -1, -2, -1, 3, 0, clipped=(0, 0, 1, 0, 0, -1)), shared_tokens(BATCH), clips=True)
    assert found.down_correct == pytest.approx(1 / 8)  # the second token
    assert found.down_shared == pytest.approx(2 / 8)  # the third
    assert found.groups == pytest.approx(8**2 / (5**2 + 3**2)) and found.tokens == pytest.approx(8**2 / (1 + 1 + 4 + 1 + 9))
    assert found.clipped == pytest.approx(2 / 6)


def test_a_method_that_pushes_nothing_has_no_shares():
    found = summary(BATCH, push(*[0] * 6), shared_tokens(BATCH), clips=False)
    assert {found.down_correct, found.down_shared, found.groups, found.tokens, found.clipped} == {None}
    assert not relative(push(*[0] * 6)).any()


def test_where_methods_disagree():
    one, other = push(2, 2, 2, -2, -2, -2), push(1, -1, 1, -1, -1, -1)
    assert opposed([one, other]) == pytest.approx(1 / 6)
    found = widest(BATCH, [relative(one), relative(other)])
    assert (found.first.tolist(), found.last.tolist(), found.apart.tolist()) == ([1], [1], [2.0])


def test_neighbours_pushed_alike_are_one_stretch_that_ends_with_its_rollout():
    found = widest(BATCH, [np.array([3.0, 3, 3, 1, 1, 1]), np.ones(6)])
    assert list(zip(found.first.tolist(), found.last.tolist(), strict=True)) == [(0, 1), (2, 2)]


def test_the_process_answers_like_the_function_and_is_started_again_after_a_death():
    lab, config = Laboratory(), make_config({"method": "dr_grpo"})
    try:
        (answer,) = lab.pushes(BATCH, [config], after=False)
        np.testing.assert_array_equal(answer.push_N, push_of(BATCH, config, after=False).push_N)
        lab._process.process.kill()
        with pytest.raises(LabDown, match="choose again"):
            lab.pushes(BATCH, [config], after=False)
        assert len(lab.pushes(BATCH, [config, config], after=False)) == 2
    finally:
        lab.close()

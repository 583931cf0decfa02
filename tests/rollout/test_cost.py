"""FLOP ratios of shared prompts worked by hand."""

import pytest

from grpo_core.rollout.cost import Work, flop_ratio, groups_of, work_of
from tests.rollout.small_models import build, ragged_rows

ATTENTION, TOKENS = Work(per_token=0.0, per_half_pair=1.0), Work(per_token=1.0, per_half_pair=0.0)


@pytest.mark.parametrize(
    ("prompt", "completion", "group", "attention", "tokens"),
    [(4096, 512, 8, 0.308642, 0.222222), (512, 4096, 8, 0.989198, 0.902778), (7, 3, 1, 1.0, 1.0), (0, 5, 4, 1.0, 1.0), (5, 0, 4, 0.25, 0.25)],
)
def test_the_two_parts_of_one_group(prompt, completion, group, attention, tokens):
    groups = [(prompt, [completion] * group)]
    assert flop_ratio(groups, ATTENTION) == pytest.approx(attention, abs=5e-7)
    assert flop_ratio(groups, TOKENS) == pytest.approx(tokens, abs=5e-7)


def test_ragged_groups_add_up():
    groups = [(2, [1, 3]), (4, [2])]
    # tokens: 2 + 1 + 3 + 4 + 2 over 3 + 5 + 6; half pairs: 4 + 1·5 + 3·7 + 16 + 2·10 over 9 + 25 + 36
    assert flop_ratio(groups, TOKENS) == pytest.approx(12 / 14)
    assert flop_ratio(groups, ATTENTION) == pytest.approx(66 / 70)
    assert flop_ratio(groups, Work(per_token=10.0, per_half_pair=1.0)) == pytest.approx((120 + 66) / (140 + 70))


def test_the_last_token_of_a_completion_is_not_read():
    assert groups_of(ragged_rows()) == [(5, [5, 0]), (3, [3, 2, 5]), (4, [1, 4])]


@pytest.mark.parametrize("kind", ["llama", "lora"])
def test_work_of_a_llama(kind):
    work = work_of(build(kind))
    kv = 32 if kind == "llama" else 16
    weights = 2 * (2 * 32 * 32 + 2 * 32 * kv + 3 * 32 * 48)
    adapters = 2 * 2 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48)) if kind == "lora" else 0
    assert work == Work(per_token=2.0 * (weights + adapters), per_half_pair=2.0 * 2 * 32)

import json
import math

import pytest

from grpo_core.config import make_config
from grpo_core.methods import METHODS
from grpo_core.records import Reward, ScoredGroup
from grpo_core.tasks.build import build_sampler, build_task
from grpo_core.tasks.prompt_memory import Memories
from grpo_core.tasks.sampler import DATA_RULES, PromptSampler, keep
from grpo_core.tasks.tracker import Tracker
from tests.tasks.plain import Characters, dataset_config, group, jsonl


def arithmetic(seed: int) -> PromptSampler:
    return PromptSampler(build_task(make_config({})).bind(Characters()), seed)


def texts(sampler: PromptSampler, n: int) -> list[str]:
    return [p.text for p in sampler.next_prompts(n)]


def test_the_seed_decides_the_prompts() -> None:
    assert texts(arithmetic(1), 50) == texts(arithmetic(1), 50)
    assert texts(arithmetic(1), 50) != texts(arithmetic(2), 50)


def test_a_restored_sampler_continues_bit_for_bit() -> None:
    sampler, other = arithmetic(1), arithmetic(7)
    sampler.next_prompts(5)
    other.restore(json.loads(json.dumps(sampler.state())))
    assert texts(other, 100) == texts(sampler, 100)


def test_a_restored_sampler_continues_in_the_middle_of_an_epoch(tmp_path) -> None:
    data = jsonl(tmp_path / "d.jsonl", [{"prompt": f"q{i}", "answer": "1"} for i in range(20)])
    spec = build_task(dataset_config(data))
    sampler, other = PromptSampler(spec.bind(Characters()), 1), PromptSampler(spec.bind(Characters()), 9)
    sampler.next_prompts(25)  # 18 rows an epoch: in the second one
    state = json.loads(json.dumps(sampler.state()))
    ahead = texts(sampler, 60)
    other.restore(state)
    assert texts(other, 60) == ahead
    sampler.restore(state)
    assert texts(sampler, 60) == ahead


@pytest.mark.parametrize("sampler", [{}, {"prompt_sampler": "vas", "vas_pool": 40}, {"method": "spo", "spo_pool": 40, "prompts_per_step": 8}], ids=str)
def test_every_data_rule_draws_the_same_for_the_same_seed(sampler) -> None:
    def drawn(seed: int) -> list[str]:
        config = make_config(sampler | {"seed": seed})
        rule = build_sampler(build_task(config).bind(Characters()), config, Memories(tracker=Tracker()))
        return [draw.prompt.text for _ in range(3) for draw in rule.draw(8)]

    assert drawn(1) == drawn(1) != drawn(2)


def scored(*totals: float, correct: tuple[bool, ...] | None = None) -> ScoredGroup:
    rewards = [
        Reward(parts={}, total=t, correct=None if math.isnan(t) else (t > 0.5 if correct is None else correct[i]), failure="x" if math.isnan(t) else None)
        for i, t in enumerate(totals)
    ]
    return ScoredGroup(group=group("2", *"abcdefgh"[: len(totals)]), rewards=tuple(rewards))


@pytest.mark.parametrize("rule", DATA_RULES.values(), ids=lambda rule: rule.name)
def test_mixed_groups_are_kept_and_groups_without_a_pair_are_not(rule) -> None:
    assert keep(rule, scored(1.0, 0.0)) == (True, "")
    assert keep(rule, scored(1.0, math.nan, 0.0)) == (True, "")
    assert keep(rule, scored(1.0, math.nan, math.nan)) == (False, "only 1 of 3 rollouts could be scored, so there is nothing to compare")
    assert keep(rule, scored(math.nan, math.nan))[0] is False


@pytest.mark.parametrize(
    ("totals", "correct", "reason"),
    [
        ((0.0, 0.0), None, "all rewards are 0 (0 of 2 correct), so no rollout is better than another"),
        ((1.0, 1.0, math.nan), None, "all rewards are 1 (2 of 2 correct), so no rollout is better than another"),
        ((0.95, 0.95), (True, False), "all rewards are 0.95 (1 of 2 correct), so no rollout is better than another"),
    ],
)
def test_groups_with_equal_rewards_are_dropped_by_dynamic_only(totals, correct, reason: str) -> None:
    assert keep(DATA_RULES["uniform"], scored(*totals, correct=correct)) == (True, "")
    assert keep(DATA_RULES["dynamic"], scored(*totals, correct=correct)) == (False, reason)


def test_dynamic_judges_by_reward_not_by_correctness() -> None:
    # both correct, but one was shorter: the rewards differ, so there is something to learn
    assert keep(DATA_RULES["dynamic"], scored(1.0, 0.9, correct=(True, True))) == (True, "")


def test_only_dynamic_refills_and_every_method_names_a_rule() -> None:
    assert {rule.name for rule in DATA_RULES.values() if rule.refill} == {"dynamic"}
    assert all(method.sampler in DATA_RULES for method in METHODS.values())

"""Group-aware rewards against the worked numbers of their papers, and what a run makes of them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo_core.config import RunConfig, make_config
from grpo_core.errors import ConfigError, TaskError
from grpo_core.notes import structural_notes
from grpo_core.records import Completion, Group, Prompt, ScoredGroup
from grpo_core.rules import GROUP_REWARDS, OPTIONS
from grpo_core.tasks import shaping
from grpo_core.tasks.build import build_task
from grpo_core.tasks.group_rewards import (
    bleu_2,
    consistency,
    contrast,
    cosine_weight,
    data_hardness,
    e_grpo,
    entity_shares,
    gcpo,
    model_hardness,
    otc,
    scaled_advantages,
    scheduled,
    tool_efficiency,
)
from grpo_core.tasks.scoring import score
from grpo_core.tasks.shaping import shape
from tests.tasks.plain import Characters


@pytest.mark.parametrize(
    ("fewest", "of_calls"),
    [(0, [1, 0.5, 0.309017, 0.222521, 0.173648]), (1, [0, 1, 0.866025, 0.707107, 0.587785]), (2, [0, 0.866025, 1, 0.951057, 0.866025]), (None, [0] * 5)],
)
def test_otc_by_number_of_calls(fewest, of_calls):
    assert [tool_efficiency(m, fewest) for m in range(5)] == pytest.approx(of_calls, abs=1e-6)


def test_otc_of_a_group():
    assert otc([1, 2, 3, 1], [False, True, True, False]) == pytest.approx([0, 1, 0.951057, 0], abs=1e-6)
    assert otc([1, 2], [False, False]) == [0, 0] and otc([2], [True], alpha=0.5) == pytest.approx([0.5])


def test_e_grpo_of_a_group():
    matched = [0.5, 0.25, 0.0, 0.5]
    rewards = e_grpo(matched, [True, False, False, False], [False] * 4)
    assert rewards == pytest.approx([1, 0.15, 0, 0.3]) and entity_shares([0, 0]) == [0, 0]
    advantages = (np.array(rewards) - np.mean(rewards)) / np.std(rewards)
    assert advantages == pytest.approx([1.664322, -0.554774, -0.946379, -0.163169], abs=1e-6)
    assert e_grpo([1, 1], [True, False], [True, True]) == [0, 0]


def test_consistency_across_forms():
    """sims [[.8, .2], [.4, .6]] between two rollouts of one form and two of another: .5 .5 and .6 .4. Alikeness inside a form does not count."""
    similarity = np.array([[1, 1, 0.8, 0.2], [1, 1, 0.4, 0.6], [0.8, 0.4, 1, 1], [0.2, 0.6, 1, 1]])
    assert consistency(similarity, [0, 0, 1, 1]) == pytest.approx([0.5, 0.5, 0.6, 0.4])
    assert np.isnan(consistency(similarity[:2, :2], [0, 0])).all()


def test_bleu_2_by_hand():
    """[1 2 3] in [1 2 4]: 2 of 3 tokens and 1 of 2 pairs; one token shorter costs e^(1 − 3/2)."""
    assert bleu_2([1, 2, 3], [1, 2, 4]) == pytest.approx(math.sqrt(2 / 3 / 2))
    assert bleu_2([1, 2], [1, 2, 3]) == pytest.approx(math.exp(-0.5)) and bleu_2([1, 2], [1, 2]) == 1
    assert bleu_2([1], [2]) == 0 and bleu_2([], [1]) == 0 and bleu_2([1, 2], [2, 1]) == pytest.approx(math.sqrt(0.1))


def test_gcpo_rewards_the_step_that_helps():
    used, right = [True, True, False, False], [True, True, True, False]
    assert contrast(used, right) == 1 and contrast([not u for u in used], right) == -1
    assert contrast(used, [True, False, True, False]) == 0 and contrast([True] * 4, right) == 0
    assert contrast(used, right, margin=0.5) == 0  # 1 against ½ is not more than ½
    assert gcpo([1, 1, 1, 0], used, right) == [2, 2, 1, 0] and gcpo([1, 1, 1, 0], [not u for u in used], right, weight=0.5) == [1, 1, 0.5, -0.5]


def test_datarus_goes_from_form_to_outcome():
    assert [cosine_weight(t, 4) for t in range(6)] == pytest.approx([1, 0.853553, 0.5, 0.146447, 0, 0], abs=1e-6)
    assert scheduled([1, 0], [0, 1], 0.75) == [0.75, 0.25]


def test_dr_irl_scales():
    assert data_hardness(0.6, 0.5) == pytest.approx(1.037267, abs=1e-6) and data_hardness(0.5, 0.5) == 1
    assert model_hardness([1, 0], [0.0, 0.0], spread=1) == 1 and model_hardness([1, 0], [0.0, 4.0], spread=1) == 1  # none is near the mean gap of 2
    assert model_hardness([1, 0, 0], [2, 2, 5], spread=1.5) == pytest.approx((1 / (1 + math.exp(-0.5))) / (1 / (1 + math.exp(-1 / 3))))
    assert scaled_advantages([1, 0], 1.037267) == pytest.approx([1.037267, -1.037267]) and (scaled_advantages([1, 1], 2) == 0).all()


def scored(config: RunConfig, prompt: Prompt, *texts: str) -> ScoredGroup:
    """A group as the task judges it; texts that end in … are cut at the limit."""
    nothing = np.zeros(0, "f4")
    completions = tuple(
        Completion(
            token_ids=np.array([ord(letter) for letter in text.rstrip("…")], "i4"), text=text.rstrip("…"), logp_sampling=nothing, logp=nothing, entropy=nothing,
            finish="length" if text.endswith("…") else "stop",
        )
        for text in texts
    )  # fmt: skip
    [found] = score([Group(prompt=prompt, completions=completions)], task_of(config))
    return found


def task_of(config: RunConfig):
    return build_task(config).bind(Characters())


def shaped(settings: dict, *texts: str, step: int = 0) -> list[tuple[float, bool | None]]:
    config = make_config(settings)
    prompt = task_of(config)._prompt(36, 31)
    [group] = shape([scored(config, prompt, *texts)], config, step)
    return [(pytest.approx(reward.total), reward.correct) for reward in group.rewards]


WORKED, BARE, WRONG = "6+1=7,3+3+0=6:67", ":67", "6+1=7,3+3+0=7:77"


def test_what_rules_make_of_the_arithmetic_task():
    assert shaped({}, WORKED, WRONG) == [(1, True), (0, False)]
    assert shaped({"group_reward": "otc"}, WORKED, BARE, WRONG) == [(math.cos(2 * math.pi / 5), True), (1, True), (0, False)]
    assert shaped({"group_reward": "e_grpo"}, WORKED, WRONG, BARE, WRONG + "…") == [(1, True), (0.15, False), (1, True), (0, False)]
    assert shaped({"group_reward": "gcpo"}, WORKED, WORKED, ":66", WRONG) == [(2, True), (2, True), (0, False), (1, False)]
    assert shaped({"group_reward": "datarus", "steps": 2}, WORKED, BARE, WRONG) == [(1, True), (0, True), (1, False)]
    assert shaped({"group_reward": "datarus", "steps": 2}, WORKED, BARE, WRONG, step=1) == [(1, True), (0.5, True), (0.5, False)]


def test_forms_of_a_question_are_asked_together_and_compared():
    config = make_config({"group_reward": "ps_grpo", "paraphrases": 3, "prompts_per_step": 6})
    drawn = task_of(config).draw(np.random.default_rng(0), 6)
    assert len({p.row["question"] for p in drawn}) == 2 and len({p.text for p in drawn}) == 6 and len({p.answer for p in drawn}) <= 2
    first, second, third = (scored(config, prompt, ":1", ":2") for prompt in drawn[:3])
    other = scored(config, drawn[3], ":1", ":1")
    made = shape([first, other, second, third], config, 0)
    alike = (1 + bleu_2([58, 49], [58, 50])) / 2
    assert [reward.total for reward in made[0].rewards] == pytest.approx([alike, alike]) and made[0].rewards[0].parts["consistency"] == pytest.approx(alike)
    assert [reward.total for reward in made[1].rewards] == [0, 0]  # the other question stands alone
    assert make_config({"paraphrases": 2}).paraphrases == 2 and build_task(config).fingerprint != build_task(make_config({})).fingerprint
    warm = {build_task(config).warmup_example(np.random.default_rng(seed))[0][0] for seed in range(30)}
    assert "+" in warm and len(warm) > 3


def test_every_rule_that_is_said_to_train_is_in_the_config_and_the_other_way_round():
    offered = set(RunConfig.model_fields["group_reward"].annotation.__args__) - {"none"}
    assert offered == {rule.name for rule in GROUP_REWARDS.values() if not rule.lacks} == {*shaping.WITHIN, *shaping.ACROSS}
    assert all(rule.assumes for rule in GROUP_REWARDS.values())
    (note,) = structural_notes(make_config({"group_reward": "otc"}))
    assert note.startswith("group_reward=otc assumes: α = 1")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (dict(group_reward_weight=1.0), "not read without a group_reward"),
        (dict(group_reward="datarus", group_reward_weight=1.0), "follows the cosine schedule"),
        (dict(mark_pattern="x"), "read only with group_reward=otc"),
        (dict(group_reward="otc", mark_pattern="("), "no regular expression"),
        (dict(group_reward="otc", task="dataset", data="x.jsonl"), "needs mark_pattern"),
        (dict(group_reward="otc", method="psr", group_size=1), "group_size=1 leaves none to compare"),
        (dict(group_reward="ps_grpo"), "set paraphrases=2"),
        (dict(group_reward="otc", method="gdpo"), "takes the parts of the reward apart"),
        (dict(paraphrases=3), "does not divide the 16 prompts .* try prompts_per_step=15"),
        (dict(paraphrases=2, replay_size=4), "draw whole questions"),
        (dict(paraphrases=2, task="dataset", data="x.jsonl"), "only the arithmetic task"),
    ],
)
def test_settings_that_can_do_nothing_are_refused(settings, why):
    with pytest.raises(ConfigError, match=why):
        make_config(settings)


def test_a_prompt_without_entities_is_a_sentence():
    config = make_config({"group_reward": "e_grpo"})
    bare = Prompt(prompt_id="p7", text="1+1=", token_ids=(1,), answer="2", row={"entities": "one"})
    with pytest.raises(TaskError, match="needs a list of entities with every prompt, and p7 has 'one'"):
        shape([scored(config, bare, ":2")], config, 0)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_rollouts_changes_no_reward(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 7))
    counts, shares, totals = rng.integers(0, 4, size), rng.integers(0, 3, size) / 2, rng.normal(size=size)
    correct, used, void, form = (rng.integers(0, 2, size) for _ in range(4))
    similarity, order = rng.random((size, size)), rng.permutation(size)

    def rewards(at):
        alike = consistency(similarity[np.ix_(at, at)], form[at])
        return np.array([
            otc(counts[at], correct[at]), e_grpo(shares[at], correct[at], void[at]), entity_shares(shares[at]), gcpo(totals[at], used[at], correct[at]),
            scheduled(totals[at], shares[at], 0.3), scaled_advantages(totals[at], 1.5), alike,
        ])  # fmt: skip

    np.testing.assert_allclose(rewards(order), rewards(np.arange(size))[:, order])
    assert contrast(used[order], correct[order]) == contrast(used, correct)
    assert model_hardness(totals[order], shares[order], spread=0.1) == pytest.approx(model_hardness(totals, shares, spread=0.1))


@pytest.mark.parametrize(("option", "name"), [(option, rule.name) for option, table in OPTIONS.items() for rule in table.values() if not rule.lacks])
def test_a_rule_is_taken_by_its_preset_id_too(option: str, name: str) -> None:
    rule, beside = OPTIONS[option][name], {"paraphrases": 2} if name == "ps_grpo" else {}
    assert rule.preset == f"{name}-{rule.paper.removeprefix('arXiv:')}" and getattr(make_config({option: rule.preset, **beside}), option) == name
    with pytest.raises(ConfigError, match=option):
        make_config({option: f"{name}-0000.00000", **beside})

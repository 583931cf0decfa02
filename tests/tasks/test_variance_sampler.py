import json
import math

import numpy as np
import pytest

from grpo_core.config import make_config
from grpo_core.errors import ConfigError
from grpo_core.records import Completion, Group, Reward, ScoredGroup
from grpo_core.tasks.build import build_sampler, build_task
from grpo_core.tasks.prompt_memory import Memories
from grpo_core.tasks.variance_sampler import VarianceSampler, promotion
from tests.tasks.plain import Characters

VAS = dict(prompt_sampler="vas", vas_pool=4)


def sampler_of(**changes) -> VarianceSampler:
    config = make_config(VAS | changes)
    return build_sampler(build_task(config).bind(Characters()), config, Memories())


def group_of(prompt, rows: list[list[int]], verdicts: list[bool | None]) -> ScoredGroup:
    nothing = np.zeros(0, "f4")
    completions = tuple(
        Completion(token_ids=np.array(row, "i4"), text="", logp_sampling=nothing, logp=nothing, entropy=nothing, finish="stop") for row in rows
    )
    rewards = tuple(Reward(parts={}, total=math.nan if v is None else float(v), correct=v) for v in verdicts)
    return ScoredGroup(group=Group(prompt=prompt, completions=completions), rewards=rewards)


MIXED = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 7, 8], [1, 2, 3, 9, 10, 11], [12, 13, 14, 15, 5, 6]]


def test_the_score_is_the_papers_on_its_worked_numbers():
    """collapse_math.md §3.2: p = .5 and mixed texts .3096, solved and identical 0 (released code says .2)."""
    sampler = sampler_of()
    prompt = sampler.task.at(0)
    config = make_config(VAS)
    assert promotion(group_of(prompt, MIXED, [True, True, False, False]), config) == pytest.approx(0.3096, abs=5e-5)
    assert promotion(group_of(prompt, [MIXED[0]] * 4, [True] * 4), config) == pytest.approx(0.0, abs=1e-12)
    assert promotion(group_of(prompt, MIXED, [True, None, None, None]), config) is None


def observe(sampler: VarianceSampler, **verdicts: list[bool]) -> None:
    sampler.observe([group_of(sampler.task.at(int(sampler.pool[int(p[1:])])), [MIXED[0]] * len(v), v) for p, v in verdicts.items()])


def test_prompts_are_drawn_in_proportion_to_their_scores():
    sampler = sampler_of(vas_mixture=0.5)
    observe(sampler, p0=[True, False], p1=[True, True, True, False], p2=[True] * 4, p3=[False] * 4)
    assert sampler.scores.tolist() == pytest.approx([0.8 * 0.25, 0.8 * 3 / 16, 0.0, 0.0])
    draws = sampler.draw(4000)
    weighted = [d for d in draws if d.probability is not None]
    assert len(weighted) == 2000 and {d.score for d in draws if d.probability is None} == {None}
    first = sampler.task.at(int(sampler.pool[0])).hash
    assert sum(d.prompt.hash == first for d in weighted) / 2000 == pytest.approx(4 / 7, abs=0.04)
    assert {round(d.probability, 6) for d in weighted} == {round(4 / 7, 6), round(3 / 7, 6)}


@pytest.mark.parametrize(("size", "mixture", "weighted"), [(512, 0.5, 256), (10, 0.55, 5), (3, 0.1, 0)])
def test_the_weighted_share_of_a_batch_is_rounded_down(size, mixture, weighted):
    draws = sampler_of(vas_mixture=mixture).draw(size)
    assert (sum(d.probability is not None for d in draws), len(draws)) == (weighted, size)


def test_a_prompt_without_a_score_counts_as_the_highest_and_all_zeros_as_equal():
    sampler = sampler_of()
    assert sampler.weights().tolist() == pytest.approx([0.8 * 0.25 + 0.2] * 4)
    observe(sampler, p0=[True] * 2, p1=[True] * 2, p2=[False] * 2, p3=[False] * 2)
    assert sampler.weights().tolist() == [1, 1, 1, 1]


def test_momentum_keeps_part_of_the_old_score_and_reuse_can_be_off():
    sampler = sampler_of(vas_momentum=0.75)
    observe(sampler, p0=[True, False])
    observe(sampler, p0=[True, True])
    assert sampler.scores[0] == pytest.approx(0.75 * 0.2)
    still = sampler_of(vas_reuse="no")
    observe(still, p0=[True, False])
    assert np.isnan(still.scores).all()


def test_it_refreshes_on_schedule_and_continues_bit_for_bit():
    sampler = sampler_of(vas_refresh=28)
    assert [step for step in range(60) if sampler.due(step)] == [0, 28, 56] and not any(sampler_of(vas_refresh=0).due(s) for s in range(5))
    observe(sampler, p0=[True, False], p2=[True, True])
    sampler.draw(7)
    other = sampler_of(vas_refresh=28)
    other.restore(json.loads(json.dumps(sampler.state())))
    assert [d.prompt.hash for d in other.draw(50)] == [d.prompt.hash for d in sampler.draw(50)]


def test_the_pool_is_the_same_for_the_same_seed_and_zero_is_everything():
    assert sampler_of(seed=3).pool.tolist() == sampler_of(seed=3).pool.tolist() != sampler_of(seed=4).pool.tolist()
    assert len(sampler_of(vas_pool=0).pool) == sampler_of(vas_pool=0).task.size


def test_options_without_the_sampler_are_refused():
    with pytest.raises(ConfigError, match="vas_pool: read only with prompt_sampler=vas"):
        make_config({"vas_pool": 3})
    with pytest.raises(ConfigError, match="both 0"):
        make_config({**VAS, "vas_alpha": 0, "vas_beta": 0})

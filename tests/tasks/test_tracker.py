"""SPO's tracker and sampler against numbers worked by hand."""

import numpy as np
import pytest

from grpo_core.config import make_config
from grpo_core.errors import ConfigError, TaskError
from grpo_core.tasks.build import build_sampler, build_task
from grpo_core.tasks.prompt_memory import Memories, build_memories
from grpo_core.tasks.tracker import Belief, TrackedSampler, Tracker, draw_weight, prior, retained
from tests.tasks.plain import Characters
from tests.tasks.test_variance_sampler import group_of

SPO = dict(method="spo", group_size=1, prompts_per_step=4, spo_pool=6)


def sampler_of(tracker: Tracker | None = None, **changes) -> TrackedSampler:
    config = make_config(SPO | changes)
    return build_sampler(build_task(config).bind(Characters()), config, Memories(tracker=tracker or Tracker()))


def test_the_worked_numbers():
    """From 2 of 8 right; then right without drift, wrong after 0.006 nats, right after 0.1 nats: ρ at its cap, between, at its floor."""
    belief = Belief(*prior(2, 8))
    assert (belief.alpha, belief.beta, belief.rate) == pytest.approx((2.222222, 5.777778, 0.277778), abs=1e-6)
    assert 1 - belief.rate == pytest.approx(0.722222, abs=1e-6)
    belief = belief.after([True], 0.0)
    assert (belief.alpha, belief.beta, belief.rate) == pytest.approx((3.133333, 5.546667, 0.360983), abs=1e-6)
    belief = belief.after([False], 0.006)
    assert (belief.kept, belief.alpha, belief.beta) == pytest.approx((0.933033, 2.923503, 6.175223), abs=1e-6)
    belief = belief.after([True], 0.1)
    assert (belief.kept, belief.alpha, belief.beta, belief.rate) == pytest.approx((0.875, 3.558065, 5.403320, 0.397044), abs=1e-6)
    assert prior(0, 0) == (0.5, 0.5) and retained(0) == 0.96 and retained(9) == 0.875


def test_several_rollouts_of_a_prompt_all_count():
    belief = Belief(4, 4).after([True, True, False], 1.0)
    assert (belief.alpha, belief.beta) == (0.875 * 4 + 2, 0.875 * 4 + 1)


def test_undecided_prompts_are_drawn_more_and_none_twice():
    assert draw_weight(np.array([0, 0.1, 0.5])) == pytest.approx([0.05, 0.35, 0.55])
    tracker = Tracker()
    sampler = sampler_of(tracker, spo_init=0)
    prompts = [sampler.task.at(int(index)) for index in sampler.pool]
    for prompt, right in zip(prompts, (0, 0, 0, 4, 8, 8), strict=True):
        tracker.begin(prompt, [True] * right + [False] * (8 - right))
    drawn = [sampler.draw(4) for _ in range(400)]
    assert all(len({d.prompt.hash for d in draw}) == 4 for draw in drawn)
    counts = {prompt.hash: sum(d.prompt.hash == prompt.hash for draw in drawn for d in draw) for prompt in prompts}
    assert counts[prompts[3].hash] == max(counts.values())
    first = drawn[0][0]
    assert first.score == pytest.approx(float(draw_weight(np.array(tracker.rate(first.prompt))))) and 0 < first.probability < 1


def test_the_pool_is_tried_once_and_only_once():
    sampler = sampler_of()
    assert sampler.due(0) and sampler.trial_rollouts == 8 and not sampler_of(spo_init=0).due(0)
    prompt = sampler.task.at(int(sampler.pool[0]))
    sampler.observe([group_of(prompt, [[1]] * 3, [True, False, None])], refresh=True)
    assert not sampler.due(1) and sampler._tracker.rate(prompt) == 0.5
    again = sampler_of()
    again.restore(sampler.state())
    assert not again.due(1)


def test_a_memory_continues_bit_for_bit_and_says_what_it_knows():
    one, other = Tracker(), Tracker()
    prompt = sampler_of().task.at(3)
    assert one.of(prompt) == {} and one.rate(prompt) == 0.5 and one.last(prompt) is None
    one.observe(prompt, [True], drift=0.03, token_ids=np.array([4, 5], "i4"), logp=np.array([-0.5, -1], "f4"))
    other.restore(one.state())
    for tracker in (one, other):
        tracker.observe(prompt, [False], drift=0.01, token_ids=np.array([7], "i4"), logp=np.array([-2], "f4"))
    assert one.of(prompt) == other.of(prompt) and set(one.of(prompt)) == {"p", "alpha", "beta", "drift", "kept"}
    assert other.last(prompt).logp.tolist() == [-2]


def test_what_cannot_be_is_a_sentence():
    with pytest.raises(ConfigError, match=r"group_size=1 leaves no other rollout .* method grpo does.*reinforce_pp, psr, nsr, w_reinforce, remax, spo"):
        make_config({"group_size": 1})
    make_config({"group_size": 1, "method": "nsr"})
    with pytest.raises(ConfigError, match="spo_pool is set but method grpo does not read it"):
        make_config({"spo_pool": 3})
    with pytest.raises(ConfigError, match="draws prompts by its trackers; set prompt_sampler=uniform"):
        make_config({"method": "spo", "prompt_sampler": "vas"})
    with pytest.raises(TaskError, match="prompts_per_step=4 is more than the 3 prompts .* at most 3"):
        sampler_of(spo_pool=3)
    assert build_memories(make_config({})).state() == {}

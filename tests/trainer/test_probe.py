import dataclasses

import numpy as np
import pytest

from grpo_core.trainer.probe import probe, remember_start
from grpo_core.trainer.step import run_step
from tests.trainer.small_runs import small_state


def test_the_probe_set_is_compared_with_the_start(model_cache):
    state = small_state(model_cache, probe_every=2, probe_answers=6, lr=5e-3)
    traces = [run_step(state, step, last=step == 3) for step in range(4)]
    assert [trace.probe is not None for trace in traces] == [True, False, True, True]  # every second step, and the last
    start = np.array(state.memory.probe_start)
    assert start.shape == (6,) and (start < 0).all()
    now = traces[3].probe
    assert now.answers == 6 and now.delta != 0 and 0 <= now.fell <= 1
    again = probe(state, 4, last=False)
    assert (again.logp, again.delta, again.fell) == pytest.approx((now.logp, now.delta, now.fell), rel=1e-5)  # same answers, same policy


def test_it_starts_before_the_first_update_and_stays(model_cache):
    state = small_state(model_cache, probe_answers=3)
    remember_start(state)
    start = list(state.memory.probe_start)
    assert probe(state, 0, last=False).delta == pytest.approx(0.0, abs=1e-4)
    run_step(state, 0)
    remember_start(state)
    assert state.memory.probe_start == start


def test_off_is_off(model_cache):
    state = small_state(model_cache, probe_every=0)
    assert run_step(state, 0, last=True).probe is None and state.memory.probe_start is None


class WithoutAnswers:
    """The task with its worked answers taken away; counts how often its held-out prompts are asked for."""

    def __init__(self, task):
        self._task, self.asked = task, 0

    def __getattr__(self, name):
        return getattr(self._task, name)

    def held_out(self, n):
        self.asked += 1
        return [dataclasses.replace(prompt, gold=None) for prompt in self._task.held_out(n)]


def test_a_task_without_answers_is_asked_for_them_once(model_cache):
    state = small_state(model_cache, probe_every=1)
    task = WithoutAnswers(state.task)
    state = dataclasses.replace(state, task=task)
    assert [run_step(state, step).probe for step in range(3)] == [None] * 3
    assert task.asked == 1

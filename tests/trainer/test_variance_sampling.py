from grpo_core.trainer.step import run_step
from tests.trainer.small_runs import Watched, small_config, small_state


def test_a_run_scores_its_pool_draws_by_it_and_records_why(model_cache):
    state = small_state(model_cache, prompt_sampler="vas", vas_pool=6, vas_rollouts=4, vas_refresh=2)
    trace = run_step(state, 0)
    weighted = [g for g in trace.groups if g.sampler_probability is not None]
    assert len(weighted) == 2 and all(0 < g.sampler_probability <= 1 and g.sampler_score >= 0 for g in weighted)
    assert not any(score != score for score in state.sampler.scores)  # the refresh scored every prompt of the pool


def test_it_resumes_bit_for_bit(model_cache, tmp_path):
    config = small_config(steps=4, prompt_sampler="vas", vas_pool=6, vas_rollouts=4, vas_refresh=3)
    whole = Watched(tmp_path / "whole", model_cache)
    whole.run(config)
    parts = Watched(tmp_path / "parts", model_cache)
    parts.run(config, stop_at=2)
    parts.run(config, resume=True)
    drawn = lambda run: [(g.prompt.hash, g.sampler_score, g.sampler_probability) for t in run.traces for g in t.groups]  # noqa: E731
    assert drawn(parts) == drawn(whole)
    assert [t.updates[-1].loss for t in parts.traces] == [t.updates[-1].loss for t in whole.traces]

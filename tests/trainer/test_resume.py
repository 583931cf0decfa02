"""Checkpoints and resuming: 20 steps are 10 steps, a stop, and 10 more, bit for bit on the CPU."""

import resource

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from grpo_core.errors import ModelError
from grpo_core.trainer.checkpoint import Position, checkpoints, load_newest, save
from grpo_core.trainer.step import run_step
from tests.trainer.small_runs import Watched, small_config, small_state


def fingerprint(trace):
    """Everything of a step that must repeat: ids, log-probs before and after, advantages, rewards, updates."""
    rollouts = [r for g in trace.groups for r in g.rollouts]
    traces = [(r.completion.token_ids, r.completion.logp, r.advantages, r.logp_delta, r.weights, r.nthr) for r in rollouts]
    arrays = [array for row in traces for array in row if array is not None]
    return np.concatenate(arrays).tobytes(), [(u.loss, u.grad_norm, u.lr) for u in trace.updates], [g.prompt.prompt_id for g in trace.groups]


@pytest.mark.parametrize(
    "changes",
    [
        dict(), dict(method="dapo", minibatches=2), dict(method="grpo_llds", kl_coef=0.01, lr_warmup=30), dict(method="gtpo", nthr_every=3),
        dict(method="disco", minibatches=2), dict(method="red_drop"), dict(method="remax"),
    ],
)  # fmt: skip
def test_stopped_and_resumed_is_the_same_run(tmp_path, model_cache, changes):
    config = small_config(steps=20, checkpoint_every=7, **changes)
    whole, halves = Watched(tmp_path / "whole", model_cache), Watched(tmp_path / "halves", model_cache)
    assert not whole.run(config).stopped
    first = halves.run(config, stop_at=10)
    assert first.stopped and first.steps_done == 10
    second = halves.run(config, resume=True)
    assert not second.stopped and second.steps_done == 20 and halves.starts[1].first_step == 10
    assert [t.step for t in halves.traces] == list(range(20)) and [t.attempt for t in halves.traces] == [0] * 10 + [1] * 10
    for a, b in zip(whole.traces, halves.traces, strict=True):
        assert fingerprint(a) == fingerprint(b), f"step {a.step} differs"
    ends = [load_file(checkpoints(w.folder)[-1] / "model.safetensors") for w in (whole, halves)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize("short", [1, 1000, 20_000])
@pytest.mark.parametrize("torn", ["model.safetensors", "trainer.pt"])
def test_a_full_disk_is_told_as_one_and_leaves_the_older_checkpoint(tmp_path, model_cache, torn, short):
    state = small_state(model_cache)
    run_step(state, 0)
    kept = save(state, tmp_path, Position(1, 1.0))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((kept / torn).stat().st_size - short, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save(state, tmp_path, Position(2, 2.0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert checkpoints(tmp_path) == [kept] and not list(tmp_path.glob(".step*"))


def test_lora_resumes_too(tmp_path, model_cache):
    config = small_config(steps=4, lora_rank=2)
    whole, halves = Watched(tmp_path / "whole", model_cache), Watched(tmp_path / "halves", model_cache)
    whole.run(config)
    halves.run(config, stop_at=2)
    halves.run(config, resume=True)
    assert [fingerprint(t) for t in whole.traces] == [fingerprint(t) for t in halves.traces]


def test_checkpoints_are_flushed_first_pruned_and_readable_by_transformers(tmp_path, model_cache):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run = Watched(tmp_path, model_cache)
    run.run(small_config(steps=5, checkpoint_every=1, checkpoints_kept=2))
    assert run.flushed == 5
    assert [p.name for p in checkpoints(tmp_path)] == ["step-00000004", "step-00000005"]
    AutoModelForCausalLM.from_pretrained(checkpoints(tmp_path)[-1])
    AutoTokenizer.from_pretrained(checkpoints(tmp_path)[-1])


def test_a_torn_checkpoint_is_passed_over(tmp_path, model_cache):
    run = Watched(tmp_path, model_cache)
    config = small_config(steps=4, checkpoint_every=2)
    run.run(config)
    torn = checkpoints(tmp_path)[-1] / "trainer.pt"
    torn.write_bytes(torn.read_bytes()[:100])
    run.run(config, resume=True)
    assert run.starts[-1].first_step == 2
    with pytest.raises(ModelError, match="no readable checkpoint among 0"):
        Watched(tmp_path / "elsewhere", model_cache).run(config, resume=True)


def test_the_first_entropy_outlives_a_restart_and_old_checkpoints_load(tmp_path, model_cache):
    config = small_config(steps=4, method="gtpo")
    state = small_state(model_cache, steps=4, method="gtpo")
    state.memory.first_entropy = 0.123456789012345
    save(state, tmp_path, Position(1, 0.0))
    again = small_state(model_cache, steps=4, method="gtpo")
    load_newest(again, tmp_path)
    assert again.memory.first_entropy == 0.123456789012345
    run_step(again, 1)
    assert again.memory.first_entropy == 0.123456789012345
    file = checkpoints(tmp_path)[-1] / "trainer.pt"
    saved = torch.load(file, weights_only=False)
    del saved["first_entropy"]  # as written before it was kept
    torch.save(saved, file)
    run = Watched(tmp_path, model_cache)
    assert run.run(config, resume=True).steps_done == 4 and run.starts[0].first_step == 1

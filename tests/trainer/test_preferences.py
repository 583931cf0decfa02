"""GEPO's second stream: what it reads, what it adds to an update and its gradient, that it resumes, and what it refuses."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from grpo_core.algorithms.group_objectives import Scores
from grpo_core.algorithms.penalties import prefer_winners
from grpo_core.errors import ConfigError, TaskError
from grpo_core.notes import structural_notes
from grpo_core.objectives import objective_of
from grpo_core.rollout.batch import rows_of
from grpo_core.trainer.batch import score_quietly
from grpo_core.trainer.step import run_step
from tests.benchmarks.preferences import preference
from tests.trainer.small_runs import Watched, small_config, small_state
from tests.trainer.test_resume import fingerprint

PAIRS = [(a, 7 * a % 50) for a in range(3, 15)]


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    return written(tmp_path, *(preference(a, b) for a, b in PAIRS))


def written(folder: Path, *rows: dict[str, object]) -> str:
    path = folder / "preferences.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return str(path)


def gepo(corpus: str, **changes: object) -> dict[str, object]:
    return dict(method="gepo", preferences=corpus, preference_groups=5) | changes


def margins(state) -> np.ndarray:
    """How much likelier than under the start model the chosen completion of each row is, less the rejected ones' mean, in nats."""
    groups = state.preferences.groups
    rows = rows_of([one.group for one in groups], pad_id=state.writer.pad_id, device=state.writer.device)
    gained = ((score_quietly(state, rows) - state.reference(rows)) * rows.mask_BT).sum(1).reshape(len(groups), 3)
    return (gained[:, 0] - gained[:, 1:].mean(1)).numpy()


def test_every_update_reads_groups_of_its_own_in_an_order_of_the_seed(model_cache, corpus):
    state, again = (small_state(model_cache, **gepo(corpus)) for _ in range(2))
    read = {(step, update): [one.group.prompt.prompt_id for one in state.preferences.of(step, update)] for step in (0, 1) for update in (0, 1)}
    assert all(len(set(names)) == 5 for names in read.values()) and len({tuple(names) for names in read.values()}) == 4
    assert read[1, 1] == [one.group.prompt.prompt_id for one in again.preferences.of(1, 1)]
    first = state.preferences.groups[0]
    assert first.chosen == 1 and [c.text for c in first.group.completions] == [preference(*PAIRS[0])["chosen"], *preference(*PAIRS[0])["rejected"]]
    assert all(c.token_ids[-1] == state.policy.eos_ids[0] for c in first.group.completions)
    assert len(small_state(model_cache, **gepo(corpus, preference_groups=99)).preferences.of(0, 0)) == len(PAIRS)


def test_the_stream_takes_the_place_of_the_rollouts_own_groups(corpus):
    assert objective_of(small_config(method="gepo")).penalties == {"gepo": 0.01} and objective_of(small_config(method="gepo")).preference == 0
    assert objective_of(small_config(**gepo(corpus))).penalties == {} and objective_of(small_config(**gepo(corpus, gepo_coef=0.5))).preference == 0.5


def test_its_term_is_the_papers_loss_of_what_the_update_read(model_cache, corpus):
    """At a run's first update policy and reference are the same: −log σ(0). At the second, what the first has moved."""
    once, twice = (small_state(model_cache, **gepo(corpus, gepo_coef=2.0, epochs=epochs)) for epochs in (1, 2))
    (alone,), (first, second) = (run_step(state, 0).updates for state in (once, twice))
    assert first.terms == alone.terms and first.terms["gepo"] == pytest.approx(2 * math.log(2), abs=1e-5)
    rows = rows_of([one.group for one in once.preferences.of(0, 1)], pad_id=once.writer.pad_id, device=once.writer.device)
    scores_B = ((score_quietly(once, rows) - once.reference(rows)) * rows.mask_BT).sum(1).double()
    signs_B = torch.tensor([1.0, -1.0, -1.0] * 5)
    expected = prefer_winners(Scores(scores_B=scores_B, advantages_B=signs_B, group_B=rows.prompt_of_row_B, inside_B=torch.ones(15, dtype=torch.bool)))
    assert second.terms["gepo"] == pytest.approx(2 * float(expected), abs=1e-5) and second.terms["gepo"] < first.terms["gepo"]
    assert second.loss == pytest.approx(sum(second.terms.values()), abs=1e-5)


def test_micro_batches_have_the_same_gradient(model_cache, corpus):
    whole, parts = (small_state(model_cache, **gepo(corpus, gepo_coef=1.0, epochs=1, micro_batch=size)) for size in (0, 4))
    norms = [run_step(state, 0).updates[0].grad_norm for state in (whole, parts)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)
    others = dict(parts.model.named_parameters())
    for name, parameter in whole.model.named_parameters():
        torch.testing.assert_close(others[name].grad, parameter.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_what_is_preferred_becomes_likelier_than_what_is_not(model_cache, corpus):
    """With the rollouts' own stream left beside it, at a weight that a few steps can show."""
    state = small_state(model_cache, **gepo(corpus, gepo_coef=1.0))
    for step in range(4):
        run_step(state, step)
    without = small_state(model_cache, **gepo(corpus, gepo_coef=1e-9))
    for step in range(4):
        run_step(without, step)
    assert margins(state).mean() > margins(without).mean() + 0.5 and (margins(state) > 0).all()


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path, model_cache, corpus):
    straight, stopped = Watched(tmp_path / "straight", model_cache), Watched(tmp_path / "stopped", model_cache)
    config = small_config(**gepo(corpus))
    straight.run(config)
    stopped.run(config, stop_at=2)
    stopped.run(config, resume=True)
    assert [fingerprint(t) for t in straight.traces] == [fingerprint(t) for t in stopped.traces] and len(straight.traces) == 4


def test_a_corpus_that_has_changed_is_not_resumed_on(tmp_path, model_cache, corpus):
    run = Watched(tmp_path / "run", model_cache)
    run.run(small_config(**gepo(corpus)), stop_at=2)
    Path(corpus).write_text(Path(corpus).read_text().replace("3+21=", "3+22="))
    with pytest.raises(TaskError, match="has changed since the checkpoint was written; put the old preferences back"):
        run.run(small_config(**gepo(corpus)), resume=True)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"prompt": "1+1=", "chosen": "2"}, "line 1 has no column 'rejected'; its columns are prompt, chosen; add it"),
        ({"prompt": "1+1=", "chosen": "2", "rejected": []}, r"line 1: column 'rejected' is \[\]; write a completion, or a list of completions, there"),
        ({"prompt": "1+1=", "chosen": ["2", 3], "rejected": "4"}, r"line 1: column 'chosen' is \[\"2\", 3\]; write"),
        ({"prompt": [{"role": "user", "content": "1+1="}], "chosen": "2", "rejected": "3"}, "line 1 is chat messages, and those of the arithmetic task"),
        ({"prompt": "1+1=", "chosen": "1" * 40, "rejected": "3"}, "line 1 has a completion of 41 tokens, more than max_new_tokens=24; set max_new_tokens=41"),
        ({"prompt": "1+é=", "chosen": "2", "rejected": "3"}, "line 1 has characters that the model's vocabulary lacks"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence_that_names_the_line(tmp_path, model_cache, bad, says):
    with pytest.raises(TaskError, match=says):
        small_state(model_cache, **gepo(written(tmp_path, bad)))


def test_it_is_an_option_of_gepo_alone(tmp_path, model_cache):
    with pytest.raises(ConfigError, match="preferences is set but method grpo does not read it"):
        small_config(preferences="x.jsonl")
    with pytest.raises(ConfigError, match="preference_groups is not read without preferences"):
        small_config(method="gepo", preference_groups=3)
    assert structural_notes(small_config(method="gepo", preferences="x.jsonl", gepo_coef=0))[0].startswith("preferences are not read in this run")
    with pytest.raises(TaskError, match="preferences.jsonl has no rows; one row per prompt"):
        small_state(model_cache, **gepo(written(tmp_path)))

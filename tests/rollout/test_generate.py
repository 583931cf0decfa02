"""Sampling: what it writes, what it keeps of each token, and what must not change it."""

import numpy as np
import pytest
import torch

from grpo_core.errors import ConfigError
from grpo_core.records import Prompt
from grpo_core.rollout.batch import rows_of
from grpo_core.rollout.generate import Sampling, _nucleus, sample_groups
from tests.rollout.small_models import EOS, PAD, VOCABULARY, build, writer

PROMPTS = [Prompt(prompt_id=str(i), text="", token_ids=ids, answer="") for i, ids in enumerate([(5, 9, 3, 4), (7, 2), (30, 31, 32)])]
KINDS = ("qwen3", "qwen2", "llama", "gpt2")


def completions(groups):
    return [c for g in groups for c in g.completions]


@pytest.mark.parametrize("kind", KINDS)
def test_sampling_log_probs_and_entropies_are_the_training_forwards(kind):
    model = build(kind)
    scribe = writer(model)
    sampling = Sampling(max_new_tokens=12, temperature=0.9)
    groups = sample_groups(scribe, PROMPTS, group_size=5, sampling=sampling, seed=1)
    rows = rows_of(groups, pad_id=PAD, device=scribe.device)
    logp, entropy = scribe.forward.score(rows, temperature=0.9, banned=scribe.banned)
    for b, completion in enumerate(completions(groups)):
        n = len(completion.token_ids)
        np.testing.assert_allclose(completion.logp, logp[b, :n].detach().numpy(), atol=2e-5)
        np.testing.assert_allclose(completion.entropy, entropy[b, :n].numpy(), atol=2e-5)
        np.testing.assert_array_equal(completion.logp_sampling, completion.logp)
        assert PAD not in completion.token_ids and list(completion.token_ids).count(EOS) <= 1
        assert completion.finish == ("stop" if completion.token_ids[-1] == EOS else "length")


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_is_transformers_generate(kind):
    model = build(kind)
    found = sample_groups(writer(model), PROMPTS, group_size=1, sampling=Sampling(max_new_tokens=10, temperature=0.0), seed=0)
    for prompt, group in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([prompt.token_ids])
        expected = model.generate(ids, do_sample=False, max_new_tokens=10, pad_token_id=PAD, eos_token_id=EOS, suppress_tokens=[PAD])
        assert group.completions[0].token_ids.tolist() == expected[0, len(prompt.token_ids) :].tolist()


def test_batching_and_dropping_finished_rows_change_nothing():
    scribe = writer(build("qwen3"))
    whole = sample_groups(scribe, PROMPTS, group_size=4, sampling=Sampling(max_new_tokens=16, batch=64), seed=5)
    split = sample_groups(scribe, PROMPTS, group_size=4, sampling=Sampling(max_new_tokens=16, batch=4), seed=5)
    assert len({len(c.token_ids) for c in completions(whole)}) > 1, "the test needs rows that end at different times"
    assert [c.token_ids.tolist() for c in completions(whole)] == [c.token_ids.tolist() for c in completions(split)]
    other = sample_groups(scribe, PROMPTS, group_size=4, sampling=Sampling(max_new_tokens=16), seed=6)
    assert [c.token_ids.tolist() for c in completions(whole)] != [c.token_ids.tolist() for c in completions(other)]


def test_tokens_come_with_the_models_probabilities():
    # 4000 first tokens against the model's own distribution: χ² over tokens expected at least 5 times, 99.9 % quantile bound ≈ mean + 5·sd
    model = build("qwen3")
    scribe = writer(model)
    groups = sample_groups(scribe, PROMPTS[:1], group_size=4000, sampling=Sampling(max_new_tokens=1, batch=4000), seed=2)
    counts = np.bincount([c.token_ids[0] for c in completions(groups)], minlength=VOCABULARY)
    logits = model(input_ids=torch.tensor([PROMPTS[0].token_ids])).logits[0, -1].detach()
    logits[PAD] = -torch.inf
    expected = logits.softmax(-1).numpy() * 4000
    often = expected >= 5
    chi2 = ((counts - expected)[often] ** 2 / expected[often]).sum()
    assert counts[PAD] == 0 and chi2 < often.sum() + 5 * (2 * often.sum()) ** 0.5


def test_nucleus_by_hand():
    p = torch.tensor([[0.1, 0.5, 0.15, 0.25]])
    assert _nucleus(p, 0.7)[0].tolist() == pytest.approx([0.0, 0.5, 0.0, 0.25])  # .5 is short of .7, the .25 that crosses it stays
    assert _nucleus(p, 0.5)[0].tolist() == pytest.approx([0.0, 0.5, 0.0, 0.0])


def test_what_modules_keep_while_sampling_can_be_trained_with():
    model, kept = build("gpt2"), []
    scale = torch.nn.Parameter(torch.ones(()))
    model.transformer.ln_f.register_forward_hook(lambda module, inputs, output: kept.append(output))
    sample_groups(writer(model), PROMPTS, group_size=2, sampling=Sampling(max_new_tokens=4), seed=0)
    (scale * kept[-1]).sum().backward()
    assert not kept[-1].requires_grad and scale.grad == kept[-1].sum()


def test_top_p_keeps_both_log_probs():
    scribe = writer(build("qwen3"))
    found = completions(sample_groups(scribe, PROMPTS, group_size=4, sampling=Sampling(max_new_tokens=8, top_p=0.6), seed=3))
    gap = np.concatenate([c.logp_sampling - c.logp for c in found])
    assert (gap >= 0).all() and gap.max() > 0.1 and gap.max() <= -np.log(0.6) + 1e-5


def test_stop_strings_end_a_completion_inside_its_text():
    scribe = writer(build("qwen3"))
    free = completions(sample_groups(scribe, PROMPTS, group_size=4, sampling=Sampling(max_new_tokens=16), seed=4))
    target = next(c.text[2:4] for c in free if len(c.text) > 6)
    stopped = completions(sample_groups(scribe, PROMPTS, group_size=4, sampling=Sampling(max_new_tokens=16, stop=(target,)), seed=4))
    assert any(c.finish == "stop_string" for c in stopped)
    for before, after in zip(free, stopped, strict=True):
        if target in before.text:
            assert after.finish == "stop_string" and after.text == before.text[: before.text.index(target) + len(target)]
        else:
            assert after.text == before.text


def test_a_prompt_too_long_for_the_context_is_one_sentence():
    with pytest.raises(ConfigError, match=r"prompt of 4 tokens and max_new_tokens=61 exceed .* 64 tokens; try max_new_tokens=60"):
        sample_groups(writer(build("qwen3")), PROMPTS, group_size=2, sampling=Sampling(max_new_tokens=61), seed=0)

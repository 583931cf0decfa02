"""The fused forward is the model's own, in values and gradients; log-probs match transformers row by row."""

import math

import pytest
import torch

from grpo_core.rollout.forward import FusedForward, ModuleForward, choose_forward
from grpo_core.rollout.head import scores_of_logits, token_scores
from tests.rollout.small_models import PAD, VOCABULARY, build, ragged_rows

FUSED = ("qwen3", "qwen2", "llama")


def gradients(model, forward, rows, temperature=1.0, banned=()):
    model.zero_grad()
    logp, entropy = forward.score(rows, temperature=temperature, banned=banned)
    (logp * torch.arange(1, 8)[:, None]).sum().backward()
    return logp.detach(), entropy, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kind", FUSED)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_fused_equals_the_modules_in_values_and_gradients(kind, temperature):
    model, rows = build(kind), ragged_rows()
    assert choose_forward(model).name == "fused"
    logp, entropy, grads = gradients(model, FusedForward(model), rows, temperature, (PAD,))
    logp_modules, entropy_modules, grads_modules = gradients(model, ModuleForward(model), rows, temperature, (PAD,))
    torch.testing.assert_close(logp, logp_modules, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(entropy, entropy_modules, atol=2e-5, rtol=1e-5)
    assert grads.keys() == grads_modules.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, grads_modules[name], atol=2e-4, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("kind", FUSED)
def test_the_fused_forward_shares_and_repeats_prompts_alike(kind):
    model, rows = build(kind), ragged_rows()
    forward, found = FusedForward(model), []
    for hidden in (forward.shared, forward.repeated):
        model.zero_grad()
        hidden_Nh = hidden(forward.decoder.weights(), rows)
        (hidden_Nh * torch.linspace(-1, 1, len(hidden_Nh))[:, None]).mean().backward()
        found.append({"hidden": hidden_Nh.detach()} | {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=1e-5, rtol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


def test_a_fused_group_of_one_repeats_its_prompt(monkeypatch):
    model, rows = build("qwen3"), ragged_rows()
    alone = rows.select(torch.tensor([0, 4, 6]))
    expected = [ModuleForward(model).score(part, temperature=1.0)[0] for part in (rows, alone)]
    for unused in ("repeated", "shared"):
        monkeypatch.undo()
        monkeypatch.delattr(FusedForward, unused)
        part = rows if unused == "repeated" else alone
        torch.testing.assert_close(FusedForward(model).score(part, temperature=1.0)[0], expected[part is alone], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [*FUSED, "gpt2"])
def test_log_probs_are_those_of_each_row_alone(kind):
    model, rows = build(kind), ragged_rows()
    logp, _ = choose_forward(model).score(rows, temperature=1.0)
    for b, p in enumerate(rows.prompt_of_row_B.tolist()):
        prompt = rows.prompt_ids_PL[p, : rows.prompt_lengths_P[p]]
        completion = rows.completion_ids_BT[b, : int(rows.mask_BT[b].sum())]
        logits = model(input_ids=torch.cat((prompt, completion))[None]).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(1, completion[:, None]).squeeze(1)
        torch.testing.assert_close(logp[b, : len(completion)], expected, atol=2e-5, rtol=1e-5)
        assert logp[b, len(completion) :].abs().sum() == 0


def test_a_selection_of_rows_scores_the_same():
    model, rows = build("qwen3"), ragged_rows()
    forward = choose_forward(model)
    chosen = torch.tensor([1, 5, 2])
    whole, _ = forward.score(rows, temperature=1.0)
    part, _ = forward.score(rows.select(chosen), temperature=1.0)
    torch.testing.assert_close(part, whole[chosen, : part.shape[1]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "lora"])
def test_what_the_fused_forward_does_not_cover_goes_through_the_modules(kind):
    assert choose_forward(build(kind)).name == "shared"


def test_a_disagreement_is_noticed(monkeypatch):
    model = build("qwen3")
    monkeypatch.setattr("grpo_core.rollout.fused.FusedDecoder._pair", lambda self, weight: weight)  # rotary pairs left unpermuted
    assert choose_forward(model).name == "shared"


@pytest.mark.parametrize("chunk", [10**9, 7 * 4 * VOCABULARY])
def test_token_scores_match_autograd_whole_and_in_chunks(monkeypatch, chunk):
    monkeypatch.setattr("grpo_core.rollout.head.CHUNK_BYTES", chunk)
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(20, 6, generator=generator, requires_grad=True)
    weight = torch.randn(VOCABULARY, 6, generator=generator, requires_grad=True)
    targets = torch.randint(1, VOCABULARY, (20,), generator=generator)
    scale = torch.randn(20, generator=generator)
    logp, entropy = token_scores(hidden, weight, targets, temperature=0.8, banned=(0,))
    found = torch.autograd.grad((logp * scale).sum(), (hidden, weight))
    logp_ref, entropy_ref = scores_of_logits(hidden @ weight.T, targets, temperature=0.8, banned=(0,))
    expected = torch.autograd.grad((logp_ref * scale).sum(), (hidden, weight))
    for a, b in zip((logp, entropy, *found), (logp_ref, entropy_ref, *expected), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_entropy_by_hand():
    # logits 0, ln 3 → p = 1/4, 3/4 → H = ln 4 − ¾ ln 3
    logp, entropy = scores_of_logits(torch.tensor([[0.0, 3.0]]).log().nan_to_num(neginf=0.0), torch.tensor([1]), temperature=1.0)
    assert entropy.item() == pytest.approx(math.log(4) - 0.75 * math.log(3), abs=1e-6)
    assert logp.exp().item() == pytest.approx(0.75, abs=1e-6)

"""Prompts computed once give the log-probs and gradients of prompts repeated, for whatever model can; what cannot is left as it is."""

import pytest
import torch

from grpo_core.rollout import shared
from grpo_core.rollout.batch import Rows
from grpo_core.rollout.forward import ModuleForward, SharedForward, choose_forward
from tests.rollout.small_models import PAD, VOCABULARY, build, ragged_rows

SHARING = ("lora", "gpt2", "neox", "gemma", "phi", "mistral", "stablelm", "opt")
EAGER_ONLY = ("gemma2-full",)
CASES = {
    "ragged": ([5, 3, 4], [[6, 1], [4, 3, 6], [2, 5]]),
    "equal": ([5, 5], [[4, 4, 4], [4, 4, 4]]),
    "group of one": ([5, 3], [[4], [6]]),
    "one token each": ([4, 2], [[1, 1], [1]]),
    "prompt of one": ([1, 6], [[3, 2], [5, 1]]),
    "rows out of order": ([5, 3, 4], [[6, 1], [4, 3, 6], [2, 5]]),
}


def rows_of_case(case: str) -> Rows:
    if case == "ragged":
        return ragged_rows()
    prompts, completions = CASES[case]
    lengths = torch.tensor([n for group in completions for n in group])
    owner = torch.repeat_interleave(torch.arange(len(prompts)), torch.tensor([len(group) for group in completions]))
    order = torch.randperm(len(owner), generator=torch.Generator().manual_seed(1)) if case == "rows out of order" else torch.arange(len(owner))
    generator = torch.Generator().manual_seed(3)
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    in_prompt = torch.arange(max(prompts)) < torch.tensor(prompts)[:, None]
    return Rows(
        prompt_ids_PL=torch.randint(2, VOCABULARY, in_prompt.shape, generator=generator) * in_prompt,
        prompt_lengths_P=torch.tensor(prompts),
        prompt_of_row_B=owner[order],
        completion_ids_BT=(torch.randint(2, VOCABULARY, mask.shape, generator=generator) * mask)[order],
        mask_BT=mask.float()[order],
    )


def scored(model, score, rows: Rows):
    """Log-probs, entropies and the gradients of a token mean in which every row pushes differently."""
    model.zero_grad()
    logp_BT, entropy_BT = score(rows, temperature=0.8, banned=(PAD,))
    signs_B1 = torch.linspace(-1, 1.5, len(rows))[:, None]
    ((logp_BT * signs_B1).sum() / rows.mask_BT.sum()).backward()
    return logp_BT.detach(), entropy_BT, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_as_repeated(model, score, rows: Rows) -> None:
    logp, entropy, grads = scored(model, score, rows)
    logp_repeated, entropy_repeated, grads_repeated = scored(model, ModuleForward(model).score, rows)
    torch.testing.assert_close(logp, logp_repeated, atol=1e-5, rtol=0)
    torch.testing.assert_close(entropy, entropy_repeated, atol=1e-5, rtol=0)
    assert grads.keys() == grads_repeated.keys() and max(g.abs().max() for g in grads.values()) > 0.01
    for name, grad in grads.items():
        torch.testing.assert_close(grad, grads_repeated[name], atol=1e-5, rtol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("kind", "attention"), [*((k, a) for k in SHARING for a in shared.OWN_ATTENTIONS), *((k, "eager") for k in EAGER_ONLY)])
def test_shared_prompts_equal_repeated_prompts_in_values_and_gradients(kind, attention, case):
    model = build(kind, attention)
    forward = choose_forward(model)
    assert forward.name == "shared"
    assert_same_as_repeated(model, forward.score_shared, rows_of_case(case))
    assert model.config._attn_implementation == attention


@pytest.mark.parametrize("kind", ["mistral-window", "gemma2-window", "bloom"])
def test_what_cannot_share_repeats_its_prompts(kind):
    model = build(kind, "eager")
    assert choose_forward(model).name == "modules"
    assert model.config._attn_implementation == "eager"


def test_an_attention_that_takes_no_masks_is_not_asked_twice():
    model = build("phi")
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(shared.CannotShare, match="flash_attention_2"):
        shared.shared_logits(model, ragged_rows())


def test_a_shared_forward_that_disagrees_is_not_taken(monkeypatch):
    monkeypatch.setattr(shared, "suffix_mask", lambda lengths, prefix, S: torch.ones(1, 1, S, prefix + S, dtype=torch.bool))
    assert choose_forward(build("phi")).name == "modules"


def test_rows_are_shared_only_where_it_pays():
    model = build("phi")
    forward = choose_forward(model)
    assert forward.pays(rows_of_case("equal")) and not forward.pays(rows_of_case("group of one"))
    calls = []
    forward.score_shared = lambda *args, **settings: calls.append("shared") or SharedForward.score_shared(forward, *args, **settings)
    for case in ("equal", "group of one"):
        assert_same_as_repeated(model, forward.score, rows_of_case(case))
    assert calls == ["shared"]


def test_layers_that_are_computed_again_in_the_backward_pass_repeat_their_prompts():
    model = build("phi")
    forward = choose_forward(model)
    model.train()
    model.activation_checkpointing_enable()
    assert not forward.pays(rows_of_case("equal"))
    assert_same_as_repeated(model, forward.score, rows_of_case("equal"))

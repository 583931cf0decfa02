"""Small random models of every architecture the fused forward covers, and one it does not, built from their configs."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from grpo_core.rollout.batch import Rows
from grpo_core.rollout.forward import choose_forward
from grpo_core.rollout.generate import Writer

VOCABULARY, PAD, EOS = 40, 0, 1
SHAPE = dict(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=64, pad_token_id=PAD, eos_token_id=EOS,
)


def build(kind: str):
    torch.manual_seed(7)
    model = {
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=8, tie_word_embeddings=True)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**(SHAPE | {"num_key_value_heads": 4}))),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=EOS, eos_token_id=EOS)),
    }[kind]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def writer(model, **changes) -> Writer:
    settings = dict(
        forward=choose_forward(model), decode=lambda ids: "".join(chr(64 + int(i)) for i in ids if i > EOS), eos_ids=(EOS,), pad_id=PAD, banned=(PAD,),
        context_limit=64, device=torch.device("cpu"),
    )
    return Writer(**(settings | changes))


def ragged_rows() -> Rows:
    """3 prompts of lengths 5, 3, 4 and 7 completions of lengths 6, 1, 4, 3, 6, 2, 5."""
    generator = torch.Generator().manual_seed(3)
    prompt_lengths, lengths = torch.tensor([5, 3, 4]), torch.tensor([6, 1, 4, 3, 6, 2, 5])
    prompts = torch.randint(2, VOCABULARY, (3, 5), generator=generator) * (torch.arange(5) < prompt_lengths[:, None])
    mask = torch.arange(6) < lengths[:, None]
    completions = torch.randint(2, VOCABULARY, (7, 6), generator=generator) * mask
    return Rows(
        prompt_ids_PL=prompts, prompt_lengths_P=prompt_lengths, prompt_of_row_B=torch.tensor([0, 0, 1, 1, 1, 2, 2]),
        completion_ids_BT=completions, mask_BT=mask.float(),
    )

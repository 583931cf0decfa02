"""Small random models of the architectures the fused forward covers, of some that share prompts, and of some that cannot, built from their configs."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    StableLmConfig,
    StableLmForCausalLM,
)

from grpo_core.rollout.batch import Rows
from grpo_core.rollout.forward import choose_forward
from grpo_core.rollout.generate import Writer

VOCABULARY, PAD, EOS = 40, 0, 1
SHAPE = dict(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=64, pad_token_id=PAD, eos_token_id=EOS,
)


def build(kind: str, attention: str = "sdpa"):
    """A model of one kind, its weights spread so far that every token matters, with `attention` as its implementation."""
    torch.manual_seed(7)
    model = _KINDS[kind]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.config._attn_implementation = attention
    return model.eval()


_KINDS = {
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=8, tie_word_embeddings=True)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**(SHAPE | {"num_key_value_heads": 4}))),
    "lora": lambda: get_peft_model(LlamaForCausalLM(LlamaConfig(**SHAPE)), LoraConfig(target_modules="all-linear", r=2, task_type="CAUSAL_LM")),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=EOS, eos_token_id=EOS)),
    "neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**SHAPE, head_dim=8)),
    "gemma2-full": lambda: Gemma2ForCausalLM(_gemma2(["full_attention"] * 2)),
    "phi": lambda: PhiForCausalLM(PhiConfig(**SHAPE)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, head_dim=8, sliding_window=None)),
    "stablelm": lambda: StableLmForCausalLM(StableLmConfig(**SHAPE)),
    "opt": lambda: OPTForCausalLM(OPTConfig(**SHAPE, ffn_dim=48, word_embed_proj_dim=32)),
    "mistral-window": lambda: MistralForCausalLM(MistralConfig(**SHAPE, head_dim=8, sliding_window=32)),
    "gemma2-window": lambda: Gemma2ForCausalLM(_gemma2(["sliding_attention", "full_attention"])),
    "bloom": lambda: BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, attn_implementation="eager")),
}


def _gemma2(layer_types: list[str]) -> Gemma2Config:
    """Soft caps low enough to bend the scores; a window longer than any probe."""
    return Gemma2Config(**SHAPE, head_dim=8, sliding_window=32, layer_types=layer_types, attn_logit_softcapping=2.0, attn_implementation="eager")


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

"""One functional forward of Llama, Qwen2 and Qwen3 decoders over a transformers model's own weights.

The same function samples (with a KV cache) and trains (with gradients), so that sampler and trainer agree to rounding, and
each prompt is computed once for all the completions of its group. Anything it does not cover (`supports` says no, or
`agrees` finds a difference) is left to the model's own forward: see forward.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel, Qwen2ForCausalLM, Qwen3ForCausalLM

ARCHITECTURES = (LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one decoder layer, projections joined; rotary pairs of q and k adjacent, so that RoPE is one complex product.

    A norm that is None has been multiplied into the projection after it.
    """

    norm_attention: Tensor | None
    qkv: Tensor
    qkv_bias: Tensor | None
    norm_qk: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    norm_mlp: Tensor | None
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True, slots=True)
class Weights:
    embedding: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor | None
    head: Tensor


KV = tuple[Tensor, Tensor]


def supports(model: PreTrainedModel) -> bool:
    """Whether the architecture and options are ones this forward computes: plain linear layers, full attention, default RoPE."""
    config = model.config
    if type(model) not in ARCHITECTURES or config.attention_dropout or config.hidden_act != "silu" or getattr(config, "mlp_bias", False):
        return False
    if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()):
        return False
    return config.rope_parameters.get("rope_type") == "default" and not any(_is_adapter(m) for m in model.modules())


def _is_adapter(module: nn.Module) -> bool:
    """Whether a linear layer was replaced by another kind (LoRA, quantised)."""
    return hasattr(module, "base_layer") or (isinstance(module, nn.Linear) and type(module) is not nn.Linear)


class FusedDecoder:
    """Holds the geometry; weights are gathered per call of `weights()` so that gradients reach the model's parameters."""

    def __init__(self, model: PreTrainedModel) -> None:
        config = model.config
        self.model = model
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.eps = config.rms_norm_eps
        rotary = model.model.rotary_emb
        angles = torch.outer(torch.arange(config.max_position_embeddings, device=rotary.inv_freq.device).float(), rotary.inv_freq.float())
        self._rotations = torch.polar(torch.ones_like(angles), angles)

    def weights(self) -> Weights:
        """The model's weights, joined and permuted; differentiable. Take once per update forward."""
        decoder = self.model.model
        return Weights(decoder.embed_tokens.weight, tuple(self._layer(layer) for layer in decoder.layers), decoder.norm.weight, self.model.lm_head.weight)

    def decoding_weights(self) -> Weights:
        """The same for decoding, without gradient: in float32 every norm's weight is multiplied into the projection after it, once
        instead of at every token. Half precision keeps them apart, where the product would be rounded."""
        plain = self.weights()
        if plain.embedding.dtype != torch.float32:
            return plain
        root = plain.embedding.shape[1] ** 0.5  # rms_norm without weight divides by the length of x, not by its root mean square
        layers = tuple(
            replace(
                layer,
                norm_attention=None,
                norm_mlp=None,
                qkv=_by_column(layer.qkv * (layer.norm_attention * root)),
                out=_by_column(layer.out),
                gate_up=_by_column(layer.gate_up * (layer.norm_mlp * root)),
                down=_by_column(layer.down),
            )
            for layer in plain.layers
        )
        return Weights(plain.embedding, layers, None, _by_column(plain.head * (plain.norm * root)))

    def rotations(self, positions: Tensor) -> Tensor:
        """exp(i·angle) for integer positions of any shape (…,) → (…, 1, head_dim / 2), complex64."""
        return self._rotations[positions].unsqueeze(-2)

    def project(self, layer: Layer, x: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normed, rotated q (…, S, H, D), k and v (…, S, Hkv, D) from hidden states (…, S, hidden)."""
        joint = F.linear(rms_norm(x, layer.norm_attention, self.eps), layer.qkv, layer.qkv_bias)
        joint = joint.unflatten(-1, (-1, self.head_dim))
        qk, v = joint.split((self.heads + self.kv_heads, self.kv_heads), dim=-2)
        if layer.norm_qk is not None:
            qk = rms_norm(qk, layer.norm_qk, self.eps)
        q, k = rotate(qk, rotations).split((self.heads, self.kv_heads), dim=-2)
        return q, k, v

    def finish(self, layer: Layer, x: Tensor, attended: Tensor) -> Tensor:
        """Output projection, residual and MLP."""
        x = x + F.linear(attended, layer.out, layer.out_bias)
        gate_up = F.linear(rms_norm(x, layer.norm_mlp, self.eps), layer.gate_up)
        return x + F.linear(_SwiGLU.apply(gate_up), layer.down)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool = False) -> Tensor:
        """Attention of q (B, S, H, D) over k, v (B, K, Hkv, D) → (B, S, H·D)."""
        out = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, is_causal=causal, enable_gqa=self.kv_heads != self.heads
        )
        return out.transpose(1, 2).flatten(-2)

    def decode(self, layer: Layer, x: Tensor, rotations: Tensor, keys: Tensor, values: Tensor, at: int, hidden: Tensor | None) -> None:
        """One layer for one new token per row, in place: x (B, hidden); its k and v go to slot `at` of keys and values (B, Hkv, K, D).

        `hidden` (B, 1, 1, K) is added to the scores. Twice as fast on a CPU as the general kernels.
        """
        q, k, v = self.project(layer, x, rotations)
        keys[:, :, at], values[:, :, at] = k, v
        B, H, D = q.shape
        scores = (q * D**-0.5).view(B, self.kv_heads, H // self.kv_heads, D) @ keys.transpose(2, 3)
        if hidden is not None:
            scores += hidden
        attended = scores.softmax(-1, dtype=torch.float32).type_as(values) @ values
        x.addmm_(attended.view(B, H * D), layer.out.t())
        if layer.out_bias is not None:
            x += layer.out_bias
        gate, up = F.linear(rms_norm(x, layer.norm_mlp, self.eps), layer.gate_up).chunk(2, dim=-1)
        x.addmm_(F.silu(gate).mul_(up), layer.down.t())

    def prefix(self, weights: Weights, prompt_ids: Tensor) -> tuple[Tensor, list[KV]]:
        """Hidden states (P, L, hidden) and per-layer (k, v) of right-padded prompts (P, L). Padding follows the text, so causality hides it."""
        x = F.embedding(prompt_ids, weights.embedding, padding_idx=self.model.model.embed_tokens.padding_idx)
        rotations = self.rotations(torch.arange(prompt_ids.shape[1], device=prompt_ids.device))
        cache: list[KV] = []
        for layer in weights.layers:
            q, k, v = self.project(layer, x, rotations)
            cache.append((k, v))
            x = self.finish(layer, x, self.attend(q, k, v, None, causal=True))
        return rms_norm(x, weights.norm, self.eps), cache

    def suffix(self, weights: Weights, cache: list[KV], prompt_of_row: Tensor, prompt_lengths: Tensor, completion_ids: Tensor) -> Tensor:
        """Hidden states (B, T, hidden) of right-padded completions (B, T), each continuing the prompt of its row."""
        lengths_B = prompt_lengths[prompt_of_row]
        x = F.embedding(completion_ids, weights.embedding, padding_idx=self.model.model.embed_tokens.padding_idx)
        T, L = completion_ids.shape[1], cache[0][0].shape[1]
        rotations = self.rotations(lengths_B[:, None] + torch.arange(T, device=completion_ids.device))
        mask = suffix_mask(lengths_B, L, T)
        for layer, (prefix_k, prefix_v) in zip(weights.layers, cache, strict=True):
            q, k, v = self.project(layer, x, rotations)
            k = torch.cat((prefix_k.index_select(0, prompt_of_row), k), dim=1)  # index_select: its backward is an index_add
            v = torch.cat((prefix_v.index_select(0, prompt_of_row), v), dim=1)
            x = self.finish(layer, x, self.attend(q, k, v, mask))
        return rms_norm(x, weights.norm, self.eps)

    def _layer(self, layer: nn.Module) -> Layer:
        attention, mlp = layer.self_attn, layer.mlp
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        biases = [p.bias for p in parts]
        return Layer(
            norm_attention=layer.input_layernorm.weight,
            qkv=torch.cat([self._pair(parts[0].weight), self._pair(parts[1].weight), parts[2].weight]),
            qkv_bias=None if biases[0] is None else torch.cat([self._pair(biases[0]), self._pair(biases[1]), biases[2]]),
            norm_qk=self._norm_qk(attention),
            out=attention.o_proj.weight,
            out_bias=attention.o_proj.bias,
            norm_mlp=layer.post_attention_layernorm.weight,
            gate_up=torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
            down=mlp.down_proj.weight,
        )

    def _norm_qk(self, attention: nn.Module) -> Tensor | None:
        """Qwen3's norms of q and k, one row per head (H + Hkv, D)."""
        if not hasattr(attention, "q_norm"):
            return None
        norms = (self._pair(attention.q_norm.weight).expand(self.heads, -1), self._pair(attention.k_norm.weight).expand(self.kv_heads, -1))
        return torch.cat(norms)

    def _pair(self, weight: Tensor) -> Tensor:
        """Rows reordered from transformers' halves (i, i + D/2) to neighbours (2i, 2i + 1); scores are unchanged as q and k move alike."""
        half = weight.unflatten(0, (-1, 2, self.head_dim // 2))
        return half.transpose(1, 2).flatten(0, 2)


def _by_column(weight: Tensor) -> Tensor:
    """The same (out, in) matrix stored by column, in which a CPU multiplies few rows by it up to twice as fast."""
    return weight.t().contiguous().t()


def suffix_mask(lengths_B: Tensor, prefix: int, T: int) -> Tensor:
    """Which of prefix + T keys each of T suffix tokens sees: its own prompt (padding hidden) and the completion up to itself.

    (B, 1, T, prefix + T), or (1, 1, T, prefix + T) when all prompts fill the prefix.
    """
    causal = torch.ones(T, T, dtype=torch.bool, device=lengths_B.device).tril()
    if bool((lengths_B == prefix).all()):
        return torch.cat((torch.ones(T, prefix, dtype=torch.bool, device=lengths_B.device), causal), dim=1)[None, None]
    seen = torch.arange(prefix, device=lengths_B.device) < lengths_B[:, None]
    B = len(lengths_B)
    return torch.cat((seen[:, None, :].expand(B, T, prefix), causal.expand(B, T, T)), dim=2)[:, None]


def rotate(x: Tensor, rotations: Tensor) -> Tensor:
    """RoPE on neighbouring pairs, (…, H, D) by (…, 1, D/2)."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotations).flatten(-2).type_as(x)


class _RMSNorm(torch.autograd.Function):
    """x / rms(x) · weight with a closed-form backward, half the passes over x of autograd's; weight is (width,) or (heads, width)."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).square_().div_(x.shape[-1]).add_(eps).rsqrt_().to(x.dtype)
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight, inverse = ctx.saved_tensors
        product = grad * x
        pull = product @ weight if weight.dim() == 1 else torch.linalg.vecdot(product, weight)
        pull = pull.unsqueeze(-1).mul_(inverse.pow(3)).div_(x.shape[-1])
        grad_weight = inverse.flatten() @ product.flatten(0, -2) if weight.dim() == 1 else (product * inverse).flatten(0, -3).sum(0)
        return torch.mul(grad, weight, out=product).mul_(inverse).addcmul_(x, pull, value=-1), grad_weight, None


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """x / rms(x) · weight; with weight None, x / (rms(x) · √width), the rest being in the projection that follows."""
    if weight is None:
        return x * torch.linalg.vecdot(x, x).add_(eps * x.shape[-1]).rsqrt_().unsqueeze(-1)
    if not torch.is_grad_enabled() and x.dtype == torch.float32:
        width = x.shape[-1]
        return (x * torch.linalg.vecdot(x, x).div_(width).add_(eps).rsqrt_().unsqueeze(-1)).mul_(weight)
    return _RMSNorm.apply(x, weight, eps)


class _SwiGLU(torch.autograd.Function):
    """silu(gate) · up of joined (…, 2·width) inputs; the backward writes both halves of one gradient instead of joining two."""

    @staticmethod
    def forward(ctx, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        silu = F.silu(gate)
        ctx.save_for_backward(gate_up, silu)
        return silu * up

    @staticmethod
    def backward(ctx, grad: Tensor):
        gate_up, silu = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        out = torch.empty_like(gate_up)
        grad_gate, grad_up = out.chunk(2, dim=-1)
        torch.mul(grad, silu, out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=grad_gate)
        return out

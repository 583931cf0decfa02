"""A transformers model's own forward with every prompt computed once for all its completions, by a registered attention function.

Prompts and completions without padding are one stream of tokens, [p1 … pP | c1 … cB], with positions that go on from each completion's own
prompt; everything but attention sees a batch of one row. Attention is two calls of the model's own function: prompts over themselves, and
completions over their prompt and themselves (Prefix Grouper, arXiv:2506.05433, whose released code takes one group per row and pads).
Values and gradients are those of the repeated prompts to rounding. No model code is touched; what a model must be like for it is
`attend`'s and `only_causal`'s to refuse, and forward.py compares it with the model's own forward before use.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig, PreTrainedModel
from transformers.masking_utils import causal_mask_function
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from grpo_core.rollout.batch import Rows
from grpo_core.rollout.fused import suffix_mask

ATTENTION = "groupscope_shared_prefix"
"""Name under which `attend` and `only_causal` are registered; a model's config holds it during a shared forward and not longer."""

OWN_ATTENTIONS = ("sdpa", "eager")
"""The implementations of transformers that take any mask, and so can be asked twice."""


class CannotShare(Exception):
    """A model does with attention what two plain causal calls would not repeat."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """N tokens of P prompts and B completions' inputs, and how they lie in the rectangles of the two attention calls.

    `ids_N`, `positions_N`; `from_N` (P·L + B·S): each rectangle slot's token, N for padding; `to_N` (N,): each token's slot.
    `read_K`: the token whose hidden state predicts each completion token. `own`: the model's attention implementation.
    `calls` grows by one with every attention layer computed.
    """

    ids_N: Tensor
    positions_N: Tensor
    from_N: Tensor
    to_N: Tensor
    read_K: Tensor
    prompts: tuple[int, int]
    completions: tuple[int, int]
    prompt_of_row_B: Tensor
    prompt_mask: Tensor | None
    completion_mask: Tensor
    own: str
    calls: list[nn.Module] = field(default_factory=list)


def shared_logits(model: PreTrainedModel, rows: Rows) -> tuple[Tensor, Stream]:
    """Raw logits (K, V) from which each completion token was predicted, in the order of `rows.mask_BT`, and the stream they came from.

    Raises CannotShare, or whatever the model's code raises on what it does not know.
    """
    config = model.config.get_text_config()
    if config._attn_implementation not in OWN_ATTENTIONS:
        raise CannotShare(f"attention implementation {config._attn_implementation!r}; known: {', '.join(OWN_ATTENTIONS)}")
    stream = stream_of(rows, own=config._attn_implementation, dtype=model.dtype)
    everywhere_1N = torch.ones_like(stream.ids_N)[None]  # without a mask, positions that start again are taken for packed sequences
    with _attending(stream, config):
        logits_1KV = model(
            input_ids=stream.ids_N[None], attention_mask=everywhere_1N, position_ids=stream.positions_N[None], use_cache=False, logits_to_keep=stream.read_K
        ).logits
    return logits_1KV[0], stream


def stream_of(rows: Rows, *, own: str, dtype: torch.dtype) -> Stream:
    """Some rows as a stream. `own` eager adds its masks to scores in `dtype`, sdpa takes what is seen."""
    P, L = rows.prompt_ids_PL.shape
    B, S = len(rows), rows.completion_ids_BT.shape[1] - 1  # nothing is predicted from the last token
    slots_L, slots_S = (torch.arange(n, device=rows.mask_BT.device) for n in (L, S))
    lengths_B = rows.prompt_lengths_P[rows.prompt_of_row_B]
    in_prompt_PL = slots_L < rows.prompt_lengths_P[:, None]
    in_completion_BS = slots_S < rows.mask_BT.sum(1, keepdim=True) - 1
    real = torch.cat((in_prompt_PL.flatten(), in_completion_BS.flatten()))
    to_N = real.nonzero().squeeze(1)
    token = torch.where(real, real.cumsum(0) - 1, len(to_N))
    last_P = rows.prompt_lengths_P.cumsum(0) - 1
    read_BT = torch.cat((last_P[rows.prompt_of_row_B, None], token[P * L :].view(B, S)), dim=1)
    causal = torch.ones(L, L, dtype=torch.bool, device=real.device).tril()[None, None]
    seen = suffix_mask(lengths_B, L, S)
    return Stream(
        ids_N=torch.cat((rows.prompt_ids_PL.flatten(), rows.completion_ids_BT[:, :-1].flatten()))[to_N],
        positions_N=torch.cat((slots_L.repeat(P), (lengths_B[:, None] + slots_S).flatten()))[to_N],
        from_N=token,
        to_N=to_N,
        read_K=read_BT[rows.mask_BT > 0],
        prompts=(P, L),
        completions=(B, S),
        prompt_of_row_B=rows.prompt_of_row_B,
        prompt_mask=None if own == "sdpa" else _added(causal, dtype),  # sdpa is causal without a mask, and faster so; the padding comes last
        completion_mask=seen if own == "sdpa" else _added(seen, dtype),
        own=own,
    )


def attend(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings) -> tuple[Tensor, None]:
    """The two attention calls: q (1, H, N, D) over k and v (1, Hkv, N, D) → (1, N, H, D), by the model's own function."""
    if attention_mask is not None:
        raise CannotShare(f"{type(module).__name__} masks more than what comes later")
    stream = _attended.get()
    own, split = _own_attention(module, stream.own), (stream.prompts[0] * stream.prompts[1], stream.completions[0] * stream.completions[1])
    (q, q_own), (k, k_own), (v, v_own) = (
        [part.unflatten(0, shape) for part, shape in zip(_moved(x, stream).split(split), (stream.prompts, stream.completions), strict=True)]
        for x in (query, key, value)
    )
    out = own(module, *_heads_first(q, k, v), stream.prompt_mask, **settings)[0].flatten(0, 1)
    if stream.completions[1]:
        k_seen, v_seen = (torch.cat((x.index_select(0, stream.prompt_of_row_B), y), dim=1) for x, y in ((k, k_own), (v, v_own)))
        out = torch.cat((out, own(module, *_heads_first(q_own, k_seen, v_seen), stream.completion_mask, **settings)[0].flatten(0, 1)))
    stream.calls.append(module)
    return _Moved.apply(out, stream.to_N, stream.from_N)[None], None


def only_causal(*, mask_function: Callable, device: torch.device, **_: object) -> Tensor | None:
    """No mask where attention is plainly causal, which the stream knows; anything else (windows, chunks, blocks seen both ways) for `attend` to refuse."""
    return None if mask_function is causal_mask_function else torch.empty(0, device=device)


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, only_causal)


_attended: ContextVar[Stream] = ContextVar("stream")
"""What `attend` computes; not an argument, because some architectures hand none on to their attention."""


@contextmanager
def _attending(stream: Stream, config: PretrainedConfig) -> Iterator[None]:
    token = _attended.set(stream)
    config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = stream.own
        _attended.reset(token)


def _own_attention(module: nn.Module, own: str) -> Callable:
    """sdpa is one function for all models; every architecture has its own eager one, with its soft caps and sinks."""
    return ALL_ATTENTION_FUNCTIONS["sdpa"] if own == "sdpa" else sys.modules[type(module).__module__].eager_attention_forward


def _added(seen: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)


def _heads_first(*parts: Tensor) -> list[Tensor]:
    return [x.transpose(1, 2) for x in parts]


def _moved(x_1HND: Tensor, stream: Stream) -> Tensor:
    """Tokens into the slots of both rectangles (P·L + B·S, H, D), zeros on padding."""
    return _Moved.apply(x_1HND[0].transpose(0, 1), stream.from_N, stream.to_N)


class _Moved(torch.autograd.Function):
    """x[source], zeros where source is len(x). `back` is its inverse, so that the gradient is moved likewise, and never added up token by token."""

    @staticmethod
    def forward(ctx, x: Tensor, source: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(source, back)
        return torch.cat((x, x.new_zeros(1, *x.shape[1:]))).index_select(0, source)

    @staticmethod
    def backward(ctx, grad: Tensor):
        source, back = ctx.saved_tensors
        return torch.cat((grad, grad.new_zeros(1, *grad.shape[1:]))).index_select(0, back), None, None

"""Two ways to run a policy, one interface: the fused decoder where it applies, the model's own modules everywhere else.

Both score completions (log-prob and entropy per token, with gradient) and decode with a cache, each prompt computed once
for its whole group.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from grpo_core.rollout.batch import Rows
from grpo_core.rollout.fused import KV, FusedDecoder, Weights, rms_norm, supports
from grpo_core.rollout.head import scores_of_logits, token_scores

AGREEMENT = 1e-3
"""Largest difference in log-prob (nats, float32) at which the fused forward is taken for the model's own."""


NARROW = 16
"""Attention over fewer slots than this is several times slower per slot on a CPU, so that many are always taken, the unwritten ones hidden."""


class Decoding(Protocol):
    """A generation under way: `step` takes the newest token of every row still alive and gives the next logits (B, V)."""

    def step(self, tokens_B: Tensor) -> Tensor: ...

    def keep(self, rows: Tensor) -> None: ...


class Forward(Protocol):
    name: str

    def score(self, rows: Rows, *, temperature: float, banned: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        """Log-prob (gradient) and entropy (none) of every completion token, (B, T) float32 in nats, 0 on padding."""
        ...

    def start(self, rows: Rows, room: int) -> tuple[Tensor, Decoding]:
        """First logits of every row (B, V) and the decoding that goes on from there, for at most `room` new tokens."""
        ...


def choose_forward(model: PreTrainedModel) -> Forward:
    """The fused forward if the architecture allows and it agrees with the model on a probe, else the modules."""
    modules = ModuleForward(model)
    if not supports(model):
        return modules
    fused = FusedForward(model)
    ids = torch.arange(12, device=model.device).remainder(model.config.vocab_size)
    probe = Rows(
        prompt_ids_PL=ids[None, :6],
        prompt_lengths_P=torch.tensor([6], device=model.device),
        prompt_of_row_B=torch.tensor([0], device=model.device),
        completion_ids_BT=ids[None, 6:],
        mask_BT=torch.ones(1, 6, device=model.device),
    )
    with torch.no_grad():
        gap = (fused.score(probe, temperature=1.0)[0] - modules.score(probe, temperature=1.0)[0]).abs().max().item()
    tolerance = AGREEMENT if model.dtype == torch.float32 else 0.1  # half precision rounds after every operation, in another order
    return fused if gap <= tolerance else modules


def _scatter(values_N: Tensor, mask_BT: Tensor) -> Tensor:
    """Packed per-token values back into (B, T), zeros on padding."""
    out_BT = torch.zeros(mask_BT.shape, dtype=values_N.dtype, device=values_N.device)
    return out_BT.masked_scatter(mask_BT > 0, values_N)


class FusedForward:
    name = "fused"

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.decoder = FusedDecoder(model)

    def score(self, rows: Rows, *, temperature: float, banned: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        weights = self.decoder.weights()
        last_Ph, cache = self._prefix(weights, rows)
        hidden_BTh = last_Ph.index_select(0, rows.prompt_of_row_B).unsqueeze(1)
        if rows.completion_ids_BT.shape[1] > 1:
            inputs = rows.completion_ids_BT[:, :-1]  # nothing is predicted from the last token
            suffix_BTh = self.decoder.suffix(weights, cache, rows.prompt_of_row_B, rows.prompt_lengths_P, inputs)
            hidden_BTh = torch.cat((hidden_BTh, suffix_BTh), dim=1)
        trained_N = rows.mask_BT.flatten().nonzero().squeeze(1)
        hidden_Nh = hidden_BTh.flatten(0, 1).index_select(0, trained_N)
        targets_N = rows.completion_ids_BT.flatten()[trained_N]
        logp_N, entropy_N = token_scores(hidden_Nh, weights.head, targets_N, temperature=temperature, banned=banned)
        return _scatter(logp_N, rows.mask_BT), _scatter(entropy_N, rows.mask_BT)

    def start(self, rows: Rows, room: int) -> tuple[Tensor, Decoding]:
        weights = self.decoder.decoding_weights()
        last_Ph, cache = self._prefix(weights, rows)
        return F.linear(last_Ph, weights.head)[rows.prompt_of_row_B], _FusedDecoding(self.decoder, weights, cache, rows, room)

    def _prefix(self, weights: Weights, rows: Rows) -> tuple[Tensor, list[KV]]:
        """Hidden state of every prompt's last token (P, hidden), and the prompts' keys and values."""
        prefix_PLh, cache = self.decoder.prefix(weights, rows.prompt_ids_PL)
        return prefix_PLh[torch.arange(len(prefix_PLh), device=prefix_PLh.device), rows.prompt_lengths_P - 1], cache


class _FusedDecoding:
    """Key and value buffers of all rows, (B, Hkv, L + room, D); zeros, not empty, because a hidden slot is multiplied by 0."""

    def __init__(self, decoder: FusedDecoder, weights: Weights, cache: list[KV], rows: Rows, room: int) -> None:
        self.decoder, self.weights = decoder, weights
        self.lengths_B = rows.prompt_lengths_P[rows.prompt_of_row_B]
        self.prefix = self.used = cache[0][0].shape[1]
        self.ragged = bool((self.lengths_B != self.prefix).any())
        self.buffers = [tuple(self._buffer(x, rows.prompt_of_row_B, room) for x in pair) for pair in cache]

    def step(self, tokens_B: Tensor) -> Tensor:
        decoder, at = self.decoder, self.used
        self.used += 1
        span = max(self.used, min(NARROW, self.buffers[0][0].shape[2]))
        x = F.embedding(tokens_B, self.weights.embedding)
        rotations = decoder.rotations(self.lengths_B + at - self.prefix)
        hidden = self._hidden(span) if self.ragged or span > self.used else None
        for layer, (keys, values) in zip(self.weights.layers, self.buffers, strict=True):
            decoder.decode(layer, x, rotations, keys[:, :, :span], values[:, :, :span], at, hidden)
        return F.linear(rms_norm(x, self.weights.norm, decoder.eps), self.weights.head)

    def keep(self, rows: Tensor) -> None:
        self.lengths_B = self.lengths_B[rows]
        self.buffers = [(keys[rows], values[rows]) for keys, values in self.buffers]

    def _hidden(self, span: int) -> Tensor:
        """0 on slots a row sees, −∞ on the padding of its prompt and on slots not written yet, (B, 1, 1, span)."""
        slots = torch.arange(span, device=self.lengths_B.device)
        hidden = (slots >= self.lengths_B[:, None]) & (slots < self.prefix) | (slots >= self.used)
        return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, -torch.inf)[:, None, None]

    @staticmethod
    def _buffer(x_PLHD: Tensor, prompt_of_row_B: Tensor, room: int) -> Tensor:
        P, L, H, D = x_PLHD.shape
        buffer = x_PLHD.new_zeros(len(prompt_of_row_B), H, L + room, D)
        buffer[:, :, :L] = x_PLHD.transpose(1, 2)[prompt_of_row_B]
        return buffer


class ModuleForward:
    """The model's own forward: any architecture, LoRA, quantised layers; prompts are repeated in scoring, shared in decoding."""

    name = "modules"

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def score(self, rows: Rows, *, temperature: float, banned: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        trained = rows.mask_BT > 0
        logp_N, entropy_N = scores_of_logits(self.logits(rows)[trained], rows.completion_ids_BT[trained], temperature=temperature, banned=banned)
        return _scatter(logp_N, rows.mask_BT), _scatter(entropy_N, rows.mask_BT)

    def logits(self, rows: Rows) -> Tensor:
        """Raw logits (B, T, V) from which each completion token was predicted."""
        ids, mask, positions = _left_padded(rows)
        ids = torch.cat((ids[rows.prompt_of_row_B], rows.completion_ids_BT[:, :-1]), dim=1)
        mask = torch.cat((mask[rows.prompt_of_row_B], rows.mask_BT[:, :-1].long()), dim=1)
        steps = torch.arange(1, rows.completion_ids_BT.shape[1], device=ids.device)
        positions = torch.cat((positions[rows.prompt_of_row_B], positions[rows.prompt_of_row_B, -1:] + steps), dim=1)
        return self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=rows.completion_ids_BT.shape[1]
        ).logits

    def start(self, rows: Rows, room: int) -> tuple[Tensor, Decoding]:
        ids, mask, positions = _left_padded(rows)
        cache = DynamicCache(config=self.model.config)
        out = self.model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_select_indices(rows.prompt_of_row_B)
        decoding = _ModuleDecoding(self.model, cache, mask[rows.prompt_of_row_B], positions[rows.prompt_of_row_B, -1])
        return out.logits[rows.prompt_of_row_B, -1], decoding


class _ModuleDecoding:
    def __init__(self, model: PreTrainedModel, cache: DynamicCache, mask: Tensor, position_B: Tensor) -> None:
        self.model, self.cache, self.mask, self.position_B = model, cache, mask, position_B

    def step(self, tokens_B: Tensor) -> Tensor:
        self.position_B = self.position_B + 1
        self.mask = F.pad(self.mask, (0, 1), value=1)
        out = self.model(
            input_ids=tokens_B[:, None], attention_mask=self.mask, position_ids=self.position_B[:, None], past_key_values=self.cache, use_cache=True
        )
        return out.logits[:, -1]

    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.mask, self.position_B = self.mask[rows], self.position_B[rows]


def _left_padded(rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts moved to the right edge (P, L), their attention mask and position ids."""
    L = rows.prompt_ids_PL.shape[1]
    offset_P = L - rows.prompt_lengths_P
    slots = torch.arange(L, device=offset_P.device)[None, :]
    source = (slots - offset_P[:, None]).clamp(min=0)
    mask = (slots >= offset_P[:, None]).long()
    return rows.prompt_ids_PL.gather(1, source), mask, source

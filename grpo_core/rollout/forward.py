"""Three ways to run a policy, one interface: the fused decoder where it applies, else the model's own modules, with prompts shared where they can be.

All score completions (log-prob and entropy per token, with gradient) and decode with a cache, each prompt computed once
for its whole group.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from grpo_core.rollout.batch import Rows
from grpo_core.rollout.cost import Work, flop_ratio, groups_of, work_of
from grpo_core.rollout.fused import KV, FusedDecoder, Weights, rms_norm, supports
from grpo_core.rollout.head import scores_of_logits, token_scores
from grpo_core.rollout.shared import shared_logits

AGREEMENT = 1e-3
"""Largest difference in log-prob (nats, float32) at which another forward is taken for the model's own."""

WORTH = 0.9
"""Ratio of FLOPs below which prompts are shared: what that saves must also pay for a second attention call. Ours, from `bench prefix`."""

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
    """The fastest forward that agrees with the model's own on a probe: fused, the modules with shared prompts, else the modules as they are."""
    modules, probe = ModuleForward(model), _probe(model)
    with torch.no_grad():
        own_BT = modules.score(probe, temperature=1.0)[0]
        if supports(model) and _agree(own_BT, (fused := FusedForward(model)).score(probe, temperature=1.0)[0], model.dtype):
            return fused
        shared_BT = _tried_shared(model, probe)
    return SharedForward(model) if shared_BT is not None and _agree(own_BT, shared_BT, model.dtype) else modules


def _tried_shared(model: PreTrainedModel, probe: Rows) -> Tensor | None:
    """Log-probs (B, T) of the shared forward, or None where a model cannot share or has layers whose attention it did not compute."""
    try:
        logits_KV, stream = shared_logits(model, probe)
    except Exception:  # a refusal, or whatever a model's own code makes of a mask, an argument or a batch that it does not expect
        return None
    if len(stream.calls) < model.config.get_text_config().num_hidden_layers:
        return None
    return _scatter(scores_of_logits(logits_KV, probe.completion_ids_BT[probe.mask_BT > 0], temperature=1.0)[0], probe.mask_BT)


def _agree(own_BT: Tensor, other_BT: Tensor, dtype: torch.dtype) -> bool:
    tolerance = AGREEMENT if dtype == torch.float32 else 0.1  # half precision rounds after every operation, in another order
    return (own_BT - other_BT).abs().max().item() <= tolerance


def pays(rows: Rows, work: Work) -> bool:
    """Whether computing each prompt of some rows once is cheaper than repeating it."""
    return flop_ratio(groups_of(rows), work) < WORTH


def _probe(model: PreTrainedModel) -> Rows:
    """Two prompts of 6 and 4 tokens with completions of 5, 2 and 4, so that a row that sees another, or padding, gives itself away."""
    ids = torch.arange(24, device=model.device).remainder(model.config.get_text_config().vocab_size)
    return Rows(
        prompt_ids_PL=ids[:12].view(2, 6),
        prompt_lengths_P=torch.tensor([6, 4], device=model.device),
        prompt_of_row_B=torch.tensor([0, 0, 1], device=model.device),
        completion_ids_BT=ids[9:].view(3, 5),
        mask_BT=(torch.arange(5) < torch.tensor([[5], [2], [4]])).float().to(model.device),
    )


def _scatter(values_N: Tensor, mask_BT: Tensor) -> Tensor:
    """Packed per-token values back into (B, T), zeros on padding."""
    out_BT = torch.zeros(mask_BT.shape, dtype=values_N.dtype, device=values_N.device)
    return out_BT.masked_scatter(mask_BT > 0, values_N)


class FusedForward:
    name = "fused"

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.decoder = FusedDecoder(model)
        self.work = work_of(model)

    def score(self, rows: Rows, *, temperature: float, banned: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        weights = self.decoder.weights()
        hidden_Nh = (self.shared if pays(rows, self.work) else self.repeated)(weights, rows)
        targets_N = rows.completion_ids_BT[rows.mask_BT > 0]
        logp_N, entropy_N = token_scores(hidden_Nh, weights.head, targets_N, temperature=temperature, banned=banned)
        return _scatter(logp_N, rows.mask_BT), _scatter(entropy_N, rows.mask_BT)

    def shared(self, weights: Weights, rows: Rows) -> Tensor:
        """Hidden states (N, hidden) that predict each completion token, every prompt computed once."""
        last_Ph, cache = self._prefix(weights, rows)
        hidden_BTh = last_Ph.index_select(0, rows.prompt_of_row_B).unsqueeze(1)
        if rows.completion_ids_BT.shape[1] > 1:
            inputs = rows.completion_ids_BT[:, :-1]  # nothing is predicted from the last token
            suffix_BTh = self.decoder.suffix(weights, cache, rows.prompt_of_row_B, rows.prompt_lengths_P, inputs)
            hidden_BTh = torch.cat((hidden_BTh, suffix_BTh), dim=1)
        return hidden_BTh.flatten(0, 1).index_select(0, rows.mask_BT.flatten().nonzero().squeeze(1))

    def repeated(self, weights: Weights, rows: Rows) -> Tensor:
        """The same with the prompt in front of each completion and all padding behind both: one causal attention without a mask."""
        lengths_B1 = rows.prompt_lengths_P[rows.prompt_of_row_B, None]
        slots_1S = torch.arange(int((lengths_B1 + rows.mask_BT.sum(1, keepdim=True)).max()) - 1, device=lengths_B1.device)[None]
        before_BS = slots_1S.clamp(max=rows.prompt_ids_PL.shape[1] - 1).expand(len(rows), -1)
        behind_BS = (slots_1S - lengths_B1).clamp(0, rows.completion_ids_BT.shape[1] - 1)
        prompts_BL = rows.prompt_ids_PL[rows.prompt_of_row_B]
        ids_BS = torch.where(slots_1S < lengths_B1, prompts_BL.gather(1, before_BS), rows.completion_ids_BT.gather(1, behind_BS))
        hidden_BSh, _ = self.decoder.prefix(weights, ids_BS)
        row_N, token_N = (rows.mask_BT > 0).nonzero(as_tuple=True)
        return hidden_BSh.flatten(0, 1).index_select(0, row_N * ids_BS.shape[1] + lengths_B1[row_N, 0] - 1 + token_N)

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


class SharedForward:
    """The model's own modules with every prompt computed once in scoring (shared.py), wherever `flop_ratio` says that this pays."""

    name = "shared"

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.modules = ModuleForward(model)
        self.start = self.modules.start
        self.work = work_of(model)

    def score(self, rows: Rows, *, temperature: float, banned: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        return (self.score_shared if self.pays(rows) else self.modules.score)(rows, temperature=temperature, banned=banned)

    def score_shared(self, rows: Rows, *, temperature: float, banned: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
        targets_K = rows.completion_ids_BT[rows.mask_BT > 0]
        logp_K, entropy_K = scores_of_logits(shared_logits(self.model, rows)[0], targets_K, temperature=temperature, banned=banned)
        return _scatter(logp_K, rows.mask_BT), _scatter(entropy_K, rows.mask_BT)

    def pays(self, rows: Rows) -> bool:
        """Never in train mode: layers computed again in the backward pass would find the model's own attention in place."""
        return not self.model.training and pays(rows, self.work)

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

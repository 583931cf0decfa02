"""Log-prob of the target token and entropy of the distribution, from one pass over the logits."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK_BYTES = 64 * 2**20
"""Logits held at once, in float32; larger inputs go through in chunks of rows and are computed again in the backward pass."""

BANNED = -1e30
"""Logit of a token that may never be sampled; finite, so that 0 · logit stays 0 in the entropy."""


def token_scores(hidden: Tensor, weight: Tensor, targets: Tensor, *, temperature: float, banned: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    """log p(target) and entropy in nats, both (N,) float32, of softmax(hidden · weightᵀ / temperature).

    `hidden` (N, h), `weight` (V, h), `targets` (N,). The log-prob carries gradient to hidden and weight, the entropy none.
    """
    logp, entropy = _TokenScores.apply(hidden, weight, targets, temperature, banned)
    return logp, entropy


def scores_of_logits(logits: Tensor, targets: Tensor, *, temperature: float, banned: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    """The same from ready logits (N, V), by autograd: for models whose head is more than one matrix."""
    z = tempered(logits.float(), temperature, banned)
    logz = z.logsumexp(-1)
    with torch.no_grad():
        entropy = logz - ((z - logz[:, None]).exp() * z).sum(-1)
    return z.gather(1, targets[:, None]).squeeze(1) - logz, entropy


def tempered(z: Tensor, temperature: float, banned: tuple[int, ...]) -> Tensor:
    """Logits (N, V) of the distribution that is sampled from: over the temperature, banned tokens out of reach."""
    if temperature != 1.0:
        z = z / temperature
    if banned:
        z = z.index_fill(1, torch.tensor(banned, device=z.device), BANNED)
    return z


def _distribution(hidden: Tensor, weight: Tensor, temperature: float, banned: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """z (N, V), probabilities (N, V) and log-partition (N,), float32."""
    z = tempered((hidden @ weight.T).float(), temperature, banned)
    logz = z.logsumexp(-1)
    return z, (z - logz[:, None]).exp_(), logz


class _TokenScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, banned: tuple[int, ...]):
        rows = max(1, CHUNK_BYTES // (4 * weight.shape[0]))
        logp, entropy = hidden.new_empty(len(hidden), dtype=torch.float32), hidden.new_empty(len(hidden), dtype=torch.float32)
        kept = hidden.new_empty(0)
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            z, p, logz = _distribution(hidden[part], weight, temperature, banned)
            logp[part] = z.gather(1, targets[part, None]).squeeze(1) - logz
            entropy[part] = logz - torch.linalg.vecdot(p, z)
            kept = p if len(hidden) <= rows else kept
        ctx.save_for_backward(hidden, weight, targets, kept)
        ctx.rows, ctx.temperature, ctx.banned = rows, temperature, banned
        ctx.mark_non_differentiable(entropy)
        return logp, entropy

    @staticmethod
    def backward(ctx, grad_logp: Tensor, _: Tensor):
        hidden, weight, targets, kept = ctx.saved_tensors
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        for start in range(0, len(hidden), ctx.rows):
            part = slice(start, start + ctx.rows)
            p = kept if len(kept) else _distribution(hidden[part], weight, ctx.temperature, ctx.banned)[1]
            scale = (grad_logp[part, None] / ctx.temperature).float()
            grad_z = (p * -scale).scatter_add_(1, targets[part, None], scale).to(hidden.dtype)
            grad_hidden[part] = grad_z @ weight
            grad_weight.addmm_(grad_z.T, hidden[part])
        return grad_hidden, grad_weight, None, None, None

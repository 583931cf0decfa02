"""Which wrong tokens pull correct completions down: NTHR and GWHES (arXiv:2505.18830), from one forward of the old policy.

For every token the prediction error g = onehot(token) − π(·|prefix) and the hidden state h that predicts it. To first order,
pushing one token down by a unit moves the log-prob of another by −⟨g, g'⟩⟨h, h'⟩. Vocabularies are restricted to the tokens that
occur in the group's completions, probabilities not renormalised. N tokens, K restricted vocabulary, H hidden size; float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFacts:
    """One completion: the prediction errors of its tokens (N, K) and the hidden states that predict them (N, H)."""

    errors_NK: Tensor
    hidden_NH: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Nthr:
    """`scores` holds s⁻ of every token (N,) per wrong completion; those above `threshold` are the ones the paper damps by `damping`."""

    scores: tuple[Tensor, ...]
    threshold: float
    damping: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """What NTHR found in a batch: `scores_BT` is s⁻ of every token of wrong completions in mixed groups, NaN elsewhere.

    Per row, of its group: `anchor_B` is the smallest mean score of a correct completion (the threshold at β = 1), `damping_B` is η; NaN and 1
    where the group is not mixed.
    """

    scores_BT: Tensor
    anchor_B: Tensor
    damping_B: Tensor


def prediction_errors(probs_NK: Tensor, index_N: Tensor) -> Tensor:
    """g = onehot(token) − π, (N, K); `index_N` is the column of each token in the restricted vocabulary."""
    return -probs_NK.float().scatter_add(1, index_N[:, None], -torch.ones(len(index_N), 1, device=probs_NK.device))


def nthr(correct: Sequence[TokenFacts], wrong: Sequence[TokenFacts], *, beta: float = 1.0) -> Nthr:
    """Negative token hidden rewards s⁻ = gᵀ M⁺ h with M⁺ = Σ over correct tokens of g hᵀ (Eq. 6).

    The threshold is β times the smallest mean score of a correct completion under the same M⁺, its own tokens included (Eq. 7);
    the damping of selected tokens is η = 2·|½ − p| for the pass-rate p. Raises ValueError without both kinds of completions.
    """
    _check_mixed(correct, wrong)
    matrix_KH = _matrix(correct)
    anchors = [float(_scores(c, matrix_KH).mean()) for c in correct]
    passed = len(correct) / (len(correct) + len(wrong))
    return Nthr(scores=tuple(_scores(w, matrix_KH) for w in wrong), threshold=beta * min(anchors), damping=2 * abs(0.5 - passed))


def gwhes(correct: Sequence[TokenFacts], wrong: Sequence[TokenFacts]) -> tuple[float, ...]:
    """Group weighted hidden embedding score of every correct completion (Thm. 4.4, Eq. 5); larger foretells a smaller gain or a fall.

    p⁻ · Σ over wrong tokens − p⁺ · Σ over correct tokens (its own included) of ⟨g, g'⟩⟨h, h'⟩, with p⁻ = p/√(p(1−p)) and
    p⁺ = (1−p)/√(p(1−p)). Raises ValueError without both kinds of completions.
    """
    _check_mixed(correct, wrong)
    passed = len(correct) / (len(correct) + len(wrong))
    spread = (passed * (1 - passed)) ** 0.5
    matrix_KH = (passed * _matrix(wrong) - (1 - passed) * _matrix(correct)) / spread
    return tuple(float(_scores(c, matrix_KH).sum()) for c in correct)


def _matrix(completions: Sequence[TokenFacts]) -> Tensor:
    """Σ g hᵀ over all tokens, (K, H): summed first, so that each score costs K·H and not one term per pair of tokens."""
    return sum((c.errors_NK.T.float() @ c.hidden_NH.float() for c in completions[1:]), completions[0].errors_NK.T.float() @ completions[0].hidden_NH.float())


def _scores(completion: TokenFacts, matrix_KH: Tensor) -> Tensor:
    return ((completion.errors_NK.float() @ matrix_KH) * completion.hidden_NH.float()).sum(1)


def _check_mixed(correct: Sequence[TokenFacts], wrong: Sequence[TokenFacts]) -> None:
    if not correct or not wrong:
        raise ValueError(f"NTHR and GWHES compare correct with wrong completions, got {len(correct)} and {len(wrong)}; take a mixed group")

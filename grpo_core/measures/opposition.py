"""Which rollouts of a group pull the policy in opposite directions: a proxy of their gradients, compared pair by pair.

The gradient of a token's log-prob with respect to the logits is e_y − π, the prediction error. Only its component at the sampled
token y is kept, 1 − π(y), which needs no full distribution. Summed over a rollout with advantage and loss weight, it is one
number per token id: how hard the rollout pushes that token's logit. Two things are left out: the components of the tokens that were
not sampled, and the context, so that the same token in two places counts as the same direction. Hence a proxy: it says which
rollouts push the same tokens, not what their true gradients do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Opposition:
    """`cosine` of every two rollouts' pushes (R, R): −1 opposite, 0 nothing in common, 1 the same; NaN where one pushes nothing.

    `cancelled` is 1 − ‖Σ pushes‖ / Σ ‖pushes‖: the share of the group's push that its rollouts take from each other, NaN without any.
    """

    cosine: Array
    cancelled: float


def opposition(ids_N: Array, length_R: Array, advantage_N: Array, weight_N: Array, logp_N: Array) -> Opposition:
    """Compare rollouts by Σ_t A·w·(1 − π(y_t)) per token id, π(y_t) = exp(`logp_N`). A rollout with a value missing has no push known."""
    rollout_N = np.repeat(np.arange(len(length_R)), length_R)
    token, column_N = np.unique(np.asarray(ids_N), return_inverse=True)
    with np.errstate(invalid="ignore"):
        push_N = np.asarray(advantage_N, "f8") * weight_N * -np.expm1(np.asarray(logp_N, "f8"))
    cells = np.bincount(rollout_N * len(token) + column_N, weights=push_N, minlength=len(length_R) * len(token))
    push_RV = cells.reshape(len(length_R), len(token))
    norm_R = np.linalg.norm(push_RV, axis=1)
    norm_R[norm_R == 0] = np.nan
    unit_RV = push_RV / norm_R[:, None]
    known = ~np.isnan(norm_R)
    with np.errstate(invalid="ignore"):
        cancelled = 1 - np.linalg.norm(push_RV[known].sum(0)) / norm_R[known].sum() if known.any() else np.nan
    return Opposition(cosine=np.clip(unit_RV @ unit_RV.T, -1, 1), cancelled=float(cancelled))

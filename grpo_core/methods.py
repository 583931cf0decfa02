"""METHODS: every training method as one row of data over the registries of grpo_core/algorithms; no torch.

    loss = N( W ⊙ φ(logp, ρ_level, A) ) + Σ_k λ_k · reg_k        A = Σ_c w_c · Norm_c( value_c − Base_c(key_c) ) · Scale_c

A name in a row decides one thing, and each is spelled once in its registry; a test resolves every name of every row.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One summand of the advantage: norm(value − base) over the rollouts that share `key`, times `weight`."""

    base: str = "mean"
    norm: str = "std"
    key: str = "prompt"
    value: str = "outcome"
    scale: str = "one"
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalty:
    """One regulariser of the loss: its registry name, its coefficient λ, and the RunConfig option that overrides λ."""

    name: str
    coef: float
    knob: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One published method. `summary` is one sentence; `note` says where released code differs from the paper."""

    name: str
    title: str
    paper: str
    summary: str
    credit: tuple[Component, ...]
    surrogate: str
    level: str
    clip: tuple[float, float] | None
    normaliser: str
    penalties: tuple[Penalty, ...] = ()
    weights: tuple[str, ...] = ()
    sampler: str = "uniform"
    note: str = ""

    @property
    def knobs(self) -> frozenset[str]:
        """RunConfig options this method reads beyond the ones every method reads."""
        clip = {"clip_low", "clip_high"} if self.clip else set()
        return frozenset(clip | {penalty.knob for penalty in self.penalties})


_KL = Penalty(name="kl_ref_k3", coef=0.0, knob="kl_coef")
_GROUP_NORM = (Component(base="mean", norm="std"),)

METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        Method(
            name="grpo", title="GRPO", paper="arXiv:2402.03300",
            summary="Rewards normalised inside the group, token-level clipping, every completion weighs the same.",
            credit=_GROUP_NORM, surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="sequence", penalties=(_KL,),
            note="std divides by n-1 as in TRL and verl, with ε = 1e-6 as in verl; tied groups get exactly 0. "
            "The paper's KL weight is 0.04; the default here is 0, as in TRL.",
        ),
        Method(
            name="dr_grpo", title="Dr. GRPO", paper="arXiv:2503.20783",
            summary="No division by the group's std and a constant length normaliser, which removes two biases of GRPO.",
            credit=(Component(base="mean", norm="none"),), surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="constant", penalties=(_KL,),
            note="The constant is max_new_tokens × rollouts, as in TRL; verl's default divides by the padded width.",
        ),
        Method(
            name="dapo", title="DAPO", paper="arXiv:2503.14476",
            summary="Wider upper clip, every token weighs the same, and prompts without signal are sampled again.",
            credit=_GROUP_NORM, surrogate="clip", level="token", clip=(0.2, 0.28), normaliser="token", sampler="dynamic", penalties=(_KL,),
            note="Dynamic sampling as in verl (filter_groups); TRL's loss_type=dapo has none. Overlong penalty: option overlong_buffer.",
        ),
        Method(
            name="gspo", title="GSPO", paper="arXiv:2507.18071",
            summary="One importance ratio per completion, the geometric mean of its token ratios, clipped as a whole.",
            credit=_GROUP_NORM, surrogate="clip", level="sequence", clip=(3e-4, 4e-4), normaliser="sequence", penalties=(_KL,),
        ),
        Method(
            name="rloo", title="RLOO", paper="arXiv:2402.14740",
            summary="Each rollout is compared with the mean of the others in its group.",
            credit=(Component(base="leave_one_out", norm="none"),), surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="sequence", penalties=(_KL,),
            note="The paper makes one REINFORCE update per rollout, to which the clipped ratio is identical in gradient; "
            "it is clipped here because several updates per rollout are the default.",
        ),
        Method(
            name="grpo_llds", title="GRPO + LLDS", paper="arXiv:2512.04220",
            summary="GRPO with a penalty on completions with A ≥ 0 that have become less likely since they were sampled.",
            credit=_GROUP_NORM, surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="sequence",
            penalties=(Penalty(name="llds_response", coef=0.2, knob="llds_coef"), _KL),
            note="Response gate (Eq. 10) and the paper's normaliser, tokens with A ≥ 0; released code divides by all loss tokens. "
            "Exactly zero on the first update of a rollout batch.",
        ),
    )
}


def unknown_method(name: str) -> str:
    """The sentence for a method that does not exist, with the nearest names."""
    near = difflib.get_close_matches(name, METHODS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown method {name!r}; known: {', '.join(METHODS)}{hint}"

"""METHODS: every training method as one row of data over the registries of grpo_core/algorithms; no torch.

    loss = N( W ⊙ φ(logp, ρ_level, A) ) + Σ_k λ_k · reg_k        A = Σ_c w_c · Norm_c( value_c − Base_c(key_c) ) · Scale_c

A name in a row decides one thing, and each is spelled once in its registry; a test resolves every name of every row.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One summand of the advantage: norm(value − base) · scale over the rollouts of one prompt, times `weight`.

    `knob` is the RunConfig option that overrides `weight`, if there is one.
    """

    base: str = "mean"
    norm: str = "std"
    value: str = "outcome"
    scale: str = "one"
    weight: float = 1.0
    knob: str = ""

    @property
    def within_groups(self) -> bool:
        """Whether a rollout is compared with its own group alone, so that a group tied in the value has advantage exactly 0."""
        return self.base != "zero" and self.norm != "token_whiten"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """One rule for the token weights W: its registry name, the number it takes, and the RunConfig option that overrides it."""

    name: str
    value: float
    knob: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalty:
    """One regulariser of the loss: its registry name, its coefficient λ, and the RunConfig option that overrides λ."""

    name: str
    coef: float
    knob: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One published method. `summary` is one sentence; `note` says where released code differs from the paper.

    `options` are further RunConfig options the method reads; `released` holds the fields that its authors' code has otherwise
    than the paper, taken when the option named `released_knob` is "released".
    """

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
    weights: tuple[Weight, ...] = ()
    sampler: str = "uniform"
    note: str = ""
    options: tuple[str, ...] = ()
    released: Mapping[str, object] = field(default_factory=dict)
    released_knob: str = ""

    @property
    def own_values(self) -> dict[str, float]:
        """The method's own value of every option that, left empty, takes it."""
        clip = dict(zip(("clip_low", "clip_high"), self.clip or (), strict=False))
        penalties = {penalty.knob: penalty.coef for penalty in self.penalties}
        weights = {weight.knob: weight.value for weight in self.weights if weight.knob}
        return clip | penalties | weights | {c.knob: c.weight for c in self.credit if c.knob}

    @property
    def knobs(self) -> frozenset[str]:
        """RunConfig options this method reads beyond the ones every method reads."""
        return frozenset({*self.own_values, *self.options, self.released_knob} - {""})

    def as_released(self) -> Method:
        """The method as its authors' code has it."""
        return replace(self, **self.released)


_KL = Penalty(name="kl_ref_k3", coef=0.0, knob="kl_coef")
_GROUP_NORM = (Component(base="mean", norm="std"),)
_REWARDED = Component(value="verdict", base="zero", norm="none", scale="positives")
_PENALISED = Component(value="verdict", base="zero", norm="none", scale="negatives")
_VERDICT_NOTE = (
    "A is +1 or −1 by correctness, whatever the size of the reward, with no baseline: groups that are all wrong or all correct "
    "count. Clipped at 0.2 with every token weighing the same and no KL, as in the released code."
)

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
            name="cispo", title="CISPO", paper="arXiv:2506.13585",
            summary="The importance weight is clipped and kept out of the gradient, so that no token is ever left out.",
            credit=_GROUP_NORM, surrogate="clipped_weight", level="token", clip=(1.0, 4.0), normaliser="token", penalties=(_KL,),
            note="The paper sets no lower bound and does not print its upper one; 1 + 4 = 5 is that of ScaleRL (arXiv:2510.13786), as in TRL. "
            "verl clips on both sides.",
        ),
        Method(
            name="sapo", title="SAPO", paper="arXiv:2511.20347",
            summary="A smooth gate in place of the clip: tokens fade out as their ratio leaves 1, those with A ≤ 0 a little sooner.",
            credit=_GROUP_NORM, surrogate="soft_gate", level="token", clip=None, normaliser="sequence", penalties=(_KL,),
            note="Temperatures 1.0 for A > 0 and 1.05 otherwise.",
        ),
        Method(
            name="gmpo", title="GMPO", paper="arXiv:2507.20673",
            summary="The geometric mean of a completion's token ratios, each clipped first, so that one odd token cannot carry the completion.",
            credit=_GROUP_NORM, surrogate="geometric_clip", level="token", clip=(0.4, 0.4), normaliser="sequence", penalties=(_KL,),
            note="Bounds are of the log-ratio, in nats: ratios from e^−0.4 to e^0.4.",
        ),
        Method(
            name="luspo", title="LUSPO", paper="arXiv:2602.05261",
            summary="GSPO with each completion's loss times its length, which takes away GSPO's preference for short ones.",
            credit=_GROUP_NORM, surrogate="clip", level="sequence", clip=(2e-3, 2.5e-3), normaliser="row_sum", penalties=(_KL,),
        ),
        Method(
            name="vespo", title="VESPO", paper="arXiv:2602.10693",
            summary="The whole completion's importance weight through a smooth hump that is 1 at ratio 1 and falls on both sides.",
            credit=_GROUP_NORM, surrogate="gamma_gate", level="sequence_sum", clip=None, normaliser="token", penalties=(_KL,),
            note="Shapes k, λ are 2, 3 for A ≥ 0 and 3, 2 below, TRL's defaults; the weight has no gradient of its own.",
        ),
        Method(
            name="reinforce_pp", title="REINFORCE++", paper="arXiv:2501.03262",
            summary="No group: rewards are whitened over all tokens of the batch.",
            credit=(Component(base="zero", norm="token_whiten"),), surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token", penalties=(_KL,),
            note="Without discount (γ = 1), and with KL as a term of the loss: the paper takes it from each token's reward. As batches "
            "are compared, groups that all fail are pushed down and groups that all pass up.",
        ),
        Method(
            name="reinforce_pp_baseline", title="REINFORCE++-baseline", paper="arXiv:2501.03262",
            summary="Reward minus the group's mean, then whitened over all tokens of the batch.",
            credit=(Component(base="mean", norm="token_whiten"),), surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token", penalties=(_KL,),
            note="A group tied in reward is not exactly 0 where lengths differ: the mean over tokens is not the mean over rollouts (as in verl).",
        ),
        Method(
            name="opo", title="OPO", paper="arXiv:2505.23585",
            summary="The baseline weighs the group's rewards by length, which gives the gradient its least variance.",
            credit=(Component(base="length_weighted", norm="none"),),
            surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token", penalties=(_KL,),
            note="The paper makes one exact on-policy update (`epochs=1 minibatches=1`), to which the clipped ratio is identical in gradient; "
            "the normaliser is verl's default.",
        ),
        Method(
            name="gpg", title="GPG", paper="arXiv:2504.02546",
            summary="Plain policy gradient on reward minus group mean, scaled up by the share of rollouts without signal.",
            credit=(Component(base="mean", norm="nonzero_share"),), surrogate="reinforce", level="token", clip=None, normaliser="token",
            note="f_norm = 1, the released default; the share is taken over the batch, as in verl.",
        ),
        Method(
            name="pass_at_k", title="Pass@k", paper="arXiv:2503.19595",
            summary="Only the best rollout of a group is rewarded, by its lead over the second best.",
            credit=(Component(base="second_best", norm="std", scale="positives"),),
            surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token", penalties=(_KL,),
            note="As verl's grpo_passk: where two share the best reward nobody is rewarded, so with rewards of 0 and 1 only a group with "
            "a single correct rollout teaches anything.",
        ),
        Method(
            name="grpo_llds", title="GRPO + LLDS", paper="arXiv:2512.04220",
            summary="GRPO with a penalty on completions with A ≥ 0 that have become less likely since they were sampled.",
            credit=_GROUP_NORM, surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="sequence",
            penalties=(Penalty(name="llds_response", coef=0.2, knob="llds_coef"), _KL),
            options=("llds_gate", "llds_normaliser", "llds_answer_weight"),
            note="By default the response gate (Eq. 10) and the paper's normaliser, tokens with A ≥ 0; released code divides by all "
            "loss tokens (`llds_normaliser=loss`). LLDS-MA (Eq. 5) is `llds_answer_weight` below 1; the paper sets it to "
            "min(searches per rollout / 2, 1). Exactly zero on the first update of a rollout batch.",
        ),
        Method(
            name="gtpo", title="GTPO", paper="arXiv:2508.03772",
            summary="Tokens that begin or end both better and worse completions are never pushed down, and uncertain completions are left out.",
            credit=(Component(base="mean", norm="none"), Component(value="certainty", base="zero", norm="none", weight=0.1, knob="gtpo_entropy_coef")),
            surrogate="reinforce", level="token", clip=None, normaliser="sequence",
            weights=(Weight(name="conflict", value=2.0, knob="gtpo_conflict_weight"), Weight(name="entropy_filter", value=math.log(2))),
            released_knob="gtpo_code",
            released={
                "weights": (
                    Weight(name="conflict_released", value=2.0, knob="gtpo_conflict_weight"),
                    Weight(name="entropy_filter_always", value=0.7),
                ),
                "normaliser": "sequence_sum",
            },
            note="`gtpo_code=released` takes five departures of the authors' code from the README's objective together: tokens in both "
            "conflict runs weigh 2 · 2 = 4; a completion's loss is divided by its number of conflict tokens, counted as the longer "
            "of its two runs; completions above 0.7 nats are left out whatever the start model's entropy; losses are summed over "
            "completions. Entropy is the sampler's, a constant without gradient; as −γ⟨H⟩ enters after the baseline, tied groups "
            "are pushed down. Their rewards went to 20: with rewards of 0 and 1, γ = 0.1 weighs about ten times as much.",
        ),
        Method(
            name="psr", title="PSR", paper="arXiv:2506.01347",
            summary="Positive-sample reinforcement: correct completions become more likely, wrong ones are left alone.",
            credit=(_REWARDED,), surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token", penalties=(_KL,), note=_VERDICT_NOTE,
        ),
        Method(
            name="nsr", title="NSR", paper="arXiv:2506.01347",
            summary="Negative-sample reinforcement: wrong completions become less likely, correct ones are left alone.",
            credit=(_PENALISED,), surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token", penalties=(_KL,), note=_VERDICT_NOTE,
        ),
        Method(
            name="w_reinforce", title="W-REINFORCE", paper="arXiv:2506.01347",
            summary="PSR at a tenth of its weight plus NSR.",
            credit=(replace(_REWARDED, weight=0.1), _PENALISED),
            surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token", penalties=(_KL,), note=_VERDICT_NOTE,
        ),
    )
}


def unknown_method(name: str) -> str:
    """The sentence for a method that does not exist, with the nearest names."""
    near = difflib.get_close_matches(name, METHODS, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"unknown method {name!r}; known: {', '.join(METHODS)}{hint}"

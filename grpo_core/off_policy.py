"""OFF_POLICY: the rows of methods made for rollouts of older policies, OPMD, AsymRE, REC and RED; they stand in METHODS among the others."""

from __future__ import annotations

from grpo_core.method_row import Component, Method, Penalty, Weight

_RED_PULL = Penalty(name="forward_kl", coef=0.0, knob="forward_kl_coef")
_OFF_POLICY_NOTE = (
    "Made for rollouts of older policies, which `replay_size` brings; without it, only the updates after the first of a rollout batch are off-policy."
)
_REGIONS: dict[str, tuple[str, str, str, str]] = {
    "one_side": (
        "REC-OneSide",
        "Tokens count until their ratio has left the bounds in the direction A pushes, as under PPO's clip.",
        "Large updates: a token's push ends once its ratio has moved by 0.2 the way it is pushed, as under PPO's clip.",
        "A token that drifts the other way is pushed on however far it has gone.",
    ),
    "two_side": (
        "REC-TwoSide",
        "Tokens count while their ratio lies within the bounds, whichever way A pushes.",
        "Large updates, and tokens whose ratio has become extreme on either side: they no longer count.",
        "A token that has left the bounds the wrong way is not brought back.",
    ),
    "ring": (
        "REC-Ring",
        "Tokens count while their ratio lies within the bounds, and again where it is far beyond them on the side from which A pulls back.",
        "Large updates, while tokens far gone the wrong way are still brought back.",
        "Two more bounds to choose; between the inner and the outer ones a token drifts freely.",
    ),
}
"""Title, summary, protection and cost of the regions of REC, by surrogate."""


def _rec(region: str, weighted: bool) -> Method:
    """A row of the REC family (arXiv:2509.24203): a region of ratios, with or without the importance weight."""
    title, summary, protects, costs = _REGIONS[region]
    how = "each weighed by its ratio" if weighted else "without an importance weight"
    return Method(
        name=f"rec_{region}_is" if weighted else f"rec_{region}", title=f"{title}-{'IS' if weighted else 'NoIS'}", paper="arXiv:2509.24203",
        summary=f"{summary[:-1]}, {how}.",
        protects=protects,
        costs=costs + ("" if weighted else " Without the weight, what has moved inside the bounds is not corrected for."),
        against=("large updates",), moves=("clipping", "step_kl", "ess"),
        credit=(Component(base="mean", norm="none"),), surrogate=f"{region}_weighted" if weighted else region, level="token", clip=(0.2, 0.2),
        normaliser="token", penalties=(_RED_PULL,),
        note=("Its gradient is exactly that of PPO's clip, its value is not. " if region == "one_side" and weighted else "")
        + ("The outer bounds are 1 − 0.6 and 1 + 2, the released defaults; the constructor of the same code says 0.4 and 0.4. " if region == "ring" else "")
        + ("" if (region, weighted) not in (("two_side", False), ("ring", True)) else "Not among the authors' presets, but a choice of their code. ")
        + _OFF_POLICY_NOTE,
    )  # fmt: skip


OFF_POLICY: tuple[Method, ...] = (
    Method(
        name="opmd", title="OPMD", paper="arXiv:2505.17826",
        summary="REINFORCE on reward minus group mean, its step divided by 1 + τ.",
        protects="Nothing that the group's mean does not: it is what is left of policy mirror descent without a ratio or a clip; its authors' documentation "
        "shows it learning from rollouts up to ten steps old.",
        costs="Nothing holds a token whose probability has moved and nothing corrects for it; with an optimizer that scales gradients itself the divisor "
        "hardly matters until the gradient norm is clipped.",
        against=("difficulty bias",), moves=("step_kl", "ess", "gradient_spike"),
        credit=(Component(base="mean", norm="none"),), weights=(Weight(name="mirror", value=1.0, knob="opmd_tau"),),
        surrogate="log_prob", level="token", clip=None, normaliser="token",
        note="Trinity-RFT's stand-alone `opmd`, with its mean baseline and τ = 1. Kimi k1.5 has another method of this name, here `opmd_kimi`. "
        + _OFF_POLICY_NOTE,
    ),
    Method(
        name="opmd_log_average", title="OPMD, log-average-exp", paper="arXiv:2505.17826",
        summary="OPMD with τ · log mean exp(r / τ) of the group as its baseline, which lies above the mean.",
        protects="Nothing that OPMD does not; its baseline is the one that mirror descent towards the group's best rollouts gives.",
        costs="As the baseline lies above the mean, groups are pushed down on balance, the more the further their rewards lie apart; it does not scale with "
        "the rewards.",
        against=("difficulty bias",), moves=("step_kl", "ess", "displacement", "entropy_rise"),
        credit=(Component(base="log_average_exp", norm="none", at=1.0, at_knob="opmd_tau"),), weights=(Weight(name="mirror", value=1.0, knob="opmd_tau"),),
        surrogate="log_prob", level="token", clip=None, normaliser="token",
        note="Trinity-RFT's `opmd` with `opmd_baseline: logavgexp`; τ is that of the baseline and of the divisor. " + _OFF_POLICY_NOTE,
    ),
    Method(
        name="opmd_kimi", title="OPMD of Kimi k1.5", paper="arXiv:2501.12599",
        summary="REINFORCE on reward minus group mean, with the squared change of each token's log-prob as a penalty.",
        protects="Large updates: a token is pulled back in proportion to how far its log-prob has moved, in either direction and without an edge.",
        costs="The pull holds tokens back that move the right way as well, and is zero on the first update of a rollout batch; tied groups are computed too.",
        against=("large updates",), moves=("step_kl", "ess", "gradient_spike"),
        credit=(Component(base="mean", norm="none"),), surrogate="log_prob", level="token", clip=None, normaliser="token",
        penalties=(Penalty(name="k2_before", coef=0.1, knob="k2_coef"),),
        note="As REC's code has it, with weight 0.1 (arXiv:2509.24203); the penalty of the paper is of whole completions. " + _OFF_POLICY_NOTE,
    ),
    Method(
        name="asymre", title="AsymRE", paper="arXiv:2506.20520",
        summary="REINFORCE with the baseline a little below the group's mean, so that pushing up outweighs pushing down.",
        protects="Likelihood displacement, and collapse on old rollouts: the paper proves that a baseline below the expected reward improves the policy "
        "off-policy, and shows collapse once it is not.",
        costs="All rollouts are pushed up by the shift, wrong ones and tied groups as well, which sharpens the policy around whatever it writes; and no "
        "ratio corrects for what has moved.",
        against=("likelihood displacement",), moves=("displacement", "entropy_fall", "sharpening", "step_kl"),
        credit=(Component(base="below_mean", norm="none", at=0.1, at_knob="asymre_shift"),), surrogate="log_prob", level="token", clip=None,
        normaliser="token",
        note="0.1 below the mean, as in Trinity-RFT (shift −0.1). Its gradient is that of REINFORCE with 0.1 of `forward_kl`. " + _OFF_POLICY_NOTE,
    ),
    *(_rec(region, weighted) for region in _REGIONS for weighted in (False, True)),
    Method(
        name="red_drop", title="RED-Drop", paper="arXiv:2509.24203",
        summary="REINFORCE on groups evened out: rollouts below the mean are left out at random until there are no more of them than of the others.",
        protects="Likelihood displacement where most rollouts are wrong: what pushes down never outnumbers what pushes up.",
        costs="Rollouts that were generated and judged teach nothing, nearly all of them in hard groups; which ones is chance.",
        against=("likelihood displacement",), moves=("displacement", "sharpening", "entropy_fall"),
        credit=(Component(base="mean", norm="none", drop="balance"),), surrogate="log_prob", level="token", clip=None, normaliser="token",
        penalties=(_RED_PULL,),
        note="As in Trinity-RFT, rollouts at the mean count among the better ones, the mean is taken anew over those kept, and those left out count in "
        "the normaliser with A = 0. Drawn from the run's seed and the step. " + _OFF_POLICY_NOTE,
    ),
    Method(
        name="red_weight", title="RED-Weight", paper="arXiv:2509.24203",
        summary="REINFORCE in which a rollout weighs exp(A / τ): better ones teach more, worse ones less.",
        protects="Likelihood displacement: pushing down is damped and pushing up amplified, smoothly and without leaving a rollout out.",
        costs="Sensitive to the scale of the rewards: with rewards of 0 and 1 weights lie between 0.37 and 2.7, with larger ones a single rollout can carry "
        "the step.",
        against=("likelihood displacement",), moves=("displacement", "sharpening", "entropy_fall", "gradient_spike"),
        credit=(Component(base="mean", norm="none"),), surrogate="log_prob", level="token", clip=None, normaliser="token",
        weights=(Weight(name="exp_advantage", value=1.0, knob="red_temperature"),), penalties=(_RED_PULL,),
        note="τ = 1, as in Trinity-RFT. " + _OFF_POLICY_NOTE,
    ),
)

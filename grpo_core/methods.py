"""METHODS: every training method as one row of data over the registries of grpo_core/algorithms; no torch.

    loss = N( W ⊙ φ(logp, ρ_level, A) ) + Σ_k λ_k · reg_k        A = whole( Σ_c w_c · Norm_c( value_c − Base_c(key_c) ) · Scale_c )

A name in a row decides one thing, and each is spelled once in its registry; a test resolves every name of every row.
"""

from __future__ import annotations

import difflib
import math
import os
from dataclasses import replace

from grpo_core.method_row import Component, Method, Penalty, Weight
from grpo_core.off_policy import OFF_POLICY
from grpo_core.own_methods import OWN_METHODS, bring

_KL = Penalty(name="kl_ref_k3", coef=0.0, knob="kl_coef")
_GROUP_NORM = (Component(base="mean", norm="std"),)
_REWARDED = Component(value="verdict", base="zero", norm="none", scale="positives")
_PENALISED = Component(value="verdict", base="zero", norm="none", scale="negatives")
_VERDICT_NOTE = (
    "A is +1 or −1 by correctness, whatever the size of the reward, with no baseline: groups that are all wrong or all correct "
    "count. Clipped at 0.2 with every token weighing the same and no KL, as in the released code."
)
_GROUP_NOTE = (
    " The loss is a surrogate whose gradient is the objective's and whose value says nothing, as in the released code; the objective itself is "
    "recorded as `objective`."
)


def _disco(tilted: bool, score: str) -> Method:
    """A row of DisCO (arXiv:2505.12366): log-likelihood or likelihood ratio as score, negatives alike or the likeliest ones first."""
    words, short = {"log_prob": ("log-likelihood", "log-L"), "ratio": ("likelihood ratio", "L-ratio")}[score]
    temperature = {"log_prob": 10.0, "ratio": 1.0}[score]
    return Method(
        name=("disco" if tilted else "disco_b") + ("_ratio" if score == "ratio" else ""), title=f"{'DisCO' if tilted else 'DisCO-b'} ({short})",
        paper="arXiv:2505.12366",
        summary=f"Raises the mean {words} of correct completions above that of wrong ones"
        + (", the likeliest wrong ones counting most" if tilted else "") + ", while a hinge keeps the KL to the policy that sampled small.",
        protects="Difficulty bias: each group's correct and wrong rollouts weigh the same in sum, whatever the pass rate; and entropy collapse, says the "
        "paper, as no clip treats the two signs unlike and the KL is bounded instead.",
        costs="The single correct rollout of a hard group weighs as much as all wrong ones together; the bound needs the KL of the whole update: one more "
        "forward pass at every update but the first of a rollout batch, and tied groups are computed too.",
        against=("difficulty bias", "entropy collapse", "large updates"), moves=("step_kl", "entropy_fall", "displacement", "gradient_spike"),
        credit=(Component(value="correct", base="mean", norm="variance"),), surrogate=score, level="token", clip=None, normaliser="sequence",
        penalties=(Penalty(name="kl_hinge", coef=1000.0, knob="disco_beta"),),
        group=Weight(name="discriminate", value=temperature, knob="disco_tau") if tilted else None,
        note="Correct is what the task says, whatever the reward. Dividing by the group's variance is the paper's difference of means, written as an "
        "advantage. The KL is the mean over tokens of log π_old − log π, bounded by δ = 1e-4 nats; β = 1000."
        + (_GROUP_NOTE if tilted else "") + (" In the released code this variant stops with a TypeError." if tilted and score == "ratio" else ""),
    )  # fmt: skip


METHODS: dict[str, Method] = {
    m.name: m
    for m in (
        Method(
            name="grpo", title="GRPO", paper="arXiv:2402.03300",
            summary="Rewards normalised inside the group, token-level clipping, every completion weighs the same.",
            protects="A value model's errors and prompts of unlike difficulty: rewards are compared inside their group; the clip ends a token's push once its "
            "ratio has moved by 0.2 the way it is pushed.",
            costs="Dividing by the std favours prompts that are nearly solved or nearly hopeless, the mean per completion makes a token of a long completion "
            "weigh less, and tied groups teach nothing.",
            against=("noisy gradients", "large updates"), moves=("clipping", "step_kl", "displacement", "length"),
            credit=_GROUP_NORM, surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="sequence", penalties=(_KL,),
            note="std divides by n-1 as in TRL and verl, with ε = 1e-6 as in verl; tied groups get exactly 0. "
            "The paper's KL weight is 0.04; the default here is 0, as in TRL.",
        ),
        Method(
            name="dr_grpo", title="Dr. GRPO", paper="arXiv:2503.20783",
            summary="No division by the group's std and a constant length normaliser, which removes two biases of GRPO.",
            protects="Two biases of GRPO: the std that favours very easy and very hard prompts, and the mean per completion, which the paper says lets wrong "
            "answers grow long.",
            costs="The size of a step now depends on the scale of the rewards and on max_new_tokens: a limit far above what is written makes steps small.",
            against=("length bias", "difficulty bias"), moves=("length", "truncation"),
            credit=(Component(base="mean", norm="none"),), surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="constant", penalties=(_KL,),
            note="The constant is max_new_tokens × rollouts, as in TRL; verl's default divides by the padded width.",
        ),
        Method(
            name="dapo", title="DAPO", paper="arXiv:2503.14476",
            summary="Wider upper clip, every token weighs the same, and prompts without signal are sampled again.",
            protects="Entropy collapse, says the paper, by the wider upper bound that lets unlikely tokens rise further; steps without signal, by dropping tied "
            "groups and sampling others; and the weakness of tokens in long completions.",
            costs="Generation: every tied group was sampled in vain, the more the nearer the task is to solved or hopeless; and long completions weigh more "
            "than short ones.",
            against=("entropy collapse", "groups without signal", "length bias"), moves=("entropy_fall", "sharpening", "clipping"),
            credit=_GROUP_NORM, surrogate="clip", level="token", clip=(0.2, 0.28), normaliser="token", sampler="dynamic", penalties=(_KL,),
            note="Dynamic sampling as in verl (filter_groups); TRL's loss_type=dapo has none. Overlong penalty: option overlong_buffer.",
        ),
        Method(
            name="gspo", title="GSPO", paper="arXiv:2507.18071",
            summary="One importance ratio per completion, the geometric mean of its token ratios, clipped as a whole.",
            protects="Single tokens with extreme ratios: they are averaged over the completion before anything is clipped, which the paper says steadies training, "
            "of mixtures of experts above all.",
            costs="A completion is held as a whole: once its mean ratio leaves a band of a few ten-thousandths none of its tokens teach, and many completions "
            "are held (the paper reports far more clipped tokens than in GRPO).",
            against=("large updates",), moves=("clipping", "step_kl", "gradient_spike"),
            credit=_GROUP_NORM, surrogate="clip", level="sequence", clip=(3e-4, 4e-4), normaliser="sequence", penalties=(_KL,),
        ),
        Method(
            name="rloo", title="RLOO", paper="arXiv:2402.14740",
            summary="Each rollout is compared with the mean of the others in its group.",
            protects="A biased baseline: what a rollout is compared with does not contain its own reward; and there is no std that would weigh prompts by "
            "difficulty.",
            costs="Nothing but scale sets it apart from reward minus group mean: its A is exactly G/(G−1) times that, so it brings no guard against "
            "any sign of collapse but the clip it is trained with here.",
            against=("noisy gradients", "difficulty bias"),
            credit=(Component(base="leave_one_out", norm="none"),), surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="sequence", penalties=(_KL,),
            note="The paper makes one REINFORCE update per rollout, to which the clipped ratio is identical in gradient; "
            "it is clipped here because several updates per rollout are the default.",
        ),
        Method(
            name="cispo", title="CISPO", paper="arXiv:2506.13585",
            summary="The importance weight is clipped and kept out of the gradient, so that no token is ever left out.",
            protects="Tokens that the clip silences: the paper says they are often the rare words that turn a line of reasoning; here the weight is capped and "
            "every token keeps a gradient.",
            costs="Nothing stops a token that has moved far from being pushed on in the same direction; only the size of its weight is bounded.",
            against=("lost tokens", "large updates"), moves=("clipping", "step_kl", "entropy_fall"),
            credit=_GROUP_NORM, surrogate="clipped_weight", level="token", clip=(1.0, 4.0), normaliser="token", penalties=(_KL,),
            note="The paper sets no lower bound and does not print its upper one; 1 + 4 = 5 is that of ScaleRL (arXiv:2510.13786), as in TRL. "
            "verl clips on both sides.",
        ),
        Method(
            name="sapo", title="SAPO", paper="arXiv:2511.20347",
            summary="A smooth gate in place of the clip: tokens fade out as their ratio leaves 1, those with A ≤ 0 a little sooner.",
            protects="The clip's hard edge: a token's gradient fades as its ratio leaves 1 instead of ending, a little sooner where A ≤ 0, which the paper says "
            "steadies training.",
            costs="There is no bound at which a token stops, and so no share of clipped tokens to watch: that signal is not available.",
            against=("lost tokens", "large updates"), moves=("step_kl", "gradient_spike"),
            credit=_GROUP_NORM, surrogate="soft_gate", level="token", clip=None, normaliser="sequence", penalties=(_KL,),
            note="Temperatures 1.0 for A > 0 and 1.05 otherwise.",
        ),
        Method(
            name="gmpo", title="GMPO", paper="arXiv:2507.20673",
            summary="The geometric mean of a completion's token ratios, each clipped first, so that one odd token cannot carry the completion.",
            protects="Outlier tokens: in a geometric mean one extreme ratio counts for little, which the paper says keeps a much wider band steady.",
            costs="Tokens are weighed by their completion's mean ratio and not their own, so no token's drift since sampling is corrected for itself; a held "
            "token has no gradient.",
            against=("large updates",), moves=("clipping", "gradient_spike", "step_kl"),
            credit=_GROUP_NORM, surrogate="geometric_clip", level="token", clip=(0.4, 0.4), normaliser="sequence", penalties=(_KL,),
            note="Bounds are of the log-ratio, in nats: ratios from e^−0.4 to e^0.4.",
        ),
        Method(
            name="luspo", title="LUSPO", paper="arXiv:2602.05261",
            summary="GSPO with each completion's loss times its length, which takes away GSPO's preference for short ones.",
            protects="GSPO's preference for short completions: multiplied by its length, a completion's tokens weigh the same however many there are.",
            costs="Steps grow with what is written: completions twice as long have twice the gradient, so a drift in length is also a drift of the step size, "
            "until the gradient norm is clipped.",
            against=("length bias", "large updates"), moves=("length", "clipping", "gradient_spike"),
            credit=_GROUP_NORM, surrogate="clip", level="sequence", clip=(2e-3, 2.5e-3), normaliser="row_sum", penalties=(_KL,),
        ),
        Method(
            name="vespo", title="VESPO", paper="arXiv:2602.10693",
            summary="The whole completion's importance weight through a smooth hump that is 1 at ratio 1 and falls on both sides.",
            protects="Stale rollouts: a completion fades out smoothly as its whole importance weight leaves 1, without a length correction.",
            costs="The weight is a product over all tokens, so in long completions a small drift of each already silences the whole; no share of clipped tokens "
            "shows it.",
            against=("large updates",), moves=("step_kl", "gradient_spike"),
            credit=_GROUP_NORM, surrogate="gamma_gate", level="sequence_sum", clip=None, normaliser="token", penalties=(_KL,),
            note="Shapes k, λ are 2, 3 for A ≥ 0 and 3, 2 below, TRL's defaults; the weight has no gradient of its own.",
        ),
        Method(
            name="reinforce_pp", title="REINFORCE++", paper="arXiv:2501.03262",
            summary="No group: rewards are whitened over all tokens of the batch.",
            protects="Dependence on the group: rewards are compared over the whole batch, so that tied groups still teach and no small std magnifies a group.",
            costs="Without a baseline per prompt, groups that all pass are pushed up and groups that all fail down, though none of their rollouts was better than "
            "another: noise, and a push against right steps in hopeless groups.",
            against=("groups without signal", "difficulty bias"), moves=("displacement", "gradient_spike"),
            credit=(Component(base="zero", norm="token_whiten"),), surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token", penalties=(_KL,),
            note="Without discount (γ = 1), and with KL as a term of the loss: the paper takes it from each token's reward. As batches "
            "are compared, groups that all fail are pushed down and groups that all pass up.",
        ),
        Method(
            name="reinforce_pp_baseline", title="REINFORCE++-baseline", paper="arXiv:2501.03262",
            summary="Reward minus the group's mean, then whitened over all tokens of the batch.",
            protects="Groups magnified by a small std: all share one scale, that of the batch, while each is still compared with its own mean.",
            costs="Tied groups are moved a little where lengths differ, and one group with far-flung rewards shrinks all others.",
            against=("noisy gradients", "difficulty bias"), moves=("gradient_spike",),
            credit=(Component(base="mean", norm="token_whiten"),), surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token", penalties=(_KL,),
            note="A group tied in reward is not exactly 0 where lengths differ: the mean over tokens is not the mean over rollouts (as in verl).",
        ),
        Method(
            name="opo", title="OPO", paper="arXiv:2505.23585",
            summary="The baseline weighs the group's rewards by length, which gives the gradient its least variance.",
            protects="Noisy gradients: the length-weighted mean is the baseline of least variance if a rollout's squared gradient grows with its length, as the "
            "paper assumes.",
            costs="It is made for one exact on-policy update per rollout batch; with more it is an approximation, and where lengths are alike it is the group's "
            "mean.",
            against=("noisy gradients",), moves=("gradient_spike",),
            credit=(Component(base="length_weighted", norm="none"),),
            surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token", penalties=(_KL,),
            note="The paper makes one exact on-policy update (`epochs=1 minibatches=1`), to which the clipped ratio is identical in gradient; "
            "the normaliser is verl's default.",
        ),
        Method(
            name="gpg", title="GPG", paper="arXiv:2504.02546",
            summary="Plain policy gradient on reward minus group mean, scaled up by the share of rollouts without signal.",
            protects="Steps that shrink as groups tie: A grows by as much as rollouts lose their signal; and the std's weight on easy and hard prompts.",
            costs="Nothing holds a token whose probability has moved and nothing corrects for it, so more than one update per rollout batch drifts; the last "
            "groups with signal carry the whole step, magnified.",
            against=("groups without signal", "difficulty bias"), moves=("step_kl", "ess", "gradient_spike"),
            credit=(Component(base="mean", norm="nonzero_share"),), surrogate="reinforce", level="token", clip=None, normaliser="token",
            note="f_norm = 1, the released default; the share is taken over the batch, as in verl. It is that of rollouts whose reward differs from their group's mean, "
            "as those of a tied group have no gradient; verl counts rollouts whose reward is not 0, so that there solved groups keep the scale down and hopeless ones do not: "
            "rewards 1, 0 and 1, 1 of two groups are scaled by 2 here and by 4/3 there.",
        ),
        Method(
            name="pass_at_k", title="Pass@k", paper="arXiv:2503.19595",
            summary="Only the best rollout of a group is rewarded, by its lead over the second best.",
            protects="Lost diversity: what pays is one good rollout in a group and not that all are alike, so the paper optimises pass@k itself.",
            costs="At most one rollout of a group teaches, and with rewards of 0 and 1 only where it is the single correct one; nothing is ever pushed down.",
            against=("lost diversity",), moves=("sharpening", "entropy_fall"),
            credit=(Component(base="second_best", norm="std", scale="positives"),),
            surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token", penalties=(_KL,),
            note="As verl's grpo_passk: where two share the best reward nobody is rewarded, so with rewards of 0 and 1 only a group with "
            "a single correct rollout teaches anything.",
        ),
        Method(
            name="grpo_llds", title="GRPO + LLDS", paper="arXiv:2512.04220",
            summary="GRPO with a penalty on completions with A ≥ 0 that have become less likely since they were sampled.",
            protects="Likelihood displacement: completions that are not worse than their group are pulled back when they become less likely; the paper reports "
            "that plain GRPO collapsed within 300 steps in agent search and trained on with this.",
            costs="It is zero on the first update of a rollout batch, so it needs at least two; it pulls as hard on a small fall as on a large one; and tied "
            "groups are computed too.",
            against=("likelihood displacement",), moves=("displacement", "probe", "entropy_rise", "gradient_spike"),
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
            protects="Likelihood displacement: tokens that begin or end better and worse rollouts alike are never pushed down; and the entropy explosion, as "
            "completions above ln 2 nats per token are left out.",
            costs="Tokens are compared by position from either end, so a shift by one ends the run; −γ⟨H⟩ pushes down even tied groups; there is neither clip "
            "nor KL, and updates after the first are not corrected for drift.",
            against=("likelihood displacement",), moves=("conflicts", "displacement", "entropy_rise", "step_kl"),
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
            note="The paper's body could not be obtained: what is called the paper's here is the objective of its authors' README. "
            "`gtpo_code=released` takes five departures of the authors' code from the README's objective together: tokens in both "
            "conflict runs weigh 2 · 2 = 4; a completion's loss is divided by its number of conflict tokens, counted as the longer "
            "of its two runs; completions above 0.7 nats are left out whatever the start model's entropy; losses are summed over "
            "completions. Entropy is the sampler's, a constant without gradient; as −γ⟨H⟩ enters after the baseline, tied groups "
            "are pushed down. Their rewards went to 20: with rewards of 0 and 1, γ = 0.1 weighs about ten times as much.",
        ),
        Method(
            name="nthr", title="NTHR", paper="arXiv:2505.18830",
            summary="GRPO in which those tokens of wrong completions are pushed down less that would take the most from correct ones.",
            protects="Likelihood displacement: to first order, pushing a token down takes from correct completions as its hidden state and prediction error are like "
            "theirs; tokens for which that is above the group's threshold are damped to 2·|½ − p| of their push.",
            costs="One more forward pass over every group with correct and wrong rollouts; at pass rate ½ damped tokens are not pushed at all, and what wrong "
            "completions share with correct ones is unlearned more slowly.",
            against=("likelihood displacement",), moves=("displacement", "conflicts", "probe"),
            credit=_GROUP_NORM, surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="sequence",
            weights=(Weight(name="nthr", value=1.0, knob="nthr_beta"),), penalties=(_KL,),
            note="β = 1, the paper's; it takes 0 for DeepSeek-1.5B. The paper's displayed equations could not be read: they are taken from its prose and from the "
            "appendix of arXiv:2512.04220, which restates them, and no code of the authors was found. Assumed: p and η are of the group, its correct completions' own tokens "
            "count in the anchor, all else is GRPO's row; and where rewards are not 0 and 1, a wrong completion with A ≥ 0 is not damped. "
            "Every step records what `nthr_every` would (`nthr`, `gwhes`), and η is in the tokens' recorded weights. The laboratory cannot weigh another's record with it, "
            "as hidden states are not recorded.",
        ),
        Method(
            name="psr", title="PSR", paper="arXiv:2506.01347",
            summary="Positive-sample reinforcement: correct completions become more likely, wrong ones are left alone.",
            protects="Pushing down at all: no wrong completion takes likelihood from the tokens it shares with correct ones.",
            costs="The paper finds that it sharpens: the first try improves while pass@k for large k falls, and with it entropy.",
            against=("likelihood displacement",), moves=("displacement", "sharpening", "entropy_fall"),
            credit=(_REWARDED,), surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token", penalties=(_KL,), note=_VERDICT_NOTE,
        ),
        Method(
            name="nsr", title="NSR", paper="arXiv:2506.01347",
            summary="Negative-sample reinforcement: wrong completions become less likely, correct ones are left alone.",
            protects="Lost diversity: probability is only taken from wrong completions and goes where the policy already puts it, which the paper finds keeps "
            "entropy and pass@k.",
            costs="Nothing is ever pushed up, so tokens that wrong completions share with correct ones only fall, and groups that are all correct teach "
            "nothing.",
            against=("lost diversity", "entropy collapse"), moves=("sharpening", "entropy_fall", "displacement", "entropy_rise"),
            credit=(_PENALISED,), surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token", penalties=(_KL,), note=_VERDICT_NOTE,
        ),
        Method(
            name="w_reinforce", title="W-REINFORCE", paper="arXiv:2506.01347",
            summary="PSR at a tenth of its weight plus NSR.",
            protects="Lost diversity, as NSR, with a tenth of PSR to hold up correct completions; the paper reports better pass@k overall.",
            costs="One more number to choose; pushing down still outweighs pushing up ten to one, so shared tokens of correct completions may fall.",
            against=("lost diversity", "entropy collapse"), moves=("sharpening", "entropy_fall", "displacement"),
            credit=(replace(_REWARDED, weight=0.1), _PENALISED),
            surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token", penalties=(_KL,), note=_VERDICT_NOTE,
        ),
        Method(
            name="gdpo", title="GDPO", paper="arXiv:2601.05242",
            summary="Every part of the reward is normalised inside the group for itself; their weighted sum is then scaled over the batch.",
            protects="Parts of a reward that drown each other: rollouts with different parts but the same total keep different advantages, and a part on which "
            "all agree does not shrink the others.",
            costs="A part that hardly differs inside a group is blown up as much as one that matters, whatever its scale; all advantages of a step depend on "
            "one spread over the batch.",
            against=("noisy gradients",), moves=("gradient_spike",),
            credit=(Component(value="parts", base="mean", norm="std"),), whole="batch_std",
            surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="sequence", penalties=(_KL,),
            note="Written normalize_then_sum in TRL, with ε = 1e-4 there and 1e-6 here. With one part it is GRPO with every advantage divided by "
            "the batch's standard deviation. The batch's mean, which the paper takes off, is 0 already. The parts are those of the task's reward, the "
            "overlong penalty among them; a rollout one of whose parts failed leaves the statistics of all.",
        ),
        Method(
            name="remax", title="ReMax", paper="arXiv:2310.10505",
            summary="Reward minus the reward of the prompt's greedy completion, which is generated for that and not trained on.",
            protects="Noisy gradients without a value model, and a baseline that the sampled rollouts themselves move: it is what the policy does when it does "
            "not explore.",
            costs="One more completion per prompt, generated and judged; once the greedy answer is right most rollouts are only pushed down, and groups tied at "
            "another reward than it are pushed as a whole.",
            against=("noisy gradients", "difficulty bias"), moves=("displacement", "entropy_fall", "length"),
            credit=(Component(base="greedy", norm="none"),), surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token", penalties=(_KL,),
            note="The paper draws one rollout per prompt and makes one REINFORCE update, to which the clipped ratio is identical in gradient, with the KL as a "
            "part of the reward; normaliser and clip are verl's. The greedy completion's time counts as generation. Where its reward failed, the group "
            "has no baseline and A = 0.",
        ),
        *OFF_POLICY,
        Method(
            name="reg_grpo", title="Reg-GRPO", paper="arXiv:2506.07464",
            summary="Advantages are a target: the group's sequence log-ratios, normalised as rewards are, are fitted to them by least squares.",
            protects="The clip's lost gradients and hand-set bounds: a completion is pushed until its change of likelihood stands in the group as its reward does, "
            "and no further. Hints bring hopeless groups within reach.",
            costs="Only the order and spacing of the changes are fitted, not their size, and at the policy that sampled their spread is 0: the first update is "
            "200 times REINFORCE's and finite only through the floor and gradient clipping. Hard prompts are sampled twice, and what is learnt behind a hint is learnt of "
            "prompts that nobody will ask.",
            against=("lost tokens", "groups without signal"), moves=("gradient_spike", "step_kl", "ess", "displacement"),
            credit=(Component(base="mean", norm="std_population"),), surrogate="log_ratio", level="sequence_sum", clip=None, normaliser="sequence",
            group=Weight(name="regress", value=0.01, knob="reg_floor"), sampler="hinted", penalties=(_KL,), options=("hint_strength",),
            note="DeepVideo-R1's objective and its difficulty-aware augmentation. A prompt whose mean reward lies below that of the last 100 groups is sampled again in "
            "the same step, behind the beginning of its worked answer in proportion to the gap; the group without the hint is recorded and dropped. Rewards are those "
            "of the whole answer, the loss is of what the policy wrote. Assumed: the window's length, which the paper states in two ways; half the answer per reward "
            "of gap (`hint_strength=0.5`), as its scale factors are not printed, rounded down to tokens; no hint until a group has been scored, which is in the first step. The "
            "paper's hint is the best of rollouts sampled with the solution in sight, here it is the task's worked answer; for easy prompts it adds noise to video "
            "frames, of which text has no like. `hint_strength=0`, or a dataset without `gold_column`, leaves the objective alone. In the 30 steps of the table of what was trained, on the same seeds, "
            "strength 0 gained 0.21 ± 0.04, 0.25 gained 0.21 ± 0.01, 0.5 gained 0.24 ± 0.04 and 1 gained 0.14 ± 0.05: longer hints leave too little to learn. Rollouts behind a hint are "
            "marked (`source` hinted, `hint_tokens`), and figures of what the policy writes leave them out. The paper prints neither the kind of std nor an ε: both are over n here, and "
            "the std of log-ratios is at least 0.01. Its KL weight is 0.1 (with a sign that its minimised loss cannot mean); the default here is 0. "
            "The mean squared difference with its sign turned is recorded as `objective`; above the floor it is 2·(corr − 1).",
        ),
        *(_disco(tilted, score) for tilted in (False, True) for score in ("log_prob", "ratio")),
        Method(
            name="spo", title="SPO", paper="arXiv:2509.13232",
            summary="One rollout per prompt, compared with a success rate of that prompt tracked over steps, and prompts drawn by how undecided it is.",
            protects="Groups without signal: nothing is compared inside a group, so no rollout is spent on a tied one; each is held against what its prompt "
            "came to before, and the batch gives the scale.",
            costs="A memory per prompt, right only as far as prompts come back before the policy has moved; one more forward pass over their previous "
            "completions; and signals that need several rollouts of a prompt (pass@k, ties, diversity) are not available with one.",
            against=("groups without signal", "noisy gradients"), moves=("displacement", "gradient_spike"),
            credit=(Component(value="success", base="tracked", norm="batch_std"),),
            surrogate="clip", level="token", clip=(0.2, 0.28), normaliser="token", sampler="tracked", penalties=(_KL,), options=("spo_pool", "spo_init"),
            note="Made for `group_size=1`; with more, all verdicts of a prompt enter its tracker. Success is 1 or 0 by correctness, as the tracker "
            "needs: other reward parts do not count. What the released code calls KL is the mean |change of log-prob| of the prompt's previous completion. "
            "Its docstring names Thompson sampling, which it does not do; its dual clip (ratios above 10 where A < 0) is left out here. The released code "
            "has 14 000 candidate prompts, here they are `spo_pool`. Recorded per prompt (`prompt_state`): p, alpha, beta, drift, kept (ρ).",
        ),
        Method(
            name="arpo", title="ARPO", paper="arXiv:2505.16282",
            summary="GRPO in which a hopeless group gets one stored success of the same prompt in the place of a rollout.",
            protects="Hopeless groups: where every rollout fails, a success that an older policy wrote to the same prompt gives the group a signal again.",
            costs="A memory of completions per prompt, of use only where prompts come back; the old success is off-policy, so what it says of the policy of "
            "today is little; and one sampled rollout of such a group is thrown away.",
            against=("groups without signal",), moves=("starvation", "ess", "clipping"),
            credit=_GROUP_NORM, surrogate="dual_clip", level="token", clip=(0.2, 0.3), normaliser="token", sampler="replay_success", penalties=(_KL,),
            note="Not the other ARPO (Agentic Reinforced Policy Optimization). The last 8 completions per prompt whose first reward part is above 0.1 are kept; "
            "a group is hopeless with a standard deviation (n) below 0.05 and a mean below 0.2 of that part. The released code recomputes the old log-probs of "
            "what it inserts, so that its ratio is 1; here they are those of the policy that wrote it. Its task filter is `prompt_sampler=solvable`, here made by "
            "rollouts before the first step where theirs is a list made offline. The replayed rollout is marked in the record (`source`, `age`), and figures of "
            "the step leave it out. Recorded per prompt: stored, newest_success.",
        ),
        Method(
            name="grao", title="GRAO", paper="arXiv:2508.07750",
            summary="REINFORCE on the group and the task's worked answer as one more row of it, compared and taught like a rollout.",
            protects="Hopeless groups: where every rollout fails, the worked answer is above them and is taught; where all are right it is one of many and "
            "nothing is.",
            costs="Needs worked answers, and pulls the policy towards their words, which no policy sampled: no ratio corrects for that, and rollouts that are "
            "right otherwise are compared with them.",
            against=("groups without signal",), moves=("starvation", "step_kl", "displacement", "entropy_fall"),
            credit=(Component(base="mean", norm="std_population"),), surrogate="log_prob", level="token", clip=None, normaliser="sequence",
            weights=(Weight(name="reference", value=0.5, knob="grao_imitation"),), sampler="demonstrated",
            note="The worked answer is a row with reward, advantage and trace of its own (`source` reference), and without sampling log-probs and entropies; figures of "
            "what the policy writes leave it out. Assumed: one normalisation over the G + 1 rows, which the paper's words allow, std over n. Its alignment "
            "term, weight λ = 0.6, is then redundant: J = (1 + λ) · mean A_i J_i + (β + λ/G) · A_y J_y. So λ is reported as what it is, an effective learning "
            "rate 1.6 times `lr` with β = (0.5 + 0.6/G)/1.6, and is no option. No ratio, clip or KL, as in the paper; its code was not found. Not with "
            "`group_reward`, which would shape the rollouts and not the answer. A dataset needs `gold_column`.",
        ),
        Method(
            name="gepo", title="GEPO", paper="arXiv:2505.12723",
            summary="REINFORCE++ on correctness, and beside it a preference of each group's correct rollouts over its wrong ones, measured from the start model.",
            protects="Correct rollouts of a group that gain no more than the wrong ones they share tokens with: whole completions are held against each other, "
            "and a winner far ahead of the other winners is held back.",
            costs="A frozen copy of the start model and, at every update but the first of a rollout batch, one more forward pass; its pull grows with the length "
            "of completions, and groups without both kinds get none.",
            against=("likelihood displacement", "groups without signal", "difficulty bias"), moves=("displacement", "gradient_spike", "step_kl"),
            credit=(Component(value="correct", base="zero", norm="token_whiten"),), surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token",
            penalties=(Penalty(name="gepo", coef=0.01, knob="gepo_coef"), _KL), options=("preferences", "preference_groups"),
            note="One of the GEPOs: that of OORL (Group Equivalent Preference Optimization). The reward of the first stream is correctness, 1 or 0, as the paper's "
            "unit tests have it; other parts do not count. Assumed, as they could not be read: β = 0.1 of the implicit reward, the winners' variance over n, "
            "and the mean over all groups of an update. The paper prefers completions of a fixed corpus, which it reads as a stream of its own beside the rollouts: "
            "name it in `preferences`, and every update reads `preference_groups` of its prompts. Without it, a departure, a group's winners are its own correct rollouts. The term is recorded as it is worth (`terms`, gepo); its gradient is "
            "exact in any micro-batches.",
        ),
        Method(
            name="rank_grpo", title="Rank-GRPO", paper="arXiv:2510.20150",
            summary="For ranked lists: every item has its own advantage, compared with the same rank of the group, and its own ratio.",
            protects="Items taught by what others earned: a good list with one bad item pushes that item down, and one good item of a bad list up; the clip holds "
            "items, not tokens.",
            costs="Needs a reward per rank and completions that are lists. Ranks are compared as if what stands before them were alike; what is added for the length "
            "moves tied groups too.",
            against=("noisy gradients", "large updates"), moves=("clipping", "step_kl", "length"),
            credit=(Component(value="ranks", base="mean", norm="std"),), spread="ranks", surrogate="clip", level="segment", clip=(0.06, 0.08),
            normaliser="sequence", penalties=(_KL,), options=("rank_decay",),
            note="Trained with `task=ranking`. A rank earns the discounted hits from it on (`rank_decay=log_decay`) or its own hit (`exp_inf`). Added after the norm: "
            "−0.1 on every token of an item beyond the list, +0.1 on the end token of a list of exactly K items, −0.1 on that of a shorter one and nothing on that of a "
            "longer one. The line break belongs to "
            "the item before it. Items beyond the list share one ratio and the end token has its own; in the released code the end token belongs to no item, and "
            "what its ratio is was not read. ε is 1e-6 as elsewhere here, 1e-4 there. A line that cannot be read earns 0 for its rank. Its KL weight is 1e-3, the "
            "default here 0; it makes one update per rollout batch, where nothing is clipped. The baseline recorded is the sum over ranks, a rollout's advantage the "
            "mean over its tokens. Recorded per token: `items`.",
        ),
    )
}


def method_name(text: str) -> str | None:
    """The name of the method that `text` names or whose preset id it is; None where there is none."""
    return text if text in METHODS else next((m.name for m in METHODS.values() if m.preset == text), None)


def nearest_method(text: str) -> str | None:
    """The method whose name or preset id is spelled most like `text`; None where none is like it."""
    near = difflib.get_close_matches(text, [*METHODS, *(m.preset for m in METHODS.values())], n=1)
    return near[0] if near else None


def unknown_method(text: str) -> str:
    """The sentence for a method that does not exist, with the nearest name or preset id."""
    near = nearest_method(text)
    hint = f"; did you mean {near}?" if near else ""
    return f"unknown method {text!r}; known: {', '.join(METHODS)}{hint}" + (f"; {NOT_BROUGHT}" if NOT_BROUGHT else "")


# last, as a file of the user's adds to what stands above
NOT_BROUGHT = bring(os.environ[OWN_METHODS]) if os.environ.get(OWN_METHODS) else ""

r"""What every name in the registries of grpo_core/algorithms adds to a method's equation, in LaTeX and in words; no torch.

i is a rollout, g its group, j runs over rollouts, t over the tokens of completion o_i; B rollouts and T_max tokens at most make an
update. sg[·] has no gradient. Pieces are string.Template texts, as braces belong to LaTeX.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What a registered name adds to the equation. `means` says it in words; `where` defines the symbols it brings.

    `averaged` says of a penalty that the method's own normaliser averages it; others bring their sum. `over` is a sum that a value
    of several columns puts before its summand, `score` a surrogate with A = 1.
    """

    latex: str
    means: str
    where: str = ""
    averaged: bool = False
    over: str = ""
    score: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One registry: what it decides, which file holds it, and its names."""

    title: str
    home: str
    pieces: Mapping[str, Piece]


_RATIO = r"\frac{\pi_\theta(o_{i,t} \mid \cdot)}{\pi_{\text{old}}(o_{i,t} \mid \cdot)}"
_FALL = r"\Delta_{i,t} = \log \pi_{\text{old}}(o_{i,t} \mid \cdot) - \log \pi_\theta(o_{i,t} \mid \cdot),\quad \kappa = 10^{-4}"
_PRESERVED = r"\frac{1}{\sum_{A_j \ge 0} |o_j|} \sum_{A_i \ge 0} \sum_t "
_HINGE = r"\,\Delta_{i,t}\, \mathbf{1}[\Delta_{i,t} > \kappa]"
_WHITEN = (
    r"\operatorname{whiten}(x_i) = \frac{x_i - \bar{x}}{\sqrt{\frac{1}{N-1} \sum_j |o_j| (x_j - \bar{x})^2 + 10^{-8}}} \\ "
    r"\bar{x} = \frac{1}{N} \sum_j |o_j|\, x_j,\quad N = \sum_j |o_j|"
)

VALUES = Choice(
    title="Value of a rollout",
    home="algorithms/values.py",
    pieces={
        "outcome": Piece(latex="r_{$i}", means="the total reward"),
        "verdict": Piece(latex="v_{$i}", means="+1 if the completion is correct, −1 if it is not", where=r"v_i = +1 \text{ if correct},\ -1 \text{ if not}"),
        "correct": Piece(latex="c_{$i}", means="1 if the completion is correct, 0 if it is not", where=r"c_i = 1 \text{ if correct},\ 0 \text{ if not}"),
        "parts": Piece(
            latex="r_{$i,k}",
            means="every part of the reward for itself, each with its own baseline and norm, added up with the weights of the total",
            where=r"r_{i,k} \text{: part } k \text{ of the reward},\quad v_k \text{: its weight in } r_i = \textstyle\sum_k v_k\, r_{i,k}",
            over=r"\sum_k v_k\, ",
        ),
        "ranks": Piece(
            latex="r_{$i,k}",
            means="what the list earns from each of its ranks on, every rank compared for itself",
            where=r"r_{i,k} = \sum_{l \ge k} \frac{h_{i,l}}{\log_2(l + 1)} \\ h_{i,l} = 1 \text{ if item } l \text{ is a hit},\ 0 \text{ if not}",
        ),
        "certainty": Piece(
            latex=r"\left(-\langle H \rangle_{$i}\right)",
            means="minus the mean token entropy of the completion, in nats",
            where=r"\langle H \rangle_i = \text{mean token entropy of } o_i \text{ when sampled}",
        ),
        "success": Piece(latex="s_{$i}", means="1 if the completion is correct, 0 if it is not", where=r"s_i = 1 \text{ if correct},\ 0 \text{ if not}"),
    },
)
BASES = Choice(
    title="Baseline it is compared with",
    home="algorithms/baselines.py",
    pieces={
        "mean": Piece(latex=r"\operatorname*{mean}_{j \in g} $of", means="the mean of the group"),
        "leave_one_out": Piece(latex=r"\operatorname*{mean}_{j \in g,\, j \ne i} $of", means="the mean of the group's other rollouts"),
        "length_weighted": Piece(
            latex=r"\frac{\sum_{j \in g} |o_j|\, $of}{\sum_{j \in g} |o_j|}", means="the mean of the group, each rollout weighted by its length in tokens"
        ),
        "second_best": Piece(latex=r"\operatorname*{2nd\,max}_{j \in g} $of", means="the group's second-highest value, the highest where two share it"),
        "below_mean": Piece(
            latex=r"\Bigl( \operatorname*{mean}_{j \in g} $of - $at \Bigr)",
            means="the mean of the group less a number, which pushes every rollout up by that much more",
        ),
        "log_average_exp": Piece(
            latex=r"$at \log \operatorname*{mean}_{j \in g} e^{$of / $at}",
            means="the log of the group's mean exponential at a temperature τ: between the mean (τ large) and the highest value (τ small)",
        ),
        "greedy": Piece(latex=r"r_g^{\text{greedy}}", means="the reward of one greedy completion of the prompt, which is not trained on"),
        "zero": Piece(latex="", means="none: every rollout stands for itself"),
        "tracked": Piece(
            latex=r"\hat{p}_g",
            means="the prompt's success rate, tracked over earlier steps by a Beta distribution that forgets as the policy moves",
            where=r"\hat{p}_g = \frac{\alpha}{\alpha + \beta},\quad \alpha \leftarrow \varrho\, \alpha + s,\ \beta \leftarrow \varrho\, \beta + 1 - s \\ "
            r"\varrho = \operatorname{clip}\bigl(2^{-D/0.06},\, 0.875,\, 0.96\bigr) \\ "
            r"D\text{: mean } |\Delta \log \pi| \text{ of the prompt's previous completion since it was written}",
        ),
    },
)
NORMS = Choice(
    title="Norm of the difference",
    home="algorithms/norms.py",
    pieces={
        "none": Piece(latex="$x", means="left as it is"),
        "std": Piece(
            latex=r"\frac{$x}{\operatorname*{std}_{j \in g} $of + \epsilon}",
            means="divided by the group's standard deviation over n − 1, plus ε = 1e-6",
            where=r"\operatorname{std} \text{ over } n - 1,\quad \epsilon = 10^{-6}",
        ),
        "std_population": Piece(
            latex=r"\frac{$x}{\operatorname*{std}_{j \in g} $of + \epsilon}",
            means="divided by the group's standard deviation over n, plus ε = 1e-6",
            where=r"\operatorname{std} \text{ over } n,\quad \epsilon = 10^{-6}",
        ),
        "variance": Piece(
            latex=r"\frac{$x}{\operatorname*{var}_{j \in g} $of}",
            means="divided by the group's variance over n: with values 1 and 0 each group's positives and negatives weigh the same in sum",
            where=r"\operatorname{var} \text{ over } n",
        ),
        "token_whiten": Piece(
            latex=r"\operatorname{whiten}\left($x\right)", means="minus the mean and over the standard deviation of all tokens of the batch", where=_WHITEN
        ),
        "nonzero_share": Piece(
            latex=r"\frac{B}{\#\{j : x_j \ne 0\}} \left($x\right)",
            means="divided by the share of rollouts whose difference is not 0, over the batch",
            where=r"x_j \text{: the difference in brackets, of rollout } j,\quad B\text{: rollouts of the step}",
        ),
        "batch_std": Piece(
            latex=r"\operatorname{standardise}\left($x\right)",
            means="minus the mean and over the standard deviation (n − 1) of all rollouts of the batch",
            where=r"\operatorname{standardise}(x_i) = \frac{x_i - \operatorname{mean}_j x_j}{\operatorname{std}_j x_j + 10^{-8}}\text{ over the batch}",
        ),
    },
)
SCALES = Choice(
    title="Which rollouts it is kept for",
    home="algorithms/selections.py",
    pieces={
        "one": Piece(latex="$x", means="every rollout"),
        "positives": Piece(latex=r"\max\left(0,\ $x\right)", means="only rollouts above the baseline"),
        "negatives": Piece(latex=r"\min\left(0,\ $x\right)", means="only rollouts below the baseline"),
    },
)
DROPS = Choice(
    title="Which rollouts are left out of their group",
    home="algorithms/selections.py",
    pieces={
        "none": Piece(latex="$x", means="none"),
        "balance": Piece(
            latex=r"\mathbf{1}[i \in K_g] \left($x\right)",
            means="rollouts below the mean, at random, until there are no more of them than of the others; statistics are of those kept",
            where=r"K_g \text{: rollouts of } g \text{ that are kept, over which the mean is taken}",
        ),
    },
)
WHOLES = Choice(
    title="Norm over the batch",
    home="algorithms/norms.py",
    pieces={
        "none": Piece(latex="$x", means="none: the sum of the components is A"),
        "batch_std": Piece(
            latex=r"\frac{a_i}{\operatorname*{std}_j a_j + \epsilon},\quad a_i = $x",
            means="divided by the standard deviation over all rollouts of the step, n − 1, plus ε = 1e-6",
        ),
    },
)
SPREADS = Choice(
    title="How it comes to the tokens",
    home="algorithms/segments.py",
    pieces={
        "rows": Piece(latex="A_i = $x", means="every token of a rollout has the rollout's A"),
        "ranks": Piece(
            latex=r"A_{i,t} = $x",
            means="every token has the A of its item; items beyond the list −0.1, the end token +0.1 after the whole list and −0.1 after a shorter one",
            where=r"k \text{: the item of token } t \text{, of } K \text{ asked for} \\ "
            r"A_{i,t} = \begin{cases} -0.1 & k > K \\ +0.1 & \text{end token after } K \text{ items} \\ -0.1 & \text{end token after fewer} \end{cases}",
        ),
    },
)
LEVELS = Choice(
    title="Level of the ratio ρ",
    home="algorithms/surrogates.py",
    pieces={
        "token": Piece(latex=r"\rho_{i,t}", means="each token's probability now over that when sampled", where=rf"\rho_{{i,t}} = {_RATIO}"),
        "sequence": Piece(
            latex=r"\rho_i",
            means="the geometric mean of the completion's token ratios, the same on each of its tokens",
            where=rf"\rho_i = \Bigl( \prod_t {_RATIO} \Bigr)^{{1/|o_i|}}",
        ),
        "sequence_sum": Piece(
            latex=r"\rho_i",
            means="the completion's probability now over that when sampled: the product of its token ratios",
            where=rf"\rho_i = \prod_t {_RATIO}",
        ),
        "segment": Piece(
            latex=r"\rho_{i,k}",
            means="the geometric mean of the token ratios of an item, the same on each of its tokens",
            where=rf"\rho_{{i,k}} = \Bigl( \prod_{{t \in k}} {_RATIO} \Bigr)^{{1/|k|}}",
        ),
    },
)
_BETWEEN = r"1 & $floor \le $ratio \le $ceiling"
REGIONS = {
    "one_side": (
        r"1 & A_i > 0,\ $ratio \le $ceiling \\ 1 & A_i \le 0,\ $ratio \ge $floor",
        "until the ratio leaves the bounds in the direction A pushes",
    ),
    "two_side": (_BETWEEN, "while the ratio is within the bounds"),
    "ring": (
        _BETWEEN + r" \\ 1 & A_i > 0,\ $ratio \le 0.4 \\ 1 & A_i \le 0,\ $ratio \ge 3 ",
        "while the ratio is within the bounds, or so far beyond them that A pulls back",
    ),
}
SURROGATES = Choice(
    title="Surrogate φ",
    home="algorithms/surrogates.py",
    pieces={
        "clip": Piece(
            latex=r"\min\bigl( $ratio A_i,\ \operatorname{clip}($ratio,\, $floor,\, $ceiling)\, A_i \bigr)",
            means="the ratio times A, until the ratio leaves the bounds in the direction A pushes: from there no gradient",
        ),
        "reinforce": Piece(
            latex=r"\frac{$ratio}{\operatorname{sg}[$ratio]}\, A_i",
            means="1 in value; its gradient is A · ∇ log π at every update, with nothing clipped and no importance weight",
        ),
        "log_prob": Piece(
            latex=r"A_i \log \pi_\theta(o_{i,t} \mid \cdot)",
            means="A times log π: no importance weight, and nothing clipped",
            score=r"\log \pi_\theta(o_{i,t} \mid \cdot)",
        ),
        "ratio": Piece(latex="$ratio A_i", means="the ratio times A, with nothing clipped", score="$ratio"),
        "log_ratio": Piece(latex=r"A_i \log $ratio", means="A times the log of the ratio, with nothing clipped", score=r"\log $ratio"),
        **{
            name: Piece(
                latex=weight + r"m_{i,t}\, A_i \log \pi_\theta(o_{i,t} \mid \cdot)",
                means=f"A times log π, {'times the ratio without gradient, ' if weight else ''}{words}",
                where=r"m_{i,t} = \begin{cases} " + inside + r" \\ 0 & \text{elsewhere} \end{cases}",
            )
            for region, (inside, words) in REGIONS.items()
            for name, weight in ((region, ""), (f"{region}_weighted", r"\operatorname{sg}[$ratio]\, "))
        },
        "clipped_weight": Piece(
            latex=r"\operatorname{sg}\bigl[\operatorname{clip}($ratio,\, $floor,\, $ceiling)\bigr]\, A_i \log \pi_\theta(o_{i,t} \mid \cdot)",
            means="the ratio, held at its bounds, is a weight without gradient: no token ever loses its gradient",
        ),
        "soft_gate": Piece(
            latex=r"\frac{4}{\tau_i}\, \sigma\bigl(\tau_i ($ratio - 1)\bigr)\, A_i",
            means="a sigmoid of the ratio, whose gradient fades on both sides of 1 instead of stopping at a bound",
            where=r"\tau_i = 1 \text{ if } A_i > 0,\ 1.05 \text{ if not}",
        ),
        "gamma_gate": Piece(
            latex=r"\operatorname{sg}\bigl[e^{\lambda_i} $ratio^{\,k_i} e^{-\lambda_i $ratio}\bigr]\, A_i \log \pi_\theta(o_{i,t} \mid \cdot)",
            means="a hump that is 1 at ratio 1 and falls on both sides, as a weight without gradient",
            where=r"(k_i, \lambda_i) = (2, 3) \text{ if } A_i \ge 0,\ (3, 2) \text{ if not}",
        ),
        "dual_clip": Piece(
            latex=r"\max\bigl( c_{i,t},\ 3 \min(A_i, 0) \bigr)",
            means="clip, and where A < 0 no token is pushed by more than three times A",
            where=r"c_{i,t} = \min\bigl( $ratio A_i,\ \operatorname{clip}($ratio,\, $floor,\, $ceiling)\, A_i \bigr)",
        ),
        "geometric_clip": Piece(
            latex=r"\bar{\rho}_i\, A_i",
            means="the geometric mean of the completion's token ratios, each held first on the side A pushes to; bounds in nats",
            where=r"\bar{\rho}_i = \exp\Bigl( \frac{1}{|o_i|} \sum_t \ell_{i,t} \Bigr) \\ "
            r"\ell_{i,t} = \min(\log $ratio,\, $high) \text{ if } A_i > 0,\ \max(\log $ratio,\, -$low) \text{ if not}",
        ),
    },
)
WEIGHTS = Choice(
    title="Token weights W",
    home="algorithms/weights.py",
    pieces={
        "conflict": Piece(
            latex="w_{i,t}",
            means="tokens of a conflict run, which stand alike at the head or tail of better and worse rollouts, weigh more in better ones and 0 in worse ones",
            where=r"w_{i,t} = \begin{cases} $value & (i,t) \in C,\ r_i > b_g \\ 0 & (i,t) \in C,\ r_i < b_g \\ 1 & \text{elsewhere} \end{cases} \\ "
            r"C\text{: conflict runs},\ b_g\text{: the baseline}",
        ),
        "conflict_released": Piece(
            latex=r"\frac{w^{\text{head}}_{i,t}\, w^{\text{tail}}_{i,t}}{\max(1, n_i)}",
            means="the same for head and tail run apart, multiplied, over the length of the longer run: the authors' code",
            where=r"w^{\text{head}}_{i,t} = \begin{cases} $value & \text{in the head run},\ r_i > b_g \\ 0 & \text{in the head run},\ r_i < b_g \\ "
            r"1 & \text{elsewhere} \end{cases} \\ n_i\text{: tokens of the longer run}",
        ),
        "exp_advantage": Piece(latex=r"e^{A_i / $value}", means="exp(A / τ): better rollouts weigh more, worse ones less"),
        "nthr": Piece(
            latex=r"\eta_{i,t}",
            means="tokens of wrong rollouts whose push down would take more from the correct ones than β times the least anchor are damped to 2·|½ − p|",
            where=r"\eta_{i,t} = \begin{cases} 2\, \bigl| \tfrac{1}{2} - p_g \bigr| & o_i \text{ wrong},\ A_i < 0,\ "
            r"s_{i,t} > $value \min_{j \in g^+} \bar{s}_j \\ 1 & \text{elsewhere} \end{cases} \\ "
            r"s_{i,t} = \sum_{j \in g^+} \sum_s \langle e_{j,s}, e_{i,t} \rangle \langle h_{j,s}, h_{i,t} \rangle,\quad "
            r"e_{i,t} = \mathbf{1}_{o_{i,t}} - \pi_{\text{old}}(\cdot \mid o_{i,<t}) \\ "
            r"g^+\text{: correct rollouts},\ p_g\text{: their share},\ h\text{: hidden state},\ \bar{s}_j\text{: mean over tokens}",
        ),
        "mirror": Piece(latex=r"\frac{1}{1 + $value}", means="1 / (1 + τ) on every token"),
        "reference": Piece(
            latex="w_i",
            means="of a worked answer β times as much as of all sampled rollouts of its group together, and λ = 0.6 more of each",
            where=r"w_i = \frac{G + 1}{G} \begin{cases} 1 + \lambda & o_i \text{ sampled} \\ $value\, G + \lambda & o_i = y_g \end{cases} \\ "
            r"\lambda = 0.6,\quad G\text{: sampled rollouts of the group},\quad y_g\text{: its worked answer}",
        ),
        "entropy_filter": Piece(
            latex=r"\delta_i",
            means="completions above this mean token entropy, in nats, are left out, unless the run's first rollouts were above it already",
            where=r"\delta_i = 0 \text{ if } \langle H \rangle_i > $value \ge \langle H \rangle_{\text{first}},\ 1 \text{ if not}",
        ),
        "entropy_filter_always": Piece(
            latex=r"\delta_i",
            means="completions above this mean token entropy, in nats, are left out",
            where=r"\delta_i = 0 \text{ if } \langle H \rangle_i > $value,\ 1 \text{ if not}",
        ),
    },
)
GROUP_OBJECTIVES = Choice(
    title="Objective of a group",
    home="algorithms/group_objectives.py",
    pieces={
        "discriminate": Piece(
            latex=r"\frac{1}{Q} \sum_g \Bigl( \operatorname*{mean}_{i \in g,\, A_i > 0} s_i "
            r"- $value \log \operatorname*{mean}_{i \in g,\, A_i < 0} e^{s_i / $value} \Bigr)",
            means="the mean score of better rollouts less τ · log mean exp(score / τ) of worse ones, so that the likeliest of those count most",
            where=r"s_i = \frac{1}{|o_i|} \sum_t $score,\quad Q \text{: groups}",
        ),
        "regress": Piece(
            latex=r"-\frac{1}{B} \sum_i \Bigl( A_i - "
            r"\frac{s_i - \operatorname*{mean}_{j \in g} s_j}{\max(\operatorname*{std}_{j \in g} s_j,\, $value)} \Bigr)^2",
            means="minus the mean squared difference of A and the score normalised inside the group, its standard deviation held above a floor",
            where=r"s_i = $score",
        ),
    },
)
PENALTIES = Choice(
    title="Regularisers",
    home="algorithms/penalties.py",
    pieces={
        "kl_ref_k3": Piece(
            latex=r"\Bigl( \frac{\pi_{\text{ref}}}{\pi_\theta} - \log \frac{\pi_{\text{ref}}}{\pi_\theta} - 1 \Bigr)_{i,t}",
            means="distance to a frozen copy of the start model, k3 estimate, nats per token",
            averaged=True,
        ),
        "gepo": Piece(
            latex=r"\frac{1}{Q} \sum_g \Bigl( -\log \sigma\bigl( \operatorname*{mean}_{i \in g,\, A_i > 0} \hat{r}_i "
            r"- \operatorname*{mean}_{i \in g,\, A_i < 0} \hat{r}_i \bigr) + \operatorname*{var}_{i \in g,\, A_i > 0} \hat{r}_i \Bigr)",
            means="better rollouts of a group are preferred to worse ones by whole completions' log-ratios to the start model, and better ones kept alike",
            where=r"\hat{r}_i = 0.1 \sum_t \log \frac{\pi_\theta(o_{i,t} \mid \cdot)}{\pi_{\text{ref}}(o_{i,t} \mid \cdot)},\quad "
            r"\operatorname{var} \text{ over } n,\quad Q \text{: groups}",
        ),
        "forward_kl": Piece(
            latex=r"\bigl(-\log \pi_\theta(o_{i,t} \mid \cdot)\bigr)", means="minus log π of every sampled token: all rollouts become likelier", averaged=True
        ),
        "k2_before": Piece(
            latex=r"\Bigl( \log \frac{\pi_\theta(o_{i,t} \mid \cdot)}{\pi_{\text{old}}(o_{i,t} \mid \cdot)} \Bigr)^2",
            means="the squared change of log-prob since sampling",
            averaged=True,
        ),
        "kl_hinge": Piece(
            latex=r"\operatorname{sg}\bigl[\max(0,\, K - 10^{-4})\bigr]\, K",
            means="KL to the policy that sampled, weighed by how far it is above 1e-4 nats per token: half the squared hinge, in gradient",
            where=r"K = \frac{1}{\sum_j |o_j|} \sum_i \sum_t \log \frac{\pi_{\text{old}}(o_{i,t} \mid \cdot)}{\pi_\theta(o_{i,t} \mid \cdot)}",
        ),
        "llds_response": Piece(
            latex=_PRESERVED + r"\mathbf{1}\bigl[\textstyle\sum_s \Delta_{i,s} > \kappa\bigr]" + _HINGE,
            means="fall of log-prob since sampling, of completions with A ≥ 0 that fell as a whole",
            where=_FALL,
        ),
        "llds_action": Piece(
            latex=_PRESERVED + r"\mathbf{1}\bigl[\textstyle\sum_{s \in a(t)} \Delta_{i,s} > \kappa\bigr]" + _HINGE,
            means="the same, of actions that fell as a whole",
            where=_FALL + r",\quad a(t)\text{: the action of token } t",
        ),
        "llds_token": Piece(latex=_PRESERVED + _HINGE, means="the same, of every token that fell", where=_FALL),
    },
)
NORMALISERS = Choice(
    title="Normaliser N",
    home="algorithms/normalisers.py",
    pieces={
        "token": Piece(latex=r"\frac{1}{\sum_j |o_j|} \sum_i \sum_t $x", means="every token of the update weighs the same"),
        "sequence": Piece(latex=r"\frac{1}{B} \sum_i \frac{1}{|o_i|} \sum_t $x", means="every completion weighs the same, a token less in a long one"),
        "sequence_sum": Piece(
            latex=r"\sum_i \frac{1}{|o_i|} \sum_t $x", means="every completion weighs the same, and the loss grows with the number of completions"
        ),
        "row_sum": Piece(latex=r"\frac{1}{B} \sum_i \sum_t $x", means="a completion weighs as much as it is long, and the loss grows with length"),
        "constant": Piece(
            latex=r"\frac{1}{B\, T_{\max}} \sum_i \sum_t $x",
            means="every token weighs the same, and the loss grows with length: the divisor is fixed, rollouts × max_new_tokens",
        ),
    },
)
SAMPLERS = Choice(
    title="Data rule",
    home="tasks/sampler.py",
    pieces={
        "uniform": Piece(latex=r"g \sim \mathcal{D}", means="every sampled group enters the step"),
        "dynamic": Piece(
            latex=r"g \sim \mathcal{D},\quad \min_{j \in g} r_j < \max_{j \in g} r_j",
            means="groups tied in reward are dropped and further prompts sampled in their place",
        ),
        "tracked": Piece(
            latex=r"g \propto \sqrt{\hat{p}_g (1 - \hat{p}_g)} + 0.05",
            means="prompts are drawn without replacement, the more often the less decided their tracked success rate is",
        ),
        "replay_success": Piece(
            latex=r"o_1 \leftarrow \text{success},\quad \operatorname{std}_j r_j < 0.05,\ \operatorname{mean}_j r_j < 0.2",
            means="in a hopeless group one rollout gives way to a stored success of the prompt",
        ),
        "demonstrated": Piece(latex=r"g \leftarrow g \cup \{y_g\}", means="the task's worked answer is one more row of every group"),
        "hinted": Piece(
            latex=r"x_g \leftarrow x_g \oplus y_{g,\le n_g}",
            means="a prompt whose group's mean reward lies below that of the last 100 groups is sampled again behind the beginning of its worked answer",
            where=r"n_g = \bigl\lfloor \min(1, c\, \Delta_g)\, |y_g| \bigr\rfloor,\quad \Delta_g = \overline{r}_{100} - \operatorname*{mean}_{j \in g} r_j",
        ),
    },
)
CHOICES = (VALUES, BASES, NORMS, SCALES, DROPS, WHOLES, SPREADS, SURROGATES, LEVELS, GROUP_OBJECTIVES, WEIGHTS, PENALTIES, NORMALISERS, SAMPLERS)

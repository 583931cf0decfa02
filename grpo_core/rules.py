"""Published rules beside the methods, as data: rewards that look at the whole group, ways to draw prompts, and credit of several parts.

The functions are in tasks/group_rewards.py, the samplers of tasks/ and algorithms/segments.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from grpo_core.method_row import preset_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One published rule. `equation` is LaTeX; `assumes` names what could not be obtained and what stands in for it; `lacks` what keeps
    it from being trained here, empty where a RunConfig option takes its name."""

    name: str
    title: str
    paper: str
    means: str
    equation: str
    assumes: str = ""
    lacks: str = ""

    @property
    def preset(self) -> str:
        """Its name with the paper's arXiv number."""
        return preset_id(self.name, self.paper)

    @property
    def caveats(self) -> str:
        """What it assumes and lacks, in sentences."""
        return f"Assumes {self.assumes}" + (f" Not trained here: it lacks {self.lacks}" if self.lacks else "")


GROUP_REWARDS: dict[str, Rule] = {
    r.name: r
    for r in (
        Rule(
            name="otc", title="OTC-GRPO", paper="arXiv:2504.14870",
            equation=r"\tilde r_i = \alpha\, \mathbf 1[i \text{ right}] \cdot \begin{cases} \sin \dfrac{f_i \pi}{2n},\; f_i = \dfrac{2 n m_i}{m_i + n} & n > 0 \\[1.5ex] \cos \dfrac{m_i \pi}{2 m_i + c} & n = 0 < m_i \\[1.5ex] 1 & n = m_i = 0 \end{cases}",
            means="A correct rollout earns less the further its number of calls is from the fewest that any correct rollout of its group needed; a wrong one "
            "earns nothing.",
            assumes="α = 1 and c = 1, which the paper does not set. A call is a match of mark_pattern; in the arithmetic task, which has no tools, a worked "
            "sum. The fewest calls are those of the group, not the best over the run.",
        ),
        Rule(
            name="e_grpo", title="E-GRPO", paper="arXiv:2510.24694",
            equation=r"\tilde r_i = \begin{cases} 1 & i \text{ right} \\ \alpha\, \gamma_i / \max_{j \in g} \gamma_j & i \text{ wrong} \\ 0 & i \text{ cut} \end{cases}",
            means="A correct rollout earns 1; a wrong one 0.3 times its share of the entities named, over the highest share of its group; one cut at the token "
            "limit nothing: it counts in its group's mean and is left out of the loss.",
            assumes="entities come with the prompt: a column named entities, in the arithmetic task the worked sums of the units and the tens, searched for in the "
            "whole completion.",
        ),
        Rule(
            name="gcpo", title="GCPO (GeometryZero)", paper="arXiv:2506.07160",
            equation=r"\tilde r_i = r_i + w\, M_g\, \mathbf 1[i \text{ used the step}], \quad M_g = \operatorname{sgn}_{\epsilon} \big( \bar c_{\text{used}} - \bar c_{\text{not}} \big)",
            means="Rollouts that took an auxiliary step earn 1 more if those with one are right more often in their group than those without, 1 less if "
            "less often.",
            assumes="a margin of 0.1 and a weight of 1, which could not be read; its length reward is left out for the same reason. The sub-groups are those "
            "that used the step and those that did not, where the paper also forbids it to one of them. A step is a match of mark_pattern.",
        ),
        Rule(
            name="datarus", title="Datarus", paper="arXiv:2508.13382",
            equation=r"\tilde r_i = w_t\, s_i + (1 - w_t)\, r_i, \quad w_t = \tfrac12 \big( 1 + \cos \tfrac{\pi t}{T} \big)",
            means="The reward goes from the form of a completion to its outcome along a cosine over the run: w · structure + (1 − w) · reward.",
            assumes="the cosine form w = ½(1 + cos πt/T). Structure is a match of mark_pattern, and the task's own reward stands in for the semantic reward "
            "model.",
        ),
        Rule(
            name="ps_grpo", title="PS-GRPO (Con-RAG)", paper="arXiv:2510.04392",
            equation=r"\tilde r_i = r_i + w\, \operatorname*{mean}_{j:\, \text{form}_j \ne \text{form}_i} \operatorname{BLEU}_2(o_i, o_j)",
            means="The same question is asked in several forms, and a rollout also earns how alike it is (BLEU-2) to the rollouts of the other forms.",
            assumes="weights of 1 for consistency and reward, which could not be read; all pairs are compared, not a sample. Forms are those of the arithmetic "
            "task.",
        ),
        Rule(
            name="grpo_s", title="GRPO-S (DR-IRL)", paper="arXiv:2503.18991",
            equation=r"A_i = \alpha^D \alpha^M\, \frac{r_i - \bar r}{\operatorname{std}(r)}, \quad \alpha^D = \frac{\sigma(\delta)}{\sigma(\bar\delta)}",
            means="A group's advantages are scaled by how hard its prompt is: α = σ(δ)/σ(mean δ) times the same of the reward model's gaps.",
            assumes="that a large α means hard; sources disagree.",
            lacks="its seven shadow reward models and an embedding model to compare responses with demonstrations; the scales and the scaled advantage are "
            "functions of grpo_core/tasks/group_rewards.py, with tests.",
        ),
    )
}
"""Group-aware rewards by name; those without `lacks` are taken by RunConfig.group_reward."""

PROMPT_SAMPLERS: dict[str, Rule] = {
    r.name: r
    for r in (
        Rule(
            name="vas", title="VAS (MMR1)", paper="arXiv:2509.21268",
            equation=r"\begin{gathered} P(x) = \lambda\, \frac{\mathrm{VPS}(x)}{\sum_y \mathrm{VPS}(y)} + (1 - \lambda)\, \frac1N \\ \mathrm{VPS}(x) = \alpha\, p(1 - p) + \beta\, (1 - \text{self-BLEU}) \end{gathered}",
            means="Variance-aware sampling: prompts whose rollouts disagree, and differ in their words, are drawn more often; the rest of a step is drawn uniformly.",
            assumes="the sign of the paper: diversity adds, without pads, where released code adds self-BLEU itself. Scores come from a pool of prompts, by training "
            "rollouts too, and a prompt without a score counts as the highest.",
        ),
        Rule(
            name="solvable", title="Task filter (ARPO)", paper="arXiv:2505.16282",
            equation=r"P(x) \propto \mathbf 1 \Big[ \textstyle\sum_{k=1}^{16} c_k(x) \ge 1 \Big]",
            means="Only prompts that the start model solves at least once in 16 rollouts are drawn.",
            assumes="the trial is made before the first step, of a pool of prompts; released code has the list made beforehand.",
        ),
    )
}
"""Ways to draw prompts other than uniformly, by their name in RunConfig.prompt_sampler."""

CREDITS: dict[str, Rule] = {
    r.name: r
    for r in (
        Rule(
            name="gigpo", title="GiGPO", paper="arXiv:2505.10978",
            equation=r"\begin{gathered} A_{i,t} = \big( R_i - \operatorname{mean}_j R_j \big) + w\, \big( R_{i,t} - \operatorname{mean}_{(j,s):\, o_{j,s} = o_{i,t}} R_{j,s} \big) \\ R_i = \textstyle\sum_t r_{i,t}, \quad R_{i,t} = r_{i,t} + \gamma R_{i,t+1} \end{gathered}",
            means="A step of an episode is credited twice: with its episode against the group's, and with what follows it against other steps that began at the same observation.",
            assumes="w = 1 and γ = 0.95, and no std, as in two forks of its authors' code, which could not be obtained. Every episode counts once, where that code lets long ones "
            "weigh more.",
            lacks="a task of several turns; the credit is a function of grpo_core/algorithms/segments.py, with worked numbers in its tests.",
        ),
        Rule(
            name="hrpo", title="HRPO (MasHost)", paper="arXiv:2506.08507",
            equation=r"A_{i,a} = \frac{R_i - \operatorname{mean}_j R_j}{\operatorname{std}_j R_j} + w\, r_{i,a}",
            means="An action that builds a system of agents is credited with the finished system against the group's, and with a reward of its own.",
            assumes="this reading of its abstract and of reviews, std over n − 1 and w = 1: its formula could not be obtained.",
            lacks="a task of several turns; the credit is a function of grpo_core/algorithms/segments.py, with worked numbers in its tests.",
        ),
    )
}
"""Credit that adds up several parts, for tasks that are not here yet."""

OPTIONS = {"group_reward": GROUP_REWARDS, "prompt_sampler": PROMPT_SAMPLERS}
"""The RunConfig option that takes each table's names."""

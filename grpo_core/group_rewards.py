"""GROUP_REWARDS: every reward that looks at the whole group, as data; the functions are in tasks/group_rewards.py."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupReward:
    """A published reward that looks at the whole group. `assumes` names what could not be obtained and what stands in for it; `lacks`
    what keeps it from being trained here, empty where RunConfig.group_reward takes its name."""

    name: str
    title: str
    paper: str
    means: str
    assumes: str = ""
    lacks: str = ""


GROUP_REWARDS: dict[str, GroupReward] = {
    r.name: r
    for r in (
        GroupReward(
            name="otc", title="OTC-GRPO", paper="arXiv:2504.14870",
            means="A correct rollout earns less the further its number of calls is from the fewest that any correct rollout of its group needed; a wrong one "
            "earns nothing.",
            assumes="α = 1 and c = 1, which the paper does not set. A call is a match of mark_pattern; in the arithmetic task, which has no tools, a worked "
            "sum. The fewest calls are those of the group, not the best over the run.",
        ),
        GroupReward(
            name="e_grpo", title="E-GRPO", paper="arXiv:2510.24694",
            means="A correct rollout earns 1; a wrong one 0.3 times its share of the entities named, over the highest share of its group; one cut at the token "
            "limit nothing.",
            assumes="entities come with the prompt: a column `entities`, in the arithmetic task the worked sums of the units and the tens, searched for in the "
            "whole completion; rollouts cut at the limit stay in the loss, which the paper takes them out of.",
        ),
        GroupReward(
            name="gcpo", title="GCPO (GeometryZero)", paper="arXiv:2506.07160",
            means="Rollouts that took an auxiliary step earn 1 more if those with one are right more often in their group than those without, 1 less if "
            "less often.",
            assumes="a margin of 0.1 and a weight of 1, which could not be read; its length reward is left out for the same reason. The sub-groups are those "
            "that used the step and those that did not, where the paper also forbids it to one of them. A step is a match of mark_pattern.",
        ),
        GroupReward(
            name="datarus", title="Datarus", paper="arXiv:2508.13382",
            means="The reward goes from the form of a completion to its outcome along a cosine over the run: w · structure + (1 − w) · reward.",
            assumes="the cosine form w = ½(1 + cos πt/T). Structure is a match of mark_pattern, and the task's own reward stands in for the semantic reward "
            "model.",
        ),
        GroupReward(
            name="ps_grpo", title="PS-GRPO (Con-RAG)", paper="arXiv:2510.04392",
            means="The same question is asked in several forms, and a rollout also earns how alike it is (BLEU-2) to the rollouts of the other forms.",
            assumes="weights of 1 for consistency and reward, which could not be read; all pairs are compared, not a sample. Forms are those of the arithmetic "
            "task.",
        ),
        GroupReward(
            name="grpo_s", title="GRPO-S (DR-IRL)", paper="arXiv:2503.18991",
            means="A group's advantages are scaled by how hard its prompt is: α = σ(δ)/σ(mean δ) times the same of the reward model's gaps.",
            assumes="that a large α means hard; sources disagree.",
            lacks="its seven shadow reward models and an embedding model to compare responses with demonstrations; the scales and the scaled advantage are "
            "functions of grpo_core/tasks/group_rewards.py, with tests.",
        ),
    )
}
"""Group-aware rewards by name; those without `lacks` are taken by RunConfig.group_reward."""

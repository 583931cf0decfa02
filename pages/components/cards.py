"""What the run page draws: every chart card as data, and why one of its figures may be missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from grpo_core.config import RunConfig
from grpo_core.methods import METHODS
from pages.components import series


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve: its column of the steps table, the word at its end, its colour; `band` is the column of a ± half width, `between` pairs
    of columns with the area between them shaded. `exact` ones are never smoothed, `sparse` ones are points."""

    column: str
    label: str
    colour: str
    dash: str = "solid"
    band: str = ""
    between: tuple[tuple[str, str], ...] = ()
    sparse: bool = False
    exact: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Curves over one y axis. `share` is its part of the card's height; `short` tells its curves from those of the panels above."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    short: str = ""
    share: float = 1.0
    stacked: bool = False
    may_be_log: bool = False
    zero: bool = False
    bounds: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """Panels over one x axis in one frame; `means` is what a reader new to the figure needs."""

    key: str
    title: str
    means: str
    panels: tuple[Panel, ...]
    height: int

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(line.column for panel in self.panels for line in panel.lines)


CARDS: dict[str, Card] = {
    card.key: card
    for card in (
        Card(
            key="reward",
            title="Reward",
            height=440,
            means="Mean total reward of each step; the band is one standard deviation inside a group. Below, the share of correct rollouts in training "
            "(sampled) and on held-out prompts (greedy).",
            panels=(
                Panel(
                    title="Mean reward, band ± group std",
                    unit="reward",
                    share=1.6,
                    lines=(Line(column="reward_mean", label="Reward", colour="c0", band="reward_group_std"),),
                ),
                Panel(
                    title="Correct",
                    unit="share",
                    zero=True,
                    lines=(
                        Line(column="correct_rate", label="Training", colour="c2"),
                        Line(column="eval_correct", label="Held-out", colour="c3", sparse=True),
                    ),
                ),
            ),
        ),
        Card(
            key="likelihood",
            title="Likelihood of correct and wrong rollouts",
            height=440,
            means="Mean log-prob per token before the step's updates, of correct and of wrong rollouts. Below, how much the step's updates moved it: "
            "correct rollouts becoming less likely is likelihood displacement. Last, the log-prob of the task's own worked answers to held-out prompts: "
            "the same texts every time, so no change of what is sampled can hide a fall.",
            panels=(
                Panel(
                    title="Log-prob before the update",
                    unit="nats/token",
                    share=1.6,
                    lines=(
                        Line(column="logp_correct", label="Correct", colour="c0"),
                        Line(column="logp_wrong", label="Wrong", colour="c1", dash="dash"),
                    ),
                ),
                Panel(
                    title="Change by the update",
                    short="change",
                    unit="nats/token",
                    lines=(
                        Line(column="delta_correct", label="Correct", colour="c0"),
                        Line(column="delta_wrong", label="Wrong", colour="c1", dash="dash"),
                    ),
                ),
                Panel(
                    title="Worked answers to held-out prompts",
                    unit="nats/answer",
                    lines=(Line(column="eval_gold_logp", label="Worked", colour="c3", sparse=True),),
                ),
            ),
        ),
        Card(
            key="entropy",
            title="Entropy",
            height=220,
            means="How undecided the policy is about the next token, from the full distribution at the sampling temperature.",
            panels=(Panel(title="Token entropy", unit="nats/token", zero=True, lines=(Line(column="entropy", label="Entropy", colour="c2"),)),),
        ),
        Card(
            key="grad_norm",
            title="Gradient norm",
            height=220,
            means="Size of the gradient before clipping: mean and largest of the step's updates.",
            panels=(
                Panel(
                    title="Gradient norm before clipping",
                    unit="L2",
                    zero=True,
                    may_be_log=True,
                    lines=(
                        Line(column="grad_norm", label="Mean", colour="c3"),
                        Line(column="grad_norm_max", label="Largest", colour="c4", dash="dot"),
                    ),
                ),
            ),
        ),
        Card(
            key="kl",
            title="KL divergence",
            height=220,
            means="Three different distances: what the step's updates changed, how far the policy is from the reference model, and how far the sampler is "
            "from the trainer (numerical or engine mismatch).",
            panels=(
                Panel(
                    title="KL, k3 estimate",
                    unit="nats/token",
                    may_be_log=True,
                    lines=(
                        Line(column="kl_step", label="Step", colour="c0"),
                        Line(column="kl_ref", label="Reference", colour="c1", dash="dash"),
                        Line(column="kl_sampler", label="Sampler", colour="c4", dash="dot"),
                    ),
                ),
            ),
        ),
        Card(
            key="clip",
            title="Clipped tokens",
            height=220,
            means="Share of loss tokens whose probability ratio was held at the lower or upper bound, so that they stop pushing.",
            panels=(
                Panel(
                    title="Share held at a bound",
                    unit="share",
                    zero=True,
                    lines=(
                        Line(column="clip_high", label="Upper", colour="c0"),
                        Line(column="clip_low", label="Lower", colour="c1", dash="dash"),
                    ),
                ),
            ),
        ),
        Card(
            key="groups",
            title="Groups that teach nothing",
            height=300,
            means="Share of groups whose rollouts are all wrong, all correct, or otherwise equal in reward. Equal rewards mean an advantage of exactly 0.",
            panels=(
                Panel(
                    title="Share of groups, stacked",
                    unit="share",
                    stacked=True,
                    bounds=(0, 1),
                    lines=(
                        Line(column="share_all_fail", label="All wrong", colour="c1"),
                        Line(column="share_all_pass", label="All correct", colour="c0"),
                        Line(column="share_other_tied", label="Tied", colour="c4"),
                    ),
                ),
            ),
        ),
        Card(
            key="length",
            title="Length and truncation",
            height=300,
            means="Completion length in tokens, and the share of completions cut at the token limit.",
            panels=(
                Panel(
                    title="Completion length",
                    unit="tokens",
                    share=1.4,
                    zero=True,
                    lines=(
                        Line(column="length_mean", label="Mean", colour="c2"),
                        Line(column="length_max", label="Longest", colour="c4", dash="dot"),
                    ),
                ),
                Panel(title="Cut at the limit", unit="share", zero=True, lines=(Line(column="truncated_rate", label="Truncated", colour="c1"),)),
            ),
        ),
    )
}


def missing_columns(card: Card, steps: pd.DataFrame) -> list[str]:
    """The card's columns that hold no value at all."""
    return [name for name in card.columns if np.isnan(series.column(steps, name)).all()]


NEEDS_GROUPS = (
    "reward_group_std", "diversity", "share_all_fail", "share_all_pass", "share_other_tied", "pass_at_half", "pass_at_size",
    "uniform_observed", "uniform_expected", *(f"outcome_{name}" for name in ("mixed", "all_fail", "all_pass", "tied", "failed")),
)  # fmt: skip


def why_missing(column: str, config: RunConfig) -> str:
    """Why a column of the steps table has no value in a run with this configuration."""
    if column in ("clip_low", "clip_high"):
        if METHODS[config.method].clip is None:
            return f"{config.method} does not clip"
        if config.updates_per_rollout == 1 and not config.replays:
            return "with one update per rollout batch it is zero by construction"
    if column == "kl_ref" and not (config.kl_coef or 0):
        return "no reference model is kept while kl_coef is 0"
    if column == "eval_gold_logp" and config.task == "dataset":
        return "a dataset has answers, but no worked ones"
    if column.startswith("eval_"):
        return "evaluation is off (eval_every is 0)" if config.eval_every == 0 else "no evaluation yet"
    if column.startswith(("share_conflict", "share_pushed", "share_divided")):
        return "no group had advantages of both signs, or the run was recorded before conflicts were counted"
    if column.startswith("delta_") or column == "kl_step":
        return "rescoring is off (rescore is 0)" if config.rescore == 0 else "no such rollout has been rescored yet"
    if config.group_size == 1 and column in NEEDS_GROUPS:
        return "with one rollout per prompt nothing differs inside a group"
    if column.endswith("_correct"):
        return "no rollout has been correct yet"
    if column.endswith("_wrong"):
        return "no rollout has been wrong yet"
    return "nothing recorded yet"

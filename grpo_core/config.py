"""The frozen configuration of a run: every option once, with its unit, default and meaning; no torch.

The CLI flags, the launch form, `--help` and config.json are all made from `RunConfig`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from grpo_core.errors import ConfigError
from grpo_core.method_row import Method
from grpo_core.methods import METHODS, method_name, unknown_method
from grpo_core.rules import OPTIONS

SECTIONS = {
    "run": "Run",
    "model": "Model",
    "task": "Task and rewards",
    "rollout": "Rollouts",
    "method": "Method",
    "optimizer": "Optimizer",
    "record": "Recording, evaluation, checkpoints",
}


def option(default, section: str, means: str, *, unit: str = "", **limits):
    """A field of RunConfig: its section in the form, its unit (empty for names and switches) and one sentence."""
    return Field(default, description=means, json_schema_extra={"section": section, "unit": unit}, **limits)

_REPLAY_ONLY = ("replay_share", "replay_max_age")
_MARKED = ("otc", "gcpo", "datarus")
_FILTER_ONLY = ("filter_pool", "filter_rollouts")
_VAS_ONLY = ("vas_mixture", "vas_alpha", "vas_beta", "vas_pool", "vas_refresh", "vas_rollouts", "vas_momentum", "vas_reuse")
_DATASET_ONLY = ("data", "split", "prompt_column", "answer_column", "gold_column", "system_prompt", "chat_template", "reward_pattern")


class RunConfig(BaseModel):
    """All settings of one run. Immutable; made and checked in one go; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    name: str = option("", "run", "A name for people; empty makes one from method and task.", max_length=120)
    seed: int = option(0, "run", "Seed of every random choice but tiny's warm-up, which is the same for all runs: prompts, sampling, LoRA.", ge=0, le=2**31 - 1)
    steps: int = option(150, "run", "Training steps; one step is a rollout batch and all updates made on it.", unit="steps", ge=1, le=10_000_000)
    device: Literal["auto", "cpu", "cuda"] = option("auto", "run", "Where to compute; auto takes a GPU if there is one.")
    threads: int = option(1, "run", "CPU threads for tensor maths; 0 leaves torch's own choice.", unit="threads", ge=0, le=256)

    model: str = option("tiny", "model", "tiny (built here, no download), a Hugging Face id, or a local path.", min_length=1)
    dtype: Literal["auto", "float32", "bfloat16"] = option("auto", "model", "Number format of the weights; auto is bfloat16 on a GPU and float32 on a CPU.")
    warmup_steps: int = option(250, "model", "Supervised steps that teach the tiny model its task before training; cached.", unit="steps", ge=0, le=100_000)
    lora_rank: int = option(0, "model", "Rank of LoRA adapters through peft; 0 trains all weights.", unit="rank", ge=0, le=1024)
    lora_alpha: float = option(16.0, "model", "LoRA scale numerator (alpha / rank multiplies the adapter).", gt=0)

    task: Literal["arithmetic", "ranking", "dataset"] = option("arithmetic", "task", "arithmetic (built in: a+b with a worked column sum), ranking (built in: list the three largest of five numbers) or dataset (your own prompts and answers).")
    data: str = option("", "task", "For the dataset task: a .jsonl or .parquet file, or a datasets path or id, ID:SUBSET where it has subsets.")
    split: str = option("train", "task", "For the dataset task with a datasets path: the split to train on.")
    prompt_column: str = option("prompt", "task", "For the dataset task: column with the prompt (text, or a list of chat messages).")
    answer_column: str = option("answer", "task", "For the dataset task: column with the expected answer.")
    gold_column: str = option("", "task", "For the dataset task: column with a worked completion, where there is one; tiny's warm-up learns it, and evaluation and the probe set follow its likelihood.")
    system_prompt: str = option("", "task", "For the dataset task: system message put before every prompt; needs a chat template.")
    chat_template: Literal["auto", "always", "never"] = option("auto", "task", "For the dataset task: wrap prompts in the tokenizer's chat template; auto does so if it has one.")
    rewards: tuple[str, ...] = option((), "task", "Rewards to add up, each NAME or NAME=WEIGHT with NAME exact, numeric, regex, math or module:function in the dataset task, exact, form (of the worked sum) or module:function in the arithmetic task; empty is exact.")
    reward_pattern: str = option("", "task", "Regular expression of the regex reward and the answer extractor: its first group is the answer.")
    correct_at: float = option(0.5, "task", "A rollout counts as correct when its first reward part, unweighted, is at least this.", unit="reward")
    group_reward: Literal["none", "otc", "e_grpo", "gcpo", "datarus", "ps_grpo"] = option("none", "task", "A rule that looks at all rollouts of a group and shapes their rewards; docs/methods.md says what each assumes.")
    group_reward_weight: float = option(0.0, "task", "Weight α of the group_reward; 0 takes the rule's own.", ge=0.0)
    mark_pattern: str = option("", "task", "Regular expression of what group_reward looks for in a completion: a call (otc, counted), an auxiliary step (gcpo), the wanted structure (datarus). Empty takes the arithmetic task's own.")
    paraphrases: int = option(1, "task", "Forms in which each question of the arithmetic task is asked, each a group of its own; ps_grpo compares them.", unit="forms", ge=1, le=3)
    overlong_buffer: int = option(0, "task", "Length penalty: rewards fall linearly by 1 over the last this many tokens before the limit; 0 is off.", unit="tokens", ge=0)

    prompts_per_step: int = option(16, "rollout", "Groups per step.", unit="prompts", ge=1, le=65_536)
    group_size: int = option(8, "rollout", "Rollouts per prompt; 1 only with methods that compare nothing inside a group, such as spo.", unit="rollouts", ge=1, le=1024)
    max_new_tokens: int = option(24, "rollout", "Longest completion.", unit="tokens", ge=1, le=131_072)
    temperature: float = option(1.0, "rollout", "Sampling temperature; log-probs and entropies are taken at it.", gt=0.0, le=10.0)
    top_p: float = option(1.0, "rollout", "Nucleus sampling: keep the smallest set of tokens with this much probability; 1 keeps all.", unit="probability", gt=0.0, le=1.0)
    stop: tuple[str, ...] = option((), "rollout", "Strings that end a completion, kept in its text.")
    prompt_sampler: Literal["uniform", "vas", "solvable"] = option("uniform", "rollout", "How prompts are drawn: all alike, by how much their rollouts disagree (vas: variance-aware sampling, MMR1), or only those the start model solves at least once (solvable: ARPO's task filter).")
    vas_mixture: float = option(0.5, "rollout", "Share λ of a step's prompts that VAS draws by score; the rest is drawn uniformly.", unit="share", ge=0.0, le=1.0)
    vas_alpha: float = option(0.8, "rollout", "Weight of the outcome variance p(1-p) in the VAS score.", ge=0.0)
    vas_beta: float = option(0.2, "rollout", "Weight of the diversity 1 - self-BLEU in the VAS score.", ge=0.0)
    vas_pool: int = option(256, "rollout", "Training prompts that VAS keeps scores of; 0 is all of them.", unit="prompts", ge=0)
    vas_refresh: int = option(28, "rollout", "VAS scores its whole pool with fresh rollouts every this many steps; 0 never, then training rollouts alone do.", unit="steps", ge=0)
    vas_rollouts: int = option(8, "rollout", "Rollouts per prompt of a VAS refresh.", unit="rollouts", ge=2)
    vas_momentum: float = option(0.0, "rollout", "Share of a prompt's old VAS score that a new one keeps; 0 forgets it.", unit="share", ge=0.0, lt=1.0)
    vas_reuse: Literal["yes", "no"] = option("yes", "rollout", "Whether training rollouts update VAS scores between refreshes, which costs nothing.")
    filter_pool: int = option(256, "rollout", "Training prompts that the task filter tries before the first step; 0 is all of them.", unit="prompts", ge=0)
    filter_rollouts: int = option(16, "rollout", "Rollouts per prompt of the task filter; one must be correct.", unit="rollouts", ge=1)
    replay_size: int = option(0, "rollout", "Groups of earlier steps that a replay buffer holds, with the log-probs they were written with; 0 is off.", unit="groups", ge=0)
    replay_share: float = option(0.25, "rollout", "Share of a step's groups that are replayed, as far as the buffer has them; the rest is sampled.", unit="share", gt=0.0, lt=1.0)
    replay_max_age: int = option(8, "rollout", "Replay nothing written longer ago than this.", unit="steps", ge=1)
    generation_batch: int = option(256, "rollout", "Rollouts sampled side by side.", unit="rollouts", ge=1)

    method: str = option("grpo", "method", "A row of the methods table, by its name or its preset id with the paper's number; `python -m grpo_core methods` lists them.")
    epochs: int = option(2, "method", "Passes over each rollout batch.", unit="passes", ge=1, le=64)
    minibatches: int = option(1, "method", "Updates per pass; every minibatch holds whole groups.", unit="minibatches", ge=1)
    clip_low: float | None = option(None, "method", "Lower clip distance; empty takes the method's own.", unit="ratio", ge=0.0, le=1.0)
    clip_high: float | None = option(None, "method", "Upper clip distance; empty takes the method's own.", unit="ratio", ge=0.0, le=100.0)
    clip_cap: float | None = option(None, "method", "No ratio counts as more than this, also where the advantage is negative (two-sided clipping; TRL's delta, verl's clip_ratio_c). Empty does not cap.", unit="ratio", gt=1.0)
    kl_coef: float | None = option(None, "method", "Weight of KL(policy ‖ reference), k3 estimate; above 0 a frozen copy of the start model is kept. Empty takes the method's own.", ge=0.0)
    llds_coef: float | None = option(None, "method", "Weight λ of the likelihood-displacement penalty of LLDS methods; empty takes the method's own.", ge=0.0)
    llds_gate: Literal["response", "action", "token"] = option("response", "method", "What must have become less likely as a whole before LLDS acts: the completion, an action of it (an unbroken run of trained tokens; a single-turn completion is one), or each token.")
    llds_normaliser: Literal["preserve", "loss"] = option("preserve", "method", "LLDS is divided by the tokens with A ≥ 0 (preserve, as in the paper) or by all loss tokens (loss, as in its code).")
    llds_answer_weight: float = option(1.0, "method", "Weight β of final-answer tokens in LLDS (LLDS-MA); 1 is off.", ge=0.0, le=1.0)
    gtpo_entropy_coef: float | None = option(None, "method", "Weight γ with which GTPO takes a completion's mean entropy off its advantage; empty takes the method's own.", unit="advantage/nat", ge=0.0)
    gtpo_conflict_weight: float | None = option(None, "method", "What a conflict token of a better completion weighs in GTPO; empty takes the method's own.", unit="× other tokens", ge=0.0)
    nthr_beta: float | None = option(None, "method", "Threshold β of NTHR; tokens of wrong completions that score above β times the least correct completion are damped. Empty takes the method's own.", unit="× anchor")
    gtpo_code: Literal["paper", "released"] = option("paper", "method", "GTPO as published, or with the departures of its authors' code; docs/methods.md lists them.")
    opmd_tau: float | None = option(None, "method", "Temperature τ of OPMD: its step is divided by 1 + τ, and its log-average-exp baseline is taken at it; empty takes the method's own.", unit="reward", ge=0.01)
    asymre_shift: float | None = option(None, "method", "How far AsymRE's baseline lies below the group's mean; empty takes the method's own.", unit="reward", ge=0.0)
    forward_kl_coef: float | None = option(None, "method", "Weight of −log π of every sampled token in REC and RED, which makes all rollouts likelier; empty takes the method's own.", ge=0.0)
    k2_coef: float | None = option(None, "method", "Weight of the squared change of a token's log-prob since it was sampled (OPMD of Kimi k1.5); empty takes the method's own.", unit="1/nat²", ge=0.0)
    red_temperature: float | None = option(None, "method", "Temperature τ of RED-Weight, in which a rollout weighs exp(A / τ); empty takes the method's own.", unit="advantage", ge=0.01)
    disco_beta: float | None = option(None, "method", "Weight β of DisCO's squared hinge on the KL to the policy that sampled; empty takes the method's own.", unit="1/nat", ge=0.0)
    disco_tau: float | None = option(None, "method", "Temperature τ at which DisCO weighs wrong completions by their score; large ones weigh all alike. Empty takes the method's own.", unit="score", ge=0.01)
    reg_floor: float | None = option(None, "method", "Floor of reg_grpo; the standard deviation by which it divides a group's log-ratios is at least this. Empty takes the method's own.", unit="nats", ge=1e-4)
    hint_strength: float = option(0.5, "method", "Share of its worked answer that a prompt of reg_grpo is given as a hint, for each reward that its rollouts stay below the mean of the last 100 groups; 0 gives none. Without worked answers there are no hints.", unit="share/reward", ge=0.0, le=100.0)
    spo_pool: int = option(1024, "method", "Training prompts that SPO tracks and draws from; 0 is all of them.", unit="prompts", ge=0)
    spo_init: int = option(8, "method", "Rollouts per prompt of the pool before the first step, from which SPO's trackers start; 0 starts them all at 1/2.", unit="rollouts", ge=0)
    rank_decay: Literal["log_decay", "exp_inf"] = option("log_decay", "method", "What an item of a list earns in rank_grpo: the discounted hits from its rank on (log_decay), or its own hit alone (exp_inf).")
    gepo_coef: float | None = option(None, "method", "Weight of GEPO's preference of correct over wrong rollouts, beside REINFORCE++; empty takes the method's own.", ge=0.0)
    preferences: str = option("", "method", "For gepo: a .jsonl or .parquet file with columns prompt, chosen and rejected (a completion or a list of them each), from which its preference is taken as a second stream beside the rollouts; empty takes it from the rollouts' own groups.")
    preference_groups: int = option(8, "method", "Prompts of the preference file that every update of gepo reads.", unit="prompts", ge=1)
    grao_imitation: float | None = option(None, "method", "Weight β of the worked answer in GRAO, against all sampled rollouts of its group together; empty takes the method's own.", ge=0.0)
    max_sampling_rounds: int = option(4, "method", "Dynamic sampling gives up after this many rounds of prompts in one step and trains on what it has.", unit="rounds", ge=1, le=100)

    lr: float = option(2e-4, "optimizer", "AdamW learning rate. 2e-4 suits tiny; a real model wants about 1e-6, LoRA about 1e-5.", unit="1/update", gt=0.0, le=1.0)
    lr_warmup: int = option(0, "optimizer", "Updates over which the learning rate rises linearly from 0.", unit="updates", ge=0)
    weight_decay: float = option(0.0, "optimizer", "AdamW decoupled weight decay.", ge=0.0, le=1.0)
    grad_clip: float = option(1.0, "optimizer", "Largest gradient norm; 0 does not clip.", unit="L2 norm", ge=0.0)
    micro_batch: int = option(0, "optimizer", "Rollouts per forward and backward pass; gradients add up to the same loss. 0 takes a whole minibatch at once.", unit="rollouts", ge=0)

    record: Literal["full", "off"] = option("full", "record", "full keeps every rollout and token; off trains without recording.")
    rescore: float = option(1.0, "record", "Share of groups scored again after the last update, which is what likelihood displacement is measured from.", unit="share", ge=0.0, le=1.0)
    nthr_every: int = option(0, "record", "Measure on every this many steps which tokens of wrong completions pull correct ones of their group down (NTHR, GWHES); one more forward pass. 0 never.", unit="steps", ge=0)
    precision: Literal["rounded", "exact", "half"] = option("rounded", "record", "Stored precision of token traces: rounded keeps 10 mantissa bits, half 7, exact all 23.")
    retention: Literal["all", "every", "flagged", "budget"] = option("all", "record", "Tokens of old steps that are kept: all, those of every n-th step, those of groups that figures flag as evidence, or as much as fits a budget. Figures, texts and flagged evidence are kept for ever; docs/retention.md says how.")
    retention_every: int = option(10, "record", "For retention=every: keep the tokens of every this many steps.", unit="steps", ge=2)
    retention_budget: float = option(0.0, "record", "For retention=budget: what token lists may take on disk; the oldest steps go first.", unit="GB", ge=0.0)
    retention_recent: int = option(64, "record", "Newest steps that keep their tokens under any retention.", unit="steps", ge=0)
    queue_steps: int = option(64, "record", "Steps the recorder may hold before it drops (and counts) one rather than slow training.", unit="steps", ge=1)
    eval_every: int = option(10, "record", "Evaluate on held-out prompts every this many steps; 0 never.", unit="steps", ge=0)
    eval_prompts: int = option(128, "record", "Held-out prompts per evaluation.", unit="prompts", ge=1)
    probe_every: int = option(2, "record", "Score the probe set every this many steps; 0 never.", unit="steps", ge=0)
    probe_answers: int = option(64, "record", "Probe set: known answers of so many held-out prompts, always the same ones, to follow their likelihood.", unit="answers", ge=1)
    checkpoint_every: int = option(50, "record", "Write a checkpoint every this many steps; 0 only when the run ends or is stopped.", unit="steps", ge=0)
    checkpoints_kept: int = option(2, "record", "Newest checkpoints to keep.", unit="checkpoints", ge=1)

    diagnose_every: int = option(5, "record", "While training, diagnose the run every this many steps, in a process beside it; 0 never.", unit="steps", ge=0)
    on_collapse: Literal["alert", "stop", "checkpoint_and_stop"] = option("alert", "record", "What else to do when the diagnosis turns unhealthy or collapsed: record an alert and go on, stop at once, or stop with a checkpoint. A resumed run stops again only if it gets worse.")
    webhook: str = option("", "record", "An http or https address that gets every alert as JSON; empty tells nobody.")

    @field_validator("webhook")
    @classmethod
    def _webhook_is_an_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not set(url) & set(" \t\r\n")
        except ValueError:
            fits = False
        if url and not fits:
            raise ValueError(f"webhook={url!r} is no http or https address; try https://example.org/hook")
        return url

    @field_validator(*OPTIONS, mode="before")
    @classmethod
    def _rule_by_preset(cls, text: object, info: ValidationInfo) -> object:
        return next((rule.name for rule in OPTIONS[info.field_name].values() if text == rule.preset), text)

    @field_validator("method")
    @classmethod
    def _method_exists(cls, text: str) -> str:
        name = method_name(text)
        if name is None:
            raise ValueError(unknown_method(text))
        return name

    @model_validator(mode="after")
    def _fits_together(self) -> RunConfig:
        method = METHODS[self.method]
        if self.group_size < 2 and method.compares_groups:
            alone = ", ".join(m.name for m in METHODS.values() if not m.compares_groups)
            raise ValueError(
                f"group_size={self.group_size} leaves no other rollout to compare with, as method {self.method} does, so every advantage would be 0 or undefined; "
                f"try 8, or a method that does without: {alone}"
            )
        if self.prompts_per_step % self.minibatches:
            raise ValueError(
                f"minibatches={self.minibatches} does not divide the {self.prompts_per_step} prompts of a step, and a group may not be split; "
                f"try {_largest_divisor(self.prompts_per_step, self.minibatches)}"
            )
        for knob in self._departing(sorted(frozenset().union(*(m.knobs for m in METHODS.values())) - method.knobs)):
            default = type(self).model_fields[knob].default
            users = ", ".join(sorted(m.name for m in METHODS.values() if knob in m.knobs))
            rest = "leave it empty" if default is None else f"leave it at {default}"
            raise ValueError(f"{knob} is set but method {self.method} does not read it; {rest} or take one of {users}")
        if self.prompt_sampler != "vas" and (unread := self._departing(_VAS_ONLY)):
            raise ValueError(f"{', '.join(unread)}: read only with prompt_sampler=vas; leave it at its default or set prompt_sampler=vas")
        if self.prompt_sampler != "solvable" and (unread := self._departing(_FILTER_ONLY)):
            raise ValueError(f"{', '.join(unread)}: read only with prompt_sampler=solvable; leave it at its default or set prompt_sampler=solvable")
        if not self.replay_size and (unread := self._departing(_REPLAY_ONLY)):
            raise ValueError(f"{', '.join(unread)}: read only with a replay buffer; leave it at its default or set replay_size=64")
        self._retention_fits()
        if self.prompt_sampler != "uniform" and method.sampler == "tracked":
            raise ValueError(f"prompt_sampler={self.prompt_sampler} is not read by method {self.method}, which draws prompts by its trackers; set prompt_sampler=uniform")
        if self.vas_alpha + self.vas_beta == 0:
            raise ValueError("vas_alpha and vas_beta are both 0, so every VAS score would be 0; the paper has 0.8 and 0.2")
        if self.task == "dataset" and not self.data:
            raise ValueError("task=dataset needs data: a .jsonl or .parquet file, or a datasets path")
        if self.task != "dataset":
            unread = self._departing(_DATASET_ONLY)
            unread += ["rewards"] if self.rewards and self.task == "ranking" else []
            if unread:
                raise ValueError(f"{', '.join(unread)}: not read by the {self.task} task, which brings its own prompts and reward; leave it empty or set task=dataset")
        for name, value in method.asks.items():
            if getattr(self, name) != value:
                raise ValueError(f"method {self.method} needs what {name}={getattr(self, name)} does not give: a reward for every item of a list; set {name}={value}")
        if not self.preferences and self._departing(["preference_groups"]):
            raise ValueError("preference_groups is not read without preferences; leave it at 8 or name a file in preferences")
        upper = 1 + self.strength("clip_high", method.clip[1] if method.clip else 0.0)
        if self.clip_cap is not None and self.clip_cap < upper:
            raise ValueError(f"clip_cap={self.clip_cap:g} lies below the upper clip bound of {upper:g}, which holds positive advantages already; try 4")
        self._demonstrations_fit(method)
        self._hints_fit(method)
        self._group_reward_fits(method)
        if self.overlong_buffer >= self.max_new_tokens:
            raise ValueError(
                f"overlong_buffer={self.overlong_buffer} covers the whole {self.max_new_tokens} tokens of a completion; "
                f"try {self.max_new_tokens // 4}"
            )
        return self

    def _departing(self, names: Iterable[str]) -> list[str]:
        """Those of these options that are not at their default."""
        return [name for name in names if getattr(self, name) != type(self).model_fields[name].default]

    def _retention_fits(self) -> None:
        """Raise ValueError for a setting of a retention policy that this run's policy does not read, or a budget of nothing."""
        for name, policy in (("retention_every", "every"), ("retention_budget", "budget")):
            if self.retention != policy and self._departing([name]):
                raise ValueError(f"{name} is read only with retention={policy}; leave it at {type(self).model_fields[name].default:g} or set retention={policy}")
        if self.retention == "all" and self._departing(["retention_recent"]):
            raise ValueError("retention_recent is not read with retention=all, which thins nothing; leave it at 64 or set retention=flagged")
        if self.retention == "budget" and not self.retention_budget:
            raise ValueError("retention=budget needs a budget above 0; try retention_budget=2, which is 2 GB of token lists")

    def _demonstrations_fit(self, method: Method) -> None:
        """Raise ValueError where a method's worked answers are missing or would be judged otherwise than the rollouts."""
        if method.sampler == "demonstrated" and self.task == "dataset" and not self.gold_column:
            raise ValueError(f"method {method.name} trains on a worked answer beside the rollouts; set gold_column to a column with worked completions")
        if method.sampler == "demonstrated" and self.group_reward != "none":
            raise ValueError(f"group_reward={self.group_reward} shapes sampled rollouts alone, and method {method.name} compares them with a worked answer; leave it at none")

    def _hints_fit(self, method: Method) -> None:
        """Raise ValueError where hints are asked for and the task has none, or where what they leave to write would be judged by its own length and form."""
        default = type(self).model_fields["hint_strength"].default
        if method.sampler == "hinted" and not self.hints and self.hint_strength not in (0, default):
            raise ValueError(
                f"hint_strength={self.hint_strength:g} asks for hints, which are the beginnings of worked answers; set gold_column to a column with worked "
                f"completions, or leave it at {default:g}, which gives none without them"
            )
        if self.hints and self.group_reward != "none":
            raise ValueError(
                f"group_reward={self.group_reward} compares what the rollouts of a group wrote, and method {method.name} gives part of the answer as a hint; "
                "set hint_strength=0 or leave group_reward at none"
            )

    def _group_reward_fits(self, method: Method) -> None:
        """Raise ValueError for a group_reward, or a setting of one, that cannot do anything."""
        rule = self.group_reward
        if rule == "none" and self.group_reward_weight:
            raise ValueError("group_reward_weight is not read without a group_reward; leave it at 0 or choose one")
        if rule != "none" and any(c.value == "parts" for c in method.credit):
            raise ValueError(f"method {self.method} takes the parts of the reward apart and would not see what group_reward={rule} makes of their sum; leave it at none")
        if rule == "datarus" and self.group_reward_weight:
            raise ValueError("group_reward_weight is not read by group_reward=datarus, whose weight follows the cosine schedule; leave it at 0")
        if rule not in _MARKED and self.mark_pattern:
            raise ValueError(f"mark_pattern is read only with group_reward={', '.join(_MARKED)}; leave it empty or choose one")
        if rule in _MARKED and self.task != "arithmetic" and not self.mark_pattern:
            raise ValueError(f"group_reward={rule} needs mark_pattern to know what it looks for in a completion; try mark_pattern='<tool_call>'")
        try:
            re.compile(self.mark_pattern)
        except re.error as error:
            raise ValueError(f"mark_pattern={self.mark_pattern!r} is no regular expression ({error}); try <tool_call>") from None
        if rule != "none" and self.group_size == 1 and rule not in ("datarus", "ps_grpo"):
            raise ValueError(f"group_reward={rule} compares the rollouts of a group, and group_size=1 leaves none to compare; try group_size=8")
        if self.paraphrases > 1 and self.task != "arithmetic":
            raise ValueError(f"paraphrases={self.paraphrases}: only the arithmetic task knows other forms of its questions; leave it at 1")
        if rule == "ps_grpo" and self.paraphrases < 2:
            raise ValueError("group_reward=ps_grpo compares forms of the same question, and paraphrases=1 has one; set paraphrases=2 with the arithmetic task")
        if self.prompts_per_step % self.paraphrases:
            raise ValueError(
                f"paraphrases={self.paraphrases} does not divide the {self.prompts_per_step} prompts of a step, and a question is asked in all its forms at once; "
                f"try prompts_per_step={self.prompts_per_step // self.paraphrases * self.paraphrases or self.paraphrases}"
            )
        if self.paraphrases > 1 and (self.prompt_sampler != "uniform" or self.replay_size or method.sampler == "tracked"):
            raise ValueError("paraphrases above 1 draw whole questions, which other ways to draw prompts and a replay buffer do not; set paraphrases=1")

    @property
    def updates_per_rollout(self) -> int:
        """Optimizer updates made on each rollout batch."""
        return self.epochs * self.minibatches

    @property
    def replays(self) -> bool:
        """Whether rollouts of older policies may be among those trained on, so that ratios differ from 1 at the first update too."""
        return bool(self.replay_size) or self.method_row.sampler == "replay_success"

    @property
    def hints(self) -> bool:
        """Whether hard prompts are sampled again behind a hint: the method's rule asks for it, and the task has worked answers to take it from."""
        return self.method_row.sampler == "hinted" and self.hint_strength > 0 and (self.task != "dataset" or bool(self.gold_column))

    @property
    def method_row(self) -> Method:
        """The row of the methods table that this run trains with, as published or as released."""
        method = METHODS[self.method]
        return method.as_released() if method.released_knob and getattr(self, method.released_knob) == "released" else method

    def strength(self, knob: str, own: float) -> float:
        """What an option says that may be empty, `own` where it is, or where there is no such option."""
        value = getattr(self, knob) if knob else None
        return own if value is None else value

    @property
    def title(self) -> str:
        return self.name or f"{self.method} on {Path(self.data).stem if self.task == 'dataset' else self.task}"

    def with_changes(self, **changes) -> RunConfig:
        """A checked copy with some fields changed (raises ConfigError like make_config)."""
        return make_config({**self.model_dump(), **changes})

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"


def make_config(settings: dict) -> RunConfig:
    """A checked RunConfig, or ConfigError with one sentence per wrong field."""
    try:
        return RunConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigError("; ".join(f"{field}: {why}" if field else why for field, why in field_errors(error))) from None


def field_errors(error: ValidationError) -> list[tuple[str, str]]:
    """(field, sentence) pairs of a pydantic error; field is empty for a rule over several fields."""
    return [(str(item["loc"][0]) if item["loc"] else "", _sentence(item)) for item in error.errors()]


def load_config(path: Path) -> dict:
    """The settings of a JSON or YAML file as a dict, unchecked.

    Raises ConfigError when the file is missing, is neither, or is not a mapping.
    """
    try:
        settings = yaml.safe_load(Path(path).read_text(encoding="utf-8"))  # JSON is a subset of YAML
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"config {path} is neither JSON nor YAML: {' '.join(str(error).split())}") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"config {path} must be a mapping of options to values, e.g. {{\"method\": \"grpo\"}}")
    return settings


def _sentence(item: dict) -> str:
    if item["type"] == "extra_forbidden":
        return f"no such option; options are {', '.join(RunConfig.model_fields)}"
    message = item["msg"].removeprefix("Value error, ")
    return message if item["type"] == "value_error" else f"{message[0].lower()}{message[1:]}, got {item['input']!r}"


def _largest_divisor(total: int, at_most: int) -> int:
    return next(d for d in range(min(at_most, total), 0, -1) if total % d == 0)



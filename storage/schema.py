"""Every table and column of a run as data: name, type, unit, meaning.

The Parquet schemas, the DuckDB views and tables, and docs/schema.md are all made from `TABLES` and `VIEWS`.
A column exists here with a sentence, or it does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

SCHEMA_VERSION = 3
"""2: conflicts, diversity, probe set, effective sample size, displacement per completion. Columns an older run lacks read as empty.

3: a sealed run is Parquet files in a folder of its own, no longer tables in run.duckdb; `thinned`.
"""
POSITION_BINS = 64

F32, F64, I8, I16, I32, I64 = pa.float32(), pa.float64(), pa.int8(), pa.int16(), pa.int32(), pa.int64()
TEXT, BOOL = pa.string(), pa.bool_()
PARTS = pa.map_(TEXT, F64)


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `unit` is what the number counts (empty for text), `means` a sentence without a full stop.

    `rounded` columns hold float32 traces whose mantissa the store may shorten (precision `rounded`, `half`).
    """

    name: str
    type: pa.DataType
    unit: str
    means: str
    rounded: bool = False


@dataclass(frozen=True)  # no slots, so that `arrow` is made once
class Table:
    name: str
    means: str
    columns: tuple[Column, ...]

    @cached_property
    def arrow(self) -> pa.Schema:
        return pa.schema([pa.field(c.name, c.type) for c in self.columns])

    def column(self, name: str) -> Column:
        return next(c for c in self.columns if c.name == name)


def _trace(name: str, unit: str, means: str) -> Column:
    return Column(name, pa.list_(F32), unit, means, rounded=True)


def _struct(columns: tuple[Column, ...]) -> pa.StructType:
    return pa.struct([pa.field(c.name, c.type) for c in columns])


UPDATE_COLUMNS = (
    Column("update", I32, "index", "position of the update in its step, from 0"),
    Column("epoch", I32, "index", "pass over the rollout batch, from 0"),
    Column("minibatch", I32, "index", "minibatch of the pass, from 0"),
    Column("loss", F64, "loss", "the loss whose gradient was taken"),
    Column("terms", PARTS, "loss", "the parts that add up to the loss, after weighting"),
    Column("grad_norm", F64, "L2 norm", "gradient norm before clipping"),
    Column("clip_low", F64, "share", "share of loss tokens held at the lower bound; empty where it is zero by construction"),
    Column("clip_high", F64, "share", "share of loss tokens held at the upper bound; empty where it is zero by construction"),
    Column("kl_before", F64, "nats/token", "k3 estimate of KL(policy before the step ‖ policy at this update) on the update's tokens"),
    Column("kl_ref", F64, "nats/token", "k3 estimate of KL(policy ‖ reference) on the update's tokens; empty without a reference model"),
    Column("ratio_max", F64, "ratio", "largest token probability ratio, policy at this update over the policy before the step, or that which wrote a replay"),
    Column("entropy", F64, "nats/token", "mean entropy of the full next-token distribution over the update's tokens"),
    Column("tokens", I64, "tokens", "tokens in the loss of the update"),
    Column("lr", F64, "1/update", "learning rate of the update"),
)
UPDATE = _struct(UPDATE_COLUMNS)

POSITION_COLUMNS = (
    Column("bin", I16, "index", "bin of token position, from 0; bins are equally wide and empty ones are left out"),
    Column("first", I32, "position", "first token position in the bin, from 0 at the start of the completion"),
    Column("last", I32, "position", "last token position in the bin, included"),
    Column("tokens", I64, "tokens", "completion tokens in the bin"),
    Column("entropy", F64, "nats/token", "mean entropy of the full next-token distribution before the update"),
    Column("logp", F64, "nats/token", "mean log-prob before the update"),
    Column("delta_correct", F64, "nats/token", "mean paired change of log-prob over the step's updates, over tokens of correct rollouts that were rescored"),
    Column("delta_wrong", F64, "nats/token", "the same over tokens of wrong rollouts"),
    Column("clipped", F64, "share", "share of the bin's tokens held at a bound in any update; empty where that is impossible by construction"),
    Column("tokens_rescored_correct", I64, "tokens", "tokens behind delta_correct"),
    Column("tokens_rescored_wrong", I64, "tokens", "tokens behind delta_wrong"),
)
POSITION = _struct(POSITION_COLUMNS)

STEPS = Table(
    "steps",
    "One row per training step: a rollout batch, its updates, and the figures every run-level chart reads",
    (
        Column("step", I32, "step", "training step, from 0: one rollout batch and all the updates made on it"),
        Column("attempt", I32, "count", "how often the run had been started when the step was made, from 0; a resume adds one"),
        Column("finished_at", F64, "s since 1970", "wall-clock time at which the step ended"),
        Column("elapsed_s", F64, "s", "training time of the run up to the end of this step, resumes added up, pauses left out"),
        Column("duration_s", F64, "s", "how long the step took, recording not included"),
        Column("generate_s", F64, "s", "time spent sampling completions"),
        Column("score_s", F64, "s", "time spent in reward functions"),
        Column("update_s", F64, "s", "time spent in forward, backward and optimizer of all updates"),
        Column("rescore_s", F64, "s", "time spent scoring the same rollouts again after the last update"),
        Column("evaluate_s", F64, "s", "time spent on held-out prompts; 0 on steps without evaluation"),
        Column("updates", I32, "count", "optimizer updates made on this step's rollouts"),
        Column("missing_before", I32, "steps", "steps just before this one that were trained but not recorded because the recorder's queue was full"),
        Column("groups", I32, "count", "groups sampled, dropped ones included, wholly replayed and hinted ones not"),
        Column("groups_kept", I32, "count", "groups that entered the loss, replayed ones not counted"),
        Column(
            "groups_hinted",
            I32,
            "count",
            "further groups of the step, sampled again behind a hint; beyond updates, clips, conflicts and divergences no figure of the step counts them",
        ),
        Column("groups_all_fail", I32, "count", "groups in which every scored rollout is wrong; empty where groups are of one rollout"),
        Column("groups_all_pass", I32, "count", "groups in which every scored rollout is correct; empty where groups are of one rollout"),
        Column("groups_tied", I32, "count", "groups whose rewards are all equal, so that their advantages are 0; empty where groups are of one rollout"),
        Column("rollouts", I32, "count", "rollouts sampled"),
        Column(
            "rollouts_replayed",
            I32,
            "count",
            "further rollouts of the step, which older policies wrote; but for updates, clips and conflicts no other figure of the step counts them",
        ),
        Column("replay_age", F64, "steps", "mean age of the replayed rollouts; empty without any"),
        Column("rollouts_failed", I32, "count", "rollouts whose reward function raised or gave no number"),
        Column("tokens", I64, "tokens", "completion tokens sampled"),
        Column("prompt_tokens", I64, "tokens", "prompt tokens, each group's prompt counted once"),
        Column("tokens_per_s", F64, "tokens/s", "completion tokens divided by duration_s"),
        Column("reward_mean", F64, "reward", "mean total reward over the step's scored rollouts"),
        Column("reward_group_std", F64, "reward", "mean over groups of the standard deviation (n) of total reward inside the group"),
        Column("reward_parts", PARTS, "reward", "mean of every unweighted reward part over the step's scored rollouts"),
        Column("reward_part_stds", PARTS, "reward", "standard deviation (n) of every unweighted reward part over the step's scored rollouts"),
        Column("reward_weights", PARTS, "weight", "what every reward part weighs in the total reward; empty where the task does not say"),
        Column("reward_length_corr", F64, "correlation", "Pearson correlation of total reward and completion length over the step's scored rollouts"),
        Column(
            "paid_length_corr",
            F64,
            "correlation",
            "partial correlation inside groups of total reward and completion length, given correctness; empty where correctness explains the whole reward",
        ),
        Column("inverted_pairs", F64, "share", "of the pairs of a correct and a wrong rollout of one group, the share in which the wrong one earned more"),
        Column("correct_rate", F64, "share", "share of scored rollouts that are correct"),
        Column("logp_correct", F64, "nats/token", "mean log-prob before the update of the tokens of correct rollouts"),
        Column("logp_wrong", F64, "nats/token", "mean log-prob before the update of the tokens of wrong rollouts"),
        Column("logp_sum_correct", F64, "nats/rollout", "mean over correct rollouts of the log-prob of the whole completion before the update"),
        Column("logp_sum_wrong", F64, "nats/rollout", "mean over wrong rollouts of the log-prob of the whole completion before the update"),
        Column("delta_correct", F64, "nats/token", "mean paired change of log-prob, after minus before the step's updates, over tokens of correct rollouts"),
        Column("delta_wrong", F64, "nats/token", "the same over tokens of wrong rollouts"),
        Column("delta_zero", F64, "nats/token", "the same over tokens of rollouts whose advantage is 0"),
        Column(
            "displaced_correct",
            F64,
            "share",
            "share of rescored correct rollouts whose completion became less likely over the step's updates: LLD of arXiv:2512.04220 Def. 4.1 with "
            "ε = 0, a sum of changes of exactly 0 not counted; a single-turn completion is one action, so this is the rate of rollouts and of actions",
        ),
        Column("delta_sum_correct", F64, "nats/rollout", "mean over rescored correct rollouts of delta_sum"),
        Column("delta_sum_quantiles", pa.list_(F64), "nats/rollout", "5, 25, 50, 75 and 95 % quantiles of the same over those rollouts"),
        Column(
            "entropy",
            F64,
            "nats/token",
            "mean entropy of the full next-token distribution at the sampling temperature, over completion tokens, before the update",
        ),
        Column(
            "entropy_cov",
            F64,
            "nats × advantage",
            "covariance over pushed tokens of log-prob before the update and advantage; positive drives entropy down",
        ),
        Column("grad_norm", F64, "L2 norm", "mean over updates of the gradient norm before clipping"),
        Column("grad_norm_max", F64, "L2 norm", "largest gradient norm before clipping of the step's updates"),
        Column("loss", F64, "loss", "mean loss of the step's updates; for many methods its value says little, its gradient is what counts"),
        Column(
            "objective", F64, "objective", "mean over updates of the objective of a method over whole groups, which its loss does not say; empty for others"
        ),
        Column("clip_low", F64, "share", "share of loss tokens held at the lower bound, mean over updates; empty where it is zero by construction"),
        Column("clip_high", F64, "share", "share of loss tokens held at the upper bound, mean over updates; empty where it is zero by construction"),
        Column("kl_step", F64, "nats/token", "k3 estimate of KL(policy before the step ‖ policy after it) on the step's tokens"),
        Column("kl_ref", F64, "nats/token", "k3 estimate of KL(policy ‖ reference) on the step's tokens; empty without a reference model"),
        Column("kl_sampler", F64, "nats/token", "k3 estimate of KL(sampler ‖ trainer) on the step's tokens: the mismatch between what sampled and what trains"),
        Column("ratio_max", F64, "ratio", "largest token probability ratio, policy in an update over the policy before the step, or that which wrote a replay"),
        Column(
            "sampler_prob_diff",
            F64,
            "probability",
            "mean absolute difference between the sampler's and the trainer's probability of a token; empty where the trainer takes the sampler's word",
        ),
        Column("ess", F64, "share", "effective sample size of the token probability ratios, smallest over the step's updates; empty with one update"),
        Column("length_mean", F64, "tokens", "mean completion length"),
        Column("length_max", I32, "tokens", "longest completion"),
        Column("truncated_rate", F64, "share", "share of completions cut at the token limit"),
        Column("repetition", F64, "share", "mean over completions of the share of their 3-grams of tokens that they have had before"),
        Column("loop_rate", F64, "share", "share of completions of which more than half of the 3-grams are repeats"),
        Column("diversity", F64, "share", "mean over groups of 1 - self-BLEU of their completions' tokens: 0 when all are the same"),
        Column("conflict_groups", I32, "count", "groups with advantages of both signs, the only ones that can hold conflicts"),
        Column("conflict_tokens", I64, "tokens", "tokens of rollouts with an advantage other than 0 in those groups"),
        Column("conflict_run", I64, "tokens", "of them, conflict tokens in either published run, from the first token on or up to the last (GTPO)"),
        Column("conflict_head", I64, "tokens", "of them, conflict tokens in the unbroken run from a rollout's first token (GTPO)"),
        Column("conflict_tail", I64, "tokens", "of them, conflict tokens in the unbroken run up to a rollout's last token (GTPO)"),
        Column("conflict_mid", I64, "tokens", "of them, the same token at the same place with both signs, outside the two runs"),
        Column("conflict_shared", I64, "tokens", "of them, tokens with both signs after an identical beginning: two gradients on one distribution"),
        Column("conflict_pushed_down", I64, "tokens", "of head, tail and mid conflicts, those whose group's advantages add up to less than 0"),
        Column("lr", F64, "1/update", "learning rate of the last update"),
        Column("eval_correct", F64, "share", "share of held-out prompts answered correctly with greedy decoding; empty on steps without evaluation"),
        Column("eval_reward", F64, "reward", "mean total reward on held-out prompts with greedy decoding; empty on steps without evaluation"),
        Column("eval_gold_logp", F64, "nats/rollout", "mean log-prob of the task's own worked answers on held-out prompts; empty where the task has none"),
        Column("eval_prompts", I32, "count", "held-out prompts evaluated; empty on steps without evaluation"),
        Column("probe_logp", F64, "nats/token", "mean log-prob per token of the probe set's known answers, always the same ones, after the step's updates"),
        Column("probe_delta", F64, "nats/answer", "mean change of a probe answer's log-prob since the first time the probe set was scored"),
        Column("probe_fell", F64, "share", "share of probe answers less likely than when the probe set was first scored"),
        Column("probe_answers", I32, "count", "known answers in the probe set; empty on steps on which it was not scored"),
        Column("update_rows", pa.list_(UPDATE), "", "one entry per update; the view `updates` has them as rows"),
        Column("position_conflicts", pa.list_(I32), "tokens", "head, tail and mid conflict tokens in each bin of position_rows"),
        Column("position_rows", pa.list_(POSITION), "", f"up to {POSITION_BINS} bins of token position; the view `positions` has them as rows"),
    ),
)

GROUPS = Table(
    "groups",
    "One row per group: the rollouts of one prompt in one step",
    (
        Column("step", I32, "step", "training step"),
        Column("group_index", I32, "index", "position of the group in the step, from 0, dropped groups included"),
        Column("group_id", TEXT, "", "stable id of the group: s<step>.g<index>"),
        Column("prompt_id", TEXT, "", "the task's own id of the prompt"),
        Column(
            "prompt_hash",
            TEXT,
            "",
            "first 16 hex digits of the SHA-256 of the prompt's token ids, a hint left out: equal for the same prompt in any step or run",
        ),
        Column("prompt", TEXT, "", "the prompt as the model saw it, a hint at its end included"),
        Column("prompt_ids", pa.list_(I32), "token id", "token ids of the prompt, those of a hint included"),
        Column("hint_tokens", I32, "tokens", "how many of them, the last, are a hint: the beginning of the worked answer; empty in older runs"),
        Column("answer", TEXT, "", "the expected answer"),
        Column("rewards", pa.list_(F64), "reward", "total reward of each rollout, in order; empty entries are failures"),
        Column("reward_mean", F64, "reward", "mean total reward of the scored rollouts"),
        Column("reward_std", F64, "reward", "standard deviation (n) of the total reward of the scored rollouts"),
        Column("baseline", F64, "reward", "what the method subtracted from the first rollout's reward; leave-one-out baselines differ per rollout"),
        Column("correct", I32, "count", "correct rollouts, replayed ones and worked answers not counted"),
        Column("size", I32, "count", "rollouts in the group, replayed ones and worked answers included"),
        Column(
            "replayed",
            I32,
            "count",
            "rollouts of the group that were not sampled in this step: an older policy wrote them, or they are worked answers of the task",
        ),
        Column(
            "outcome",
            TEXT,
            "",
            "mixed, all_fail, all_pass, tied (equal rewards, neither all wrong nor all correct), failed (fewer than two scored rollouts, none where "
            "groups are of one) or replayed; of the rollouts that were sampled in this step",
        ),
        Column("kept", BOOL, "", "whether the group entered the loss"),
        Column("reason", TEXT, "", "why it was dropped, or empty"),
        Column("sampling_round", I32, "index", "which round of dynamic sampling made it, from 0"),
        Column("tokens", I32, "tokens", "completion tokens of the group"),
        Column(
            "delta_correct", F64, "nats/token", "mean paired change of log-prob over the step's updates, over tokens of the group's rescored correct rollouts"
        ),
        Column("delta_wrong", F64, "nats/token", "the same over tokens of its wrong rollouts"),
        Column("diversity", F64, "share", "1 - self-BLEU of the completions' tokens, unpadded: 0 when all are the same"),
        Column("distinct_3", F64, "share", "share of different 3-grams among all 3-grams of the group's completions"),
        Column("conflict_run", I32, "tokens", "conflict tokens in the unbroken runs from the first and to the last token (GTPO)"),
        Column("conflict_mid", I32, "tokens", "the same token at the same place with both signs of advantage, outside those runs"),
        Column("conflict_shared", I32, "tokens", "tokens with both signs of advantage after an identical beginning"),
        Column(
            "conflict_net", F64, "advantage", "mean over head, tail and mid conflict tokens of the sum of advantages over the rollouts that share the token"
        ),
        Column(
            "sampler_score", F64, "score", "what the sampler drew the prompt by, the variance promotion score or SPO's weight; empty unless it keeps one"
        ),
        Column("sampler_probability", F64, "probability", "probability with which the sampler's weighted half drew this prompt; empty if all were equal"),
        Column("greedy_reward", F64, "reward", "total reward of one greedy completion of the prompt, the baseline of ReMax; empty where none was sampled"),
        Column("prompt_state", PARTS, "", "what the run remembers of the prompt after the step, by name; docs/methods.md says what; empty if nothing"),
    ),
)

ROLLOUTS = Table(
    "rollouts",
    "One row per rollout: one completion of a prompt, its reward, and its token traces as lists of equal length",
    (
        Column("step", I32, "step", "training step"),
        Column("group_index", I32, "index", "position of the group in the step"),
        Column("rollout_index", I32, "index", "position of the rollout in its group, from 0"),
        Column("text", TEXT, "", "the completion as text"),
        Column("reward", F64, "reward", "total reward: weighted sum of the parts, after shaping; empty if scoring failed"),
        Column("reward_parts", PARTS, "reward", "every reward part before weighting; a part that failed is empty"),
        Column("correct", BOOL, "", "whether the rollout counts as correct; empty if scoring failed"),
        Column("failure", TEXT, "", "what the reward function raised, or empty"),
        Column("advantage", F64, "advantage", "mean over the rollout's tokens of the advantage used in the loss"),
        Column("length", I32, "tokens", "completion length, end-of-sequence token included"),
        Column("finish", TEXT, "", "stop (end-of-sequence token), stop_string, or length (cut at the token limit)"),
        Column(
            "source",
            TEXT,
            "",
            "policy (sampled in this step), hinted (sampled in this step behind a hint, which is no part of it), replay (an older policy wrote it) or "
            "reference (the task's worked answer); empty in older runs, which had only the first",
        ),
        Column("age", I32, "steps", "steps since the rollout was written, 0 unless it is replayed"),
        Column(
            "delta_sum",
            F64,
            "nats",
            "change of the whole completion's log-prob over the step's updates, the sum of logp_delta: Δ of the rollout and, as a single-turn "
            "completion is one action, of its action; empty if not rescored",
        ),
        Column("repetition", F64, "share", "share of the completion's 3-grams of tokens that it has had before; empty below 3 tokens"),
        Column(
            "gwhes",
            F64,
            "score",
            "group weighted hidden embedding score of a correct rollout: larger foretells a smaller gain or a loss of its likelihood; empty unless measured",
        ),
        Column("rescored", BOOL, "", "whether the rollout was scored again after the last update"),
        Column("thinned", BOOL, "", "true where a retention policy has taken the lists below, which are empty then; `retention.jsonl` says which one and when"),
        Column("token_ids", pa.list_(I32), "token id", "token ids of the completion"),
        _trace("logp_sampling", "nats", "log-prob under the distribution the token was sampled from, temperature and top-p applied; empty for a worked answer"),
        _trace(
            "logp_gap",
            "nats",
            "trainer's log-prob before the update minus logp_sampling: 0 unless top-p, another engine, or training since a replay was written differs",
        ),
        _trace("logp_delta", "nats", "trainer's log-prob after the step's last update minus before its first; empty if not rescored"),
        _trace("logp_ref", "nats", "log-prob under the reference model; empty without one"),
        _trace(
            "logp_old",
            "nats",
            "log-prob under the policy that wrote a replayed rollout, which its ratios are taken against, of a worked answer under the policy "
            "before the update; empty for others",
        ),
        _trace(
            "entropy",
            "nats",
            "entropy of the full next-token distribution at the sampling temperature before the update, for a replay when written; empty for "
            "a worked answer",
        ),
        _trace("advantages", "advantage", "advantage of the token used in the loss"),
        _trace("weights", "× average token", "the token's weight in the loss relative to an average loss token of its update; 0 where the token is left out"),
        _trace(
            "nthr",
            "score",
            "negative token hidden reward of a token of a wrong rollout: how much pushing it down takes from correct ones; empty unless measured",
        ),
        Column("clipped", pa.list_(I8), "side", "-1 held at the lower bound, +1 at the upper, in any update of the step, 0 in none"),
        Column(
            "items",
            pa.list_(I16),
            "index",
            "item of the list that the token belongs to, from 0, a line break to the item before it, -2 for the end token; empty where completions "
            "are no lists or the group was dropped",
        ),
    ),
)

TABLES: dict[str, Table] = {t.name: t for t in (STEPS, GROUPS, ROLLOUTS)}
"""The stored tables, in reading order; segments are published in the reverse order, `steps` last."""

VOCABULARY = Table(
    "vocabulary",
    "One row per token id: the text the tokenizer prints for it; written once per run",
    (
        Column("token_id", I32, "token id", "id of the token, from 0"),
        Column("piece", TEXT, "", "the token as text, as it appears inside a completion"),
    ),
)


@dataclass(frozen=True, slots=True)
class View:
    """A view that plain DuckDB sees beside the tables; `sql` selects `columns` from the tables by name."""

    name: str
    means: str
    columns: tuple[Column, ...]
    sql: str


_STEP = STEPS.column("step")

VIEWS: tuple[View, ...] = (
    View("updates", "One row per optimizer update", (_STEP, *UPDATE_COLUMNS), "select step, unnest(update_rows, recursive := true) from steps"),
    View(
        "positions",
        "One row per step and bin of token position",
        (_STEP, *POSITION_COLUMNS),
        "select step, unnest(position_rows, recursive := true) from steps",
    ),
    View(
        "tokens",
        "One row per completion token, with every trace as a scalar",
        (
            *(ROLLOUTS.column(name) for name in ("step", "group_index", "rollout_index", "correct", "reward")),
            Column("position", I64, "position", "position of the token in its completion, from 0"),
            Column("token_id", I32, "token id", "the token; `vocabulary` has its text"),
            Column("logp_sampling", F32, "nats", ROLLOUTS.column("logp_sampling").means),
            Column("logp_before", F32, "nats", "trainer's log-prob before the update: logp_sampling plus logp_gap; add logp_delta for the log-prob after it"),
            Column("logp_delta", F32, "nats", ROLLOUTS.column("logp_delta").means),
            Column("logp_ref", F32, "nats", ROLLOUTS.column("logp_ref").means),
            Column("entropy", F32, "nats", ROLLOUTS.column("entropy").means),
            Column("advantage", F32, "advantage", ROLLOUTS.column("advantages").means),
            Column("weight", F32, "× average token", ROLLOUTS.column("weights").means),
            Column("clipped", I8, "side", ROLLOUTS.column("clipped").means),
        ),
        """select step, group_index, rollout_index, correct, reward,
       generate_subscripts(token_ids, 1) - 1 as position,
       unnest(token_ids) as token_id,
       unnest(logp_sampling) as logp_sampling,
       unnest(list_transform(list_zip(logp_sampling, logp_gap), lambda z: z[1] + z[2])) as logp_before,
       unnest(logp_delta) as logp_delta,
       unnest(logp_ref) as logp_ref,
       unnest(entropy) as entropy,
       unnest(advantages) as advantage,
       unnest(weights) as weight,
       unnest(clipped) as clipped
from rollouts""",
    ),
)

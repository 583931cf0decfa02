"""Queries to begin with, as the page SQL offers them: each answers a question one asks of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """A query with a title and what it answers, a sentence without a full stop."""

    title: str
    means: str
    text: str


EXAMPLES: tuple[Example, ...] = (
    Example(
        "Tokens that lost most likelihood",
        "which pieces of text correct rollouts became less likely to write, summed over the run",
        """select piece, count(*) as tokens, sum(logp_delta) as moved_nats, avg(logp_delta) as mean_nats
from tokens join vocabulary using (run_id, token_id)
where correct
group by piece
order by moved_nats
limit 30""",
    ),
    Example(
        "Groups without signal, per step",
        "how many groups of each step have equal rewards and so teach nothing",
        """select step, count(*) as groups,
       count(*) filter (where outcome = 'all_fail') as all_fail,
       count(*) filter (where outcome = 'all_pass') as all_pass,
       count(*) filter (where outcome = 'tied') as tied
from groups
group by step
order by step""",
    ),
    Example(
        "Reward by length",
        "whether longer completions earn more, and whether they are right more often",
        """select 8 * (length // 8) as tokens_from, count(*) as rollouts, avg(reward) as reward, avg(correct::int) as correct
from rollouts
group by tokens_from
order by tokens_from""",
    ),
    Example(
        "Entropy by position",
        "where in a completion the policy is still undecided, from the first token on",
        """select first as position, sum(tokens) as tokens, sum(entropy * tokens) / sum(tokens) as entropy_nats
from positions
group by position
order by position""",
    ),
    Example(
        "Wrong and well paid",
        "the wrong rollouts that earned most: what a reward can be hacked with",
        """select step, group_index, rollout_index, reward, length, left(text, 200) as text
from rollouts
where not correct
order by reward desc, step desc
limit 50""",
    ),
    Example(
        "Prompts that stay unsolved",
        "prompts seen at least twice, those with the fewest correct rollouts first",
        """select left(any_value(prompt), 120) as prompt, count(*) as times, sum(correct) / sum(size) as solved, max(step) as last_seen
from groups
group by prompt_hash
having count(*) > 1
order by solved, times desc
limit 50""",
    ),
    Example(
        "Parts of the reward",
        "the mean of every reward part in each step, before weighting",
        """select step, unnest(map_keys(reward_parts)) as part, unnest(map_values(reward_parts)) as mean
from steps
order by step, part""",
    ),
    Example(
        "Updates that went far",
        "the updates with the largest probability ratio, with what was clipped and the gradient norm",
        """select step, update, ratio_max, clip_low, clip_high, kl_before, grad_norm
from updates
order by ratio_max desc nulls last
limit 30""",
    ),
    Example(
        "Runs side by side",
        "best and last reward of each chosen run; choose more runs above",
        """select run_id, count(*) as steps, max(reward_mean) as best_reward, max_by(reward_mean, step) as last_reward, max_by(entropy, step) as last_entropy
from steps
group by run_id
order by last_reward desc""",
    ),
)

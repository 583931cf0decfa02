"""docs/methods.md, made from METHODS: `python -m grpo_core.methods_page` rewrites it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from grpo_core.equation_pieces import CHOICES, Choice
from grpo_core.equations import defined, equations
from grpo_core.method_row import HARMS, Component, Method, Weight
from grpo_core.methods import METHODS
from grpo_core.rules import CREDITS, GROUP_REWARDS, PROMPT_SAMPLERS, Rule
from grpo_core.study import spread, verdicts
from grpo_core.trained import Trained, gain, trained

PATH = Path(__file__).parents[1] / "docs" / "methods.md"

_OPENING = """# Methods

Made from `grpo_core/methods.py`, `grpo_core/rules.py` and `grpo_core/equation_pieces.py` by `python -m grpo_core.methods_page`; edit there, not here.

Every method is one row over the same equation:

    loss = N( W ⊙ φ(logp, ρ_level, A) ) + Σ_k λ_k · reg_k        A = whole( Σ_c w_c · Norm_c( value_c − Base_c(group) ) · Scale_c )

$choices

**Step and update.** A step is one rollout batch and all updates made on it: `epochs` passes of `minibatches` updates, two by default.
On the first update the policy is the one that sampled, so ratios are 1, nothing is clipped and LLDS is exactly zero; with one
update per rollout these methods differ only in credit, weights and normaliser, and clip fractions are recorded as not available.
Under the surrogate `clip`, `clip_cap` holds the ratio itself too where A < 0 (two-sided clipping, arXiv:2505.07291; TRL's `delta`, verl's `clip_ratio_c`).

**Ties.** A group whose scored rewards are all equal has advantage exactly 0: a case of its own, not an epsilon. Its rollouts are
not computed in an update unless a regulariser needs them; the loss and its gradient are the same either way, as the normaliser
still counts their tokens. A rollout whose reward failed leaves the group's statistics and the loss. With base `zero` nothing is
compared, so a tied group counts like any other; `greedy` compares it with one more completion, `below_mean` pushes it up, and norm
`token_whiten` compares the whole batch and moves tied groups with it. Value `parts` ties part by part: equal totals of unlike parts
are no tie.

**Objectives of a group** (DisCO, Reg-GRPO) are not sums over tokens. Their exact gradient is: each rollout's pull is taken from the
scores of the whole update without gradient, and stands in for A in the loss of tokens. So any micro-batch will do, and a group may be
split. DisCO's bound on the KL is a number of the whole update too. Both cost one more forward pass without gradient at every update but
the first of a rollout batch, whose policy is the one that sampled. The loss then says nothing; the objective is recorded as `objective`.
GEPO adds such an objective to a loss of tokens: its slopes weigh its tokens, and its term is recorded at what it is worth.

**LLDS.** Its penalty is λ · Σ max(0, log-prob when sampled − log-prob now) over the tokens of completions with A ≥ 0 that fell as a
whole, divided by the tokens with A ≥ 0 (arXiv:2512.04220, Eq. 10). Falls below 1e-4 nats count as rounding: the gradient of the
hinge does not shrink with the fall, so without that dead zone noise would be penalised on the very first update.

- `llds_gate` says what must have fallen as a whole: the completion (`response`, Eq. 10, the default here), an action of it
  (`action`, Eq. 4, the paper's default) or nothing but the token itself (`token`, Eq. 9). An action is an unbroken run of trained
  tokens between tool results; completions written here have no tool results, so they are one action and the two gates agree.
- `llds_normaliser=loss` divides by all loss tokens, as released code does.
- `llds_answer_weight` is β of LLDS-MA (Eq. 5): tokens of the final answer weigh β. In the arithmetic task they are what follows the
  last colon, in a dataset the last `<answer>…</answer>`.
- With one update per rollout batch LLDS is exactly zero; the command line says so when such a run starts.

**NTHR and GWHES** (arXiv:2505.18830) change nothing in training unless the method is `nthr`: with `nthr_every` above 0 they are measured on
groups with correct and wrong rollouts, from one forward before the first update, and recorded. `nthr` is, for each token of a wrong rollout, how much
pushing it down takes from the correct ones; `gwhes` foretells for a correct rollout how much it will lack.

## What protects against what

What each method is for beside what it shares with GRPO, whose clip most of them keep. Read off the equations; what only a paper found
is said to be the paper's, and none of it is a measurement of this repository. The signals are those of [diagnosis.md](diagnosis.md)
on which a method's choices act, or by which their cost shows. In the equations i is a rollout of group g, j any rollout, t a token of
completion o_i, r the reward, B the number of rollouts, π_old the policy before the step's updates, and sg has no gradient. They are
composed from the row, piece by piece (`grpo_core/equations.py`); the page Methods draws the same.

$harms

## Trained here

Held-out accuracy (share correct, greedy decoding) of the tiny model on the arithmetic task, or the one that the command names, after the
first and after the last step of short runs, a seed each, and its mean change ± standard deviation over seeds. Enough to see that a method
learns, not which is best: the settings are the same for all and tuned for none. At twice the learning rate, where there is a table for
it, the same methods do not improve reliably in so few steps, GDPO aside. Pass@k and NSR learn from few of a step's rollouts (Pass@k from
those that alone are correct in their group, fewer than one group a step here), so 30 steps are too few for them; they are trained for 120
too. Rollouts are the policy's own (and GRAO's worked answers), but where the command names a replay buffer: there half of every step's
groups were written by the policies of up to 8 steps before. GRPO's clip and REC's bear that, RED-Weight and OPMD of Kimi k1.5 stand
still, and what has no ratio or no bound on it (OPMD, AsymRE, RED-Drop) loses what it had: at this learning rate no method made for older
rollouts does better with them than GRPO. That table, the one of preferences, which
`python -m tests.benchmarks.preferences preferences.jsonl` writes, the one of the ranking task and E-GRPO's were trained on a later
machine than the first, from a start that its processor made better. Reg-GRPO's `hint_strength` was chosen on the first table. Where a
command names a group reward, the rollouts of training earn it. With four passes over each batch at 2.5 times the learning rate
(`--epochs 4 --lr 5e-4`) GRPO loses what it had: that table says which of 36 methods hold better and which fall faster, and what the
diagnosis of the day said of them. It was trained in two parts on two machines, where seeds give other runs: OPO, GPG, Pass@k, PSR, NSR,
W-REINFORCE, GDPO, ReMax, OPMD in its variants, AsymRE, RED, Reg-GRPO, ARPO, GRAO and GEPO on one on which GRPO went 0.70 → 0.38, 0.55 →
0.12 and 0.54 → 0.37, the others on that of the row GRPO. Its wall times are those of machines with other work and compare nothing.

$trained
"""

_REWARDS = """## Rewards that look at the whole group

`group_reward` shapes the rewards of training rollouts after the task has judged each for itself, under any method; held-out figures and
`correct` stay the task's own. The functions are in `grpo_core/tasks/group_rewards.py`, with worked numbers in its tests.

What GRPO came to with each, three seeds on the arithmetic task, is among the tables of [Trained here](#trained-here). OTC-GRPO changes nothing
there, as correct answers of a group take equally many worked sums. Questions in two forms are learnt more slowly, by GRPO
alone too, and PS-GRPO at its assumed weight of 1 does not improve held-out accuracy reliably: what it rewards, the consistency of a question's
forms, rises on every seed in 120 steps, at the cost of the answers. A weight of 0.25 costs less of them.
"""

_SAMPLING = """## Ways to draw prompts

`prompt_sampler` decides which prompts a step samples, under any method that does not draw by its own rule. Where a run's prompts stand is on the page Variance.
"""

_PARTS = """
**Multi-objective GRPO** (arXiv:2503.21819) is GRPO on a weighted sum of several rewards, which is what a reward with several parts is here (`rewards`
of a dataset, each with its weight). Its paper's four reward heads and their weights could not be obtained, so there is no preset; weights are the
user's, 1 where none is given. Method `gdpo` normalises each part for itself before they are summed.
"""

_MEMORY = """## What a run remembers of prompts

| what | option | recorded per prompt (`groups.prompt_state`) |
|---|---|---|
| tracked success rate, a Beta distribution per prompt (SPO) | `method=spo` | p, alpha, beta, drift, kept (ρ); the group's `baseline` is p before the step |
| stored successes, the last 8 per prompt (ARPO) | `method=arpo` | stored, newest_success |
| the task filter's trial (ARPO) | `prompt_sampler=solvable` | trial_solved |
| variance promotion score (VAS) | `prompt_sampler=vas` | vps |
| mean rewards of the last 100 groups (Reg-GRPO's hints) | `hint_strength` | nothing; a hinted group has `hint_tokens`, its rollouts `source` |
| replay buffer: groups of earlier steps, any method | `replay_size`, `replay_share`, `replay_max_age` | nothing; its rollouts have `source` and `age` |

All of it is in every checkpoint, and a resumed run goes on bit for bit. What is replayed keeps the log-probs it was written with
(`logp_old`): ratios are taken against the policy that wrote it, and differ from 1 at the first update already. Rollouts that are
replayed are no samples of the step's policy: rewards, lengths, entropy, pass@k, displacement and every other figure of what the
policy writes leave them out; updates, clip shares and conflicts, which are of what is trained on, count them. The same goes for the
worked answers of GRAO (`source` reference), which no policy wrote: their `logp_old` is under the policy before the update, and they have
neither sampling log-probs nor entropies. Rollouts behind a hint (`source` hinted) were sampled in the step, but answer another prompt than the
task's: of the step's figures, divergences count them too, rewards and the rest do not.
"""

_SEGMENTS = """## Credit of steps and actions

`grpo_core/algorithms/segments.py` has, beside Rank-GRPO's credit per rank and ratio per item, credit for tasks of several turns, tested on worked numbers.
"""

_ADDING = """## Adding a method

One row in `METHODS`, and at most one pure function. A GRPO that averages the whole population and weighs all tokens alike needs none:

```python
Method(
    name="grpo_population", title="GRPO, population std", paper="…", summary="…", protects="…", costs="…",
    credit=(Component(base="mean", norm="std_population"),), surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token",
)
```

A new choice is a function under its registry's decorator, shapes in the names, its equation in the docstring. Both may stand in a file of
your own, outside the package:

```python
# my_methods.py
import torch

from grpo_core.algorithms.norms import NORMS
from grpo_core.methods import METHODS, Component, Method


@NORMS.register("range")
def range_norm(centred_B, rewards_B, rows, epsilon):
    \"\"\"Divided by the largest reward minus the smallest of the group.\"\"\"
    groups = int(rows.group_B.max()) + 1
    high, low = (torch.zeros(groups, dtype=rewards_B.dtype).scatter_reduce(0, rows.group_B, rewards_B, how, include_self=False) for how in ("amax", "amin"))
    return centred_B / ((high - low)[rows.group_B] + epsilon)


METHODS["grpo_range"] = Method(
    name="grpo_range", title="GRPO by range", paper="mine", summary="Deviations over the range of the group.", protects="…", costs="…",
    credit=(Component(base="mean", norm="range"),), surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token",
)
```

    GROUPSCOPE_METHODS=my_methods.py python -m grpo_core train --method grpo_range

With the variable set, `launch`, `compare`, the app and its laboratory know the method too; without it a run of it cannot be opened in the app.
The app, which otherwise does without torch, then loads what the file imports.
Failed rollouts come with reward 0 and `rows.scored_B` False, and a tied group with deviations of exactly 0.

Its piece of the equation goes beside the others in `grpo_core/equation_pieces.py`; until then it stands in the equation as its name.
`tests/algorithms/test_invariances.py` then checks the row: its names resolve, padding, row order and micro-batches change nothing.
"""


def methods_markdown() -> str:
    """The whole of docs/methods.md."""
    opening = Template(_OPENING).substitute(choices="\n".join(_choices()), harms="\n".join(_harms()), trained="\n".join(_trained()))
    sections = [*(_section(m) for m in METHODS.values()), _MEMORY, _REWARDS, *_rules(GROUP_REWARDS), _PARTS, _SAMPLING, *_rules(PROMPT_SAMPLERS)]
    return "\n".join([opening, *sections, _SEGMENTS, *_rules(CREDITS), _ADDING])


def _rules(table: Mapping[str, Rule]) -> list[str]:
    """A section per rule: what it does, its equation, and what it assumes or lacks."""
    return [
        f"### {rule.title} (`{rule.name}`)\n\n{rule.means} {rule.paper}, preset `{rule.preset}`.\n\n```math\n{rule.equation}\n```\n\n{rule.caveats}\n"
        for rule in table.values()
    ]


def _choices() -> list[str]:
    """One row per registry, with what each of its names means."""
    return ["| choice | registry | what is there |", "|---|---|---|", *(_names(choice) for choice in CHOICES)]


def _names(choice: Choice) -> str:
    return f"| {choice.title} | `{choice.home}` | {'; '.join(f'`{name}`: {piece.means}' for name, piece in choice.pieces.items())} |"


def _harms() -> list[str]:
    """One row per harm: what it means, and which methods protect against it."""
    rows = [f"| {harm} | {means} | {', '.join(m.title for m in METHODS.values() if harm in m.against)} |" for harm, means in HARMS.items()]
    return ["| harm | what happens | methods against it |", "|---|---|---|", *rows]


def _trained() -> list[str]:
    """For every command one row per method that it trained."""
    return [line for command, found in trained().items() for line in (f"    {command}\n", *_study(found), "")]


def _study(found: Mapping[str, Sequence[Trained]]) -> list[str]:
    judged = all(run.verdict for runs in found.values() for run in runs)
    heads = ["method", "first → last, per seed", "change", *(["best", "reward", "verdicts", "wall time, s"] if judged else [])]
    rows = [[METHODS[name].title, _each(found[name]), gain(found[name]), *(_more(found[name]) if judged else [])] for name in METHODS if name in found]
    head, *body = [f"| {' | '.join(row)} |" for row in (heads, *rows)]
    return [head, "|---" * len(heads) + "|", *body]


def _more(runs: Sequence[Trained]) -> list[str]:
    best, reward, wall = ([getattr(run, name) for run in runs] for name in ("best", "reward", "wall_s"))
    return [spread(best), spread(reward), verdicts(runs), spread(wall, digits=0)]


def _each(runs: Sequence[Trained]) -> str:
    return ", ".join(f"{run.first:.2f} → {run.last:.2f}" for run in runs)


def _section(method: Method) -> str:
    lines = [
        f"## {method.title} (`{method.name}`)",
        f"\n{method.summary} {method.paper}, preset `{method.preset}`.\n",
        *(f"```math\n{one}\n```" for one in filter(None, (*equations(method), defined(method)))),
        f"\n**Protects against.** {method.protects}",
        f"\n**Costs.** {method.costs}",
        f"\n**Signals it moves.** {', '.join(f'`{name}`' for name in method.moves) or 'None in particular'}.\n",
        "| code | value − base / norm | surrogate | ratio | clip | token weights | normaliser | regularisers | data rule |",
        "|---|---|---|---|---|---|---|---|---|",
        _row("paper", method),
    ]
    if method.released:
        lines.append(_row(f"released (`{method.released_knob}`)", method.as_released()))
    return "\n".join(lines) + ("\n" + f"\n{method.note}\n" if method.note else "\n")


def _row(label: str, method: Method) -> str:
    penalties = ", ".join(f"{p.name} × {p.coef:g} (`{p.knob}`)" for p in method.penalties) or "none"
    weights = ", ".join(_weight(w) for w in method.weights) or "none"
    surrogate = method.surrogate + (f"; {_weight(method.group)}" if method.group else "")
    clip = "none" if method.clip is None else f"{method.clip[0]:g} below, {method.clip[1]:g} above"
    whole = ("" if method.whole == "none" else f"; whole {method.whole}") + ("" if method.spread == "rows" else f"; by {method.spread}")
    credit = "; ".join(_component(c) for c in method.credit) + whole
    return f"| {label} | {credit} | {surrogate} | {method.level} | {clip} | {weights} | {method.normaliser} | {penalties} | {method.sampler} |"


def _weight(weight: Weight) -> str:
    return f"{weight.name} {weight.value:.4g}" + (f" (`{weight.knob}`)" if weight.knob else "")


def _component(c: Component) -> str:
    times = "" if c.weight == 1 and not c.knob else f" × {c.weight:g}" + (f" (`{c.knob}`)" if c.knob else "")
    base = c.base + (f" {c.at:g}" if c.at else "") + (f" (`{c.at_knob}`)" if c.at_knob else "")
    return f"{c.value} − {base} / {c.norm}" + ("" if c.scale == "one" else f", {c.scale}") + ("" if c.drop == "none" else f", drop {c.drop}") + times


if __name__ == "__main__":
    PATH.write_text(methods_markdown(), encoding="utf-8")
    print(f"wrote {PATH}")

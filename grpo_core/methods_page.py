"""docs/methods.md, made from METHODS: `python -m grpo_core.methods_page` rewrites it."""

from __future__ import annotations

from pathlib import Path

from grpo_core.methods import METHODS, Method

PATH = Path(__file__).parents[1] / "docs" / "methods.md"

_OPENING = """# Methods

Made from `grpo_core/methods.py` by `python -m grpo_core.methods_page`; edit there, not here.

Every method is one row over the same equation:

    loss = N( W ⊙ φ(logp, ρ_level, A) ) + Σ_k λ_k · reg_k        A = Σ_c w_c · Norm_c( r − Base_c(group) )

| choice | registry | what is there |
|---|---|---|
| credit: base and norm of the advantage A | `algorithms/credit.py` | `mean`, `leave_one_out` · `none`, `std` (n−1), `std_population` (n) |
| surrogate φ and the level of its ratio ρ | `algorithms/surrogates.py` | `clip` · `token`, `sequence` |
| regularisers reg_k with weight λ_k | `algorithms/penalties.py` | `kl_ref_k3`, `llds_response` |
| normaliser N | `algorithms/normalisers.py` | `token`, `sequence`, `constant` |
| data rule | `tasks/sampler.py` | `uniform`, `dynamic` |

**Step and update.** A step is one rollout batch and all updates made on it: `epochs` passes of `minibatches` updates, two by default.
On the first update the policy is the one that sampled, so ratios are 1, nothing is clipped and LLDS is exactly zero; with one
update per rollout these methods differ only in credit and normaliser, and clip fractions are recorded as not available.

**Ties.** A group whose scored rewards are all equal has advantage exactly 0: a case of its own, not an epsilon. Its rollouts are
not computed in an update unless a regulariser needs them; the loss and its gradient are the same either way, as the normaliser
still counts their tokens. A rollout whose reward failed leaves the group's statistics and the loss.

**LLDS.** Its penalty is λ · Σ max(0, log-prob when sampled − log-prob now) over the tokens of completions with A ≥ 0 that fell as a
whole, divided by the tokens with A ≥ 0 (arXiv:2512.04220, Eq. 10). Falls below 1e-4 nats count as rounding: the gradient of the
hinge does not shrink with the fall, so without that dead zone noise would be penalised on the very first update.
"""

_ADDING = """## Adding a method

One row in `METHODS`, and at most one pure function. A GRPO that averages the whole population and weighs all tokens alike needs none:

```python
Method(
    name="grpo_population", title="GRPO, population std", paper="…", summary="…",
    credit=(Component(base="mean", norm="std_population"),), surrogate="clip", level="token", clip=(0.2, 0.2), normaliser="token",
)
```

A new choice is a function under its registry's decorator, shapes in the names, its equation in the docstring:

```python
@NORMS.register("range")
def range_norm(centred_B, rewards_B, group_B, scored_B, epsilon):
    \"\"\"Divided by the largest reward minus the smallest of the group.\"\"\"
```

`tests/algorithms/test_invariances.py` then checks the row: its names resolve, padding, row order and micro-batches change nothing.
"""


def methods_markdown() -> str:
    """The whole of docs/methods.md."""
    return "\n".join([_OPENING, *(_section(m) for m in METHODS.values()), _ADDING])


def _section(method: Method) -> str:
    credit = "; ".join(f"{c.base} / {c.norm}" for c in method.credit)
    penalties = ", ".join(f"{p.name} × {p.coef:g} (`{p.knob}`)" for p in method.penalties) or "none"
    clip = "none" if method.clip is None else f"{method.clip[0]:g} below, {method.clip[1]:g} above"
    lines = [
        f"## {method.title} (`{method.name}`)",
        f"\n{method.summary} {method.paper}.\n",
        "| base / norm | surrogate | ratio | clip | normaliser | regularisers | data rule |",
        "|---|---|---|---|---|---|---|",
        f"| {credit} | {method.surrogate} | {method.level} | {clip} | {method.normaliser} | {penalties} | {method.sampler} |",
    ]
    return "\n".join(lines) + ("\n" + f"\n{method.note}\n" if method.note else "\n")


if __name__ == "__main__":
    PATH.write_text(methods_markdown(), encoding="utf-8")
    print(f"wrote {PATH}")

"""The tables of docs/diagnosis.md that are data in the code: `python -m grpo_core.diagnosis.page` rewrites them in place."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from grpo_core.diagnosis.causes import SIGNATURES
from grpo_core.diagnosis.history import History
from grpo_core.diagnosis.panel import SIGNALS
from grpo_core.diagnosis.thresholds import THRESHOLDS

PATH = Path(__file__).parents[2] / "docs" / "diagnosis.md"


def signals_table() -> str:
    """One row per signal: what it reads and the values at which each level begins."""
    nothing = History(steps=np.zeros(0, "i8"), columns={})
    rows = ["| signal | reads | watch | unhealthy | collapsed | unit | source of the numbers |", "|---|---|---|---|---|---|---|"]
    for read in SIGNALS:
        found = read(nothing)
        bound = THRESHOLDS[found.name]
        about = " ".join((read.__doc__ or "").split("\n\n")[0].split()).replace("|", "\\|")
        levels = " | ".join("–" if value is None else f"{'≤' if bound.falling else '≥'} {value:g}" for value in (bound.watch, bound.unhealthy, bound.collapsed))
        rows.append(f"| **{found.title}** `{found.name}` | {about} | {levels} | {bound.unit} | {bound.source} |")
    return "\n".join(rows)


def causes_table() -> str:
    """One row per cause: which signals put it on the table, which speak for it, and which rule it out."""
    rows = ["| cause | what happens | seen when | unhealthy too, together | also speaks for it | ruled out by |", "|---|---|---|---|---|---|"]
    for signature in SIGNATURES:
        needs, agree, bars = (" or ".join(_levels(need) for need in group) or "–" for group in (signature.needs, signature.agree, signature.unless))
        supports = ", ".join(signature.supports) or "–"
        rows.append(f"| **{signature.title}** `{signature.name}` | {signature.explains} | {needs} | {agree} | {supports} | {bars} |")
    return "\n".join(rows)


def filled(text: str) -> str:
    """The document with each `<!-- name -->…<!-- /name -->` block made anew."""
    for name, table in (("signals", signals_table()), ("causes", causes_table())):
        before, _, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        text = f"{before}<!-- {name} -->\n{table}\n{end}{after}"
    return text


def _levels(need) -> str:
    return " + ".join(f"{name} {level.word}" for name, level in need.items())


if __name__ == "__main__":
    PATH.write_text(filled(PATH.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PATH}")

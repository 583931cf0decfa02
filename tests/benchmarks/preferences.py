"""A corpus for GEPO's second stream: sums of the arithmetic task with their worked answer, preferred over two that end wrong.

Run: python -m tests.benchmarks.preferences preferences.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from grpo_core.tasks.arithmetic import worked_answer
from tests.benchmarks.diagnosis import some_pairs

ROWS = 400


def preference(a: int, b: int) -> dict[str, object]:
    """One row: the worked answer, and the same with a sum that is 1 or 10 too large."""
    steps, _, total = worked_answer(a, b).partition(":")
    return {"prompt": f"{a}+{b}=", "chosen": f"{steps}:{total}", "rejected": [f"{steps}:{int(total) + 1}", f"{steps}:{int(total) + 10}"]}


def write(path: Path, rows: int = ROWS) -> None:
    path.write_text("".join(json.dumps(preference(a, b)) + "\n" for a, b in some_pairs(rows)))


if __name__ == "__main__":
    write(Path(sys.argv[1]))

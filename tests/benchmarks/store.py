"""What the store takes and gives: how fast steps become durable and can be asked for, bytes per token and what their precision changes, questions on
growing runs, freshness, the step thread.

Every ratio is measured side by side in one run: the ways to write take turns step by step, and questions take turns call by call.
The steps are made up (store_parts/steps.py) and go through the real recorder and RunWriter. All files lie in a folder beside the runs
and are gone afterwards. 1e8 tokens need 1 GB and some minutes; 1e9 tokens 9 GB and a quarter of an hour, most of them copied in place.
Run: python -m grpo_core bench store --parts ingest,bytes,precision,growth,fresh,loop --tokens 1e6,1e7
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from grpo_core.errors import ConfigError
from grpo_core.launch.folder import default_store
from tests.benchmarks.machine import machine_line
from tests.benchmarks.store_parts import fresh, growth, ingest, loop, precision, sizes
from tests.benchmarks.store_parts.steps import Shape

PARTS = ("ingest", "bytes", "precision", "growth", "fresh", "loop")


def main(
    *,
    parts: str = ",".join(PARTS),
    tokens: str | float = "1e6,1e7",
    completion: int = 256,
    groups: int = 8,
    group_size: int = 8,
    every_trace: bool = False,
    precision_steps: int = 150,
    repeats: int = 20,
    sealed: bool = False,
    written_steps: int = growth.WRITTEN_STEPS,
    open_pages: bool = False,
    rounds: int = 3,
    writers: int = 4,
    readers: int = 3,
    fresh_steps: int = 15,
    fresh_every_s: float = 2.0,
    loop_steps: int = 40,
    loop_every_s: float = 0.5,
    training_steps: int = 160,
    helper_starts_s: float = ingest.HELPER_STARTS_S,
) -> dict[str, dict]:
    """Print the figures of the chosen parts and return them. `growth` takes all of `tokens`, `ingest` and `bytes` the first.

    With `open_pages`, `growth` also opens pages on its runs.
    """
    chosen = [part.strip() for part in str(parts).split(",")]
    totals = _totals(str(tokens))
    shape = Shape(groups=groups, group_size=group_size, tokens=completion, every_trace=every_trace)
    work: dict[str, tuple[Callable[[Path], dict], Callable[[dict], None]]] = {
        "ingest": (lambda folder: ingest.measure(folder, tokens=totals[0], shape=shape, rounds=rounds, helper_starts_s=helper_starts_s), ingest.report),
        "bytes": (lambda folder: sizes.measure(folder, tokens=totals[0], shape=shape), sizes.report),
        "precision": (lambda folder: precision.measure(folder, training_steps=precision_steps), precision.report),
        "growth": (
            lambda folder: growth.measure(folder, sizes=totals, shape=shape, repeats=repeats, sealed=sealed, written=written_steps, pages=open_pages),
            growth.report,
        ),
        "fresh": (lambda folder: fresh.measure(folder, steps=fresh_steps, every_s=fresh_every_s, shape=shape, writers=writers, readers=readers), fresh.report),
        "loop": (lambda folder: loop.measure(folder, steps=loop_steps, every_s=loop_every_s, training_steps=training_steps, shape=shape), loop.report),
    }
    if unknown := [part for part in chosen if part not in work]:
        raise ConfigError(f"parts: unknown part {unknown[0]!r}; known: {', '.join(PARTS)}")
    print(machine_line("pyarrow", "duckdb", "numpy", "pandas"))
    kind = "every trace, with another engine's log-probs and a reference model" if every_trace else "traces of a run without another engine and reference model"
    print(f"steps of {groups} × {group_size} completions of about {completion} tokens; {kind}")
    store = default_store()
    store.mkdir(parents=True, exist_ok=True)
    found = {}
    for part in chosen:
        measure, report = work[part]
        with tempfile.TemporaryDirectory(prefix="bench-", dir=store) as folder:
            found[part] = measure(Path(folder))
        print()
        report(found[part])
    return found


def _totals(text: str) -> list[int]:
    try:
        found = [int(float(number)) for number in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise ConfigError(f"tokens: input should be numbers of at least 1 like 1e6,1e7, got {text!r}")
    return found

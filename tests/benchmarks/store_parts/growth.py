"""How long the pages' questions take as a run grows: the same functions of storage/queries that they call, on runs of several sizes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from grpo_core.trace.tables import to_tables
from storage.compaction import read_tables
from storage.encode import publish_tables
from storage.layout import merged_name, read_layout
from storage.queries import conflicts, evidence, groups, integrity, lab, likelihood, runs, steps, variance
from storage.reader import Store
from storage.schema import TABLES
from storage.segments import RunWriter, seal
from tests.benchmarks.store_parts import opening
from tests.benchmarks.store_parts.steps import Maker, Shape, later, renumbered

DISTINCT = 64
"""Steps that are made; a longer run repeats them under later numbers."""
COMPACT_EVERY = 64
WRITTEN_STEPS = 8192
"""Steps of a longer run that RunWriter writes; its large merged files are then copied under later step numbers."""
COPIED_STEPS = 1024
"""Steps of a file that is copied: two merges."""

Ask = Callable[[int, int], object]


def questions(store: Store, run_id: str, last: int, prompt_hash: str) -> dict[str, Ask]:
    """What pages and the watcher ask, by name, of a step and a group drawn anew for every call."""
    q = partial
    whole_run = {
        "steps.step_series": q(steps.step_series, store, run_id),
        "steps.step_series, new steps": q(steps.step_series, store, run_id, last - 1),
        "steps.course": q(steps.course, store, run_id),
        "runs.last_step": q(runs.last_step, store, run_id),
        "runs.reward_curve": q(runs.reward_curve, store, run_id),
        "runs.run_size": q(runs.run_size, store, run_id),
        "variance.outcome_counts": q(variance.outcome_counts, store, run_id),
        "variance.prompt_scores": q(variance.prompt_scores, store, run_id),
        "variance.prompt_groups": q(variance.prompt_groups, store, run_id, prompt_hash),
        "variance.prompt_states": q(variance.prompt_states, store, run_id, prompt_hash),
        "groups.prompt_history": q(groups.prompt_history, store, run_id, prompt_hash),
        "groups.vocabulary": q(groups.vocabulary, store, run_id),
        "integrity.scored_rollouts": q(integrity.scored_rollouts, store, run_id),
        "lab.first_entropy": q(lab.first_entropy, store, run_id),
    }
    one_step = {
        "steps.position_profile": steps.position_profile,
        "groups.groups_of_step": groups.groups_of_step,
        "groups.verdicts_of_step": groups.verdicts_of_step,
        "conflicts.conflict_positions": conflicts.conflict_positions,
        "conflicts.pushed_rollouts": conflicts.pushed_rollouts,
        "likelihood.worst_tokens": likelihood.worst_tokens,
        "evidence.lost_token": evidence.lost_token,
        "lab.rollouts_of_step": lab.rollouts_of_step,
        "lab.part_weights": lab.part_weights,
    }
    one_group = {
        "groups.rollouts_of_group": groups.rollouts_of_group,
        "evidence.pushed_rollouts_of_group": evidence.pushed_rollouts_of_group,
    }
    return {
        **{name: lambda step, group, ask=ask: ask() for name, ask in whole_run.items()},
        **{name: lambda step, group, ask=ask: ask(store, run_id, step) for name, ask in one_step.items()},
        "evidence.worst_groups": lambda step, group: evidence.worst_groups(store, run_id, step, "entropy", lowest=True),
        **{name: lambda step, group, ask=ask: ask(store, run_id, step, group) for name, ask in one_group.items()},
    }


def measure(
    folder: Path, *, sizes: Sequence[int], shape: Shape, repeats: int, sealed: bool = False, written: int = WRITTEN_STEPS, pages: bool = False
) -> dict[str, object]:
    """Every question `repeats` times on segments, or on sealed tables; runs of all sizes answer it in turn, so that a slow moment slows all.

    With `pages`, also how long pages take to open.
    """
    made = Maker(shape)
    tables = [to_tables(step) for step in tqdm(made.steps(DISTINCT), desc="growth: making steps", total=DISTINCT, leave=False)]
    tokens = [int(table["rollouts"]["length"].to_numpy().sum()) for table in tables]
    store = Store(folder)
    runs_built, asked = {}, {}
    for size in sizes:
        run_id = f"tokens-{size}"
        wall_s, count = _timed(lambda size=size, run_id=run_id: _build(store.root / "runs" / run_id, tables, tokens, size, made.pieces, written))
        if sealed:
            seal(store.root / "runs" / run_id)
        last = store.last_step(run_id)
        prompt = groups.groups_of_step(store, run_id, last)["prompt_hash"].iloc[0]
        asked[size] = questions(store, run_id, last, prompt)
        segments = read_layout(store.root / "runs" / run_id).segments
        runs_built[size] = {
            "tokens": sum(tokens[n % DISTINCT] for n in range(count)),
            "steps": count,
            "build_s": wall_s,
            "bytes": sum(segment.path.stat().st_size for table in segments.values() for segment in table),
            "files": {name: len(table) for name, table in segments.items()},
        }
    ms = _asked(asked, {size: run["steps"] for size, run in runs_built.items()}, shape.groups, repeats)
    figures = {size: run | {"ms": {name: _quantiles(found) for name, found in ms[size].items()}} for size, run in runs_built.items()}
    found = {"repeats": repeats, "sealed": sealed, "written": written, "sizes": figures, "ratios": _ratios(figures, ms)}
    if not pages:
        return found
    opened = opening.measure(store.root, {size: run["steps"] for size, run in runs_built.items()}, {size: f"tokens-{size}" for size in sizes})
    return found | {"pages": opened}


def report(figures: dict[str, object]) -> None:
    """Print p50 and p95 of every question at every size, and how p50 grows for ten times as many tokens."""
    sizes = figures["sizes"]
    print(f"growth: p50 / p95 in ms of {figures['repeats']} calls after a first one, which also checks the bytes of every file it opens (1st)")
    state = "and sealed at the end" if figures["sealed"] else "and not sealed"
    print(f"runs are written by RunWriter, compacted as a run is {state}; beyond {DISTINCT} steps the same steps come again under later numbers,")
    print(f"beyond {figures['written']:,} steps as copies of whole merged files")
    for f in sizes.values():
        files = ", ".join(f"{count} of `{name}`" for name, count in f["files"].items())
        print(f"  {f['tokens']:>13,} tokens, {f['steps']:,} steps, {f['bytes'] / f['tokens']:.1f} bytes a token, files: {files}; built in {f['build_s']:.0f} s")
    print(f"{'':>34} " + " ".join(f"{f['tokens']:>16,} {'1st':>7}" for f in sizes.values()) + f" {'× per 10×':>10}")
    for name in next(iter(sizes.values()))["ms"]:
        cells = " ".join(f"{f['ms'][name]['p50']:7.1f} / {f['ms'][name]['p95']:6.1f} {f['ms'][name]['first']:7.0f}" for f in sizes.values())
        ratios = figures["ratios"].get(name)
        print(f"{name:>34} {cells} {' '.join(f'{r:.1f}' for r in ratios):>10}" if ratios else f"{name:>34} {cells}")
    if opened := figures.get("pages"):
        print(f"\na page's script from end to end, p50 in ms of {opening.TIMES}: in an app that knows nothing of the run yet / in one that has shown it")
        for page in opening.PAGES:
            print(f"{page:>34} " + " ".join(f"{opened[size][page]['first']:7.0f} / {opened[size][page]['again']:6.0f} {'':>7}" for size in sizes))


def _build(run_dir: Path, tables: Sequence[dict], tokens: Sequence[int], size: int, pieces: Sequence[str], written: int) -> int:
    """A run of at least `size` tokens; how many steps that took."""
    steps = _steps_for(tokens, size)
    copies = max(0, steps - max(written, COPIED_STEPS)) // COPIED_STEPS
    with RunWriter.open(run_dir) as writer, tqdm(total=steps, desc=f"growth: writing {size:,} tokens", unit="step", leave=False) as bar:
        writer.write_vocabulary(pieces)
        _write(writer, tables, range(COPIED_STEPS if copies else 0), bar)
        for copy in range(1, copies + 1):
            _copy(run_dir, copy * COPIED_STEPS)
            bar.update(COPIED_STEPS)
    with RunWriter.open(run_dir) as writer:
        _write(writer, tables, range(writer.last_step + 1, steps), bar)
    return steps


def _write(writer: RunWriter, tables: Sequence[dict], steps: range, bar: tqdm) -> None:
    for start in steps[::8]:
        block = range(start, min(start + 8, steps.stop))
        writer.append_steps([renumbered(tables[n % DISTINCT], n) for n in block])
        bar.update(len(block))
        if block.stop % COMPACT_EVERY < len(block):
            writer.compact()
    writer.compact()


def _copy(run_dir: Path, first: int) -> None:
    """The run's first COPIED_STEPS steps once more, as those from `first` on."""
    for name, segments in reversed(read_layout(run_dir).segments.items()):
        source = segments[0]
        assert (source.first, source.last) == (0, COPIED_STEPS - 1), "the first steps are one file"
        rows = (later(table, first) for table in read_tables([source]))
        publish_tables(run_dir / name, merged_name(first, first + COPIED_STEPS - 1), rows, TABLES[name], "rounded")


def _steps_for(tokens: Sequence[int], size: int) -> int:
    rounds, rest = divmod(size, sum(tokens))
    return rounds * len(tokens) + int(np.searchsorted(np.cumsum(tokens), rest) + 1 if rest else 0)


def _asked(asked: dict[int, dict[str, Ask]], steps: dict[int, int], groups_per_step: int, repeats: int) -> dict[int, dict[str, list[float]]]:
    """Milliseconds of every call by size and question, the first one included."""
    rng = np.random.default_rng(0)
    ms: dict[int, dict[str, list[float]]] = {size: {name: [] for name in found} for size, found in asked.items()}
    for _ in tqdm(range(repeats + 1), desc="growth: asking", leave=False):
        where, group = rng.random(), int(rng.integers(groups_per_step))
        for name in next(iter(asked.values())):
            for size, found in asked.items():
                step = int(where * steps[size])
                ms[size][name].append(1e3 * _timed(lambda ask=found[name]: ask(step, group))[0])  # noqa: B023
    return ms


def _quantiles(found: Sequence[float]) -> dict[str, float]:
    return {"first": found[0], "p50": float(np.median(found[1:])), "p95": float(np.quantile(found[1:], 0.95))}


def _ratios(figures: dict[int, dict], ms: dict[int, dict[str, list[float]]]) -> dict[str, list[float]]:
    """By question: the median over calls of each size's time over that of the size before, as if there were ten times as many tokens."""
    pairs = list(zip(figures, list(figures)[1:]))
    if not pairs:
        return {}
    return {name: [_per_ten(ms[a][name], ms[b][name], figures[b]["tokens"] / figures[a]["tokens"]) for a, b in pairs] for name in ms[pairs[0][0]]}


def _per_ten(smaller: Sequence[float], larger: Sequence[float], growth: float) -> float:
    return float(np.median(np.divide(larger[1:], smaller[1:])) ** (1 / math.log10(growth)))


def _timed(action: Callable[[], object]) -> tuple[float, object]:
    began = time.perf_counter()
    result = action()
    return time.perf_counter() - began, result

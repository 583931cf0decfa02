"""Bytes per token: every precision live, compacted and sealed, which columns they go to, and JSON lines beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from grpo_core.records import StepTrace
from grpo_core.trace.tables import to_tables
from storage.compaction import BLOCK
from storage.encode import MANTISSA_BITS
from storage.layout import read_layout
from storage.schema import ROLLOUTS
from storage.segments import RunWriter, seal
from tests.benchmarks.store_parts import rows
from tests.benchmarks.store_parts.steps import Maker, Shape, tokens_of

AIMS = {"rounded": 10.0, "half": 7.0}
"""Bytes per token that a compacted run may take."""
SHOWN = 0.1
"""Bytes per token from which a column is worth a line."""
STATES = ("live", "compacted", "sealed")


def measure(folder: Path, *, tokens: int, shape: Shape, precisions: Sequence[str] = tuple(MANTISSA_BITS)) -> dict[str, object]:
    """The same steps in every precision; at least so many that they are merged."""
    steps = list(tqdm(Maker(shape).steps(max(BLOCK, round(tokens / shape.tokens_per_step))), desc="bytes: making steps", total=None, leave=False))
    total = sum(tokens_of(step.groups) for step in steps)
    tables = [to_tables(step) for step in steps]
    runs = {precision: _run(folder / precision, tables, precision) for precision in tqdm(precisions, desc="bytes: precisions", leave=False)}
    columns = runs[precisions[0]]["columns"]
    shown = sorted((name for name, size in columns["live"].items() if size >= SHOWN * total), key=columns["live"].get, reverse=True)
    jsonl = {name: _jsonl_size(folder / f"{decimals}.jsonl", steps, decimals) for name, decimals in (("JSONL", None), ("JSONL, 4 decimals", 4))}
    return {
        "tokens": total,
        "steps": len(steps),
        "runs": {precision: {name: size / total for name, size in run["sizes"].items()} for precision, run in runs.items()},
        "columns": {name: {state: columns[state][name] / total for state in STATES} for name in shown},
        "jsonl": {name: size / total for name, size in jsonl.items()},
    }


def report(figures: Mapping[str, object]) -> None:
    """Print both tables and whether the aims are met."""
    print(f"bytes per token, everything recorded included: {figures['tokens']:,} tokens in {figures['steps']} steps")
    print(f"{'precision':>18} " + " ".join(f"{state:>10}" for state in STATES))
    for precision, sizes in figures["runs"].items():
        print(f"{precision:>18} " + " ".join(f"{sizes[state]:10.2f}" for state in STATES))
    for name, size in figures["jsonl"].items():
        print(f"{name:>18} {size:10.2f}")
    precision, sizes = next(iter(figures["runs"].items()))
    print(f"where they go with precision {precision}: columns of `rollouts`, other tables")
    for name, column in figures["columns"].items():
        print(f"{name:>18} " + " ".join(f"{column[state]:10.2f}" for state in STATES))
    print(f"{'(all else)':>18} " + " ".join(f"{sizes[state] - sum(column[state] for column in figures['columns'].values()):10.2f}" for state in STATES))
    for precision, aim in AIMS.items():
        if precision in figures["runs"]:
            sizes = figures["runs"][precision]
            print(f"aim: {precision} at most {aim:g}: " + ", ".join(f"{state} {'met' if sizes[state] <= aim else 'MISSED'}" for state in STATES))


def _run(run_dir: Path, tables: Sequence[Mapping[str, pa.Table]], precision: str) -> dict[str, dict]:
    with RunWriter.open(run_dir, precision=precision) as writer:
        for step in tables:
            writer.append_step(step)
        columns, sizes = {"live": _segment_columns(run_dir)}, {"live": _segments_size(run_dir)}
        writer.compact()
        columns["compacted"], sizes["compacted"] = _segment_columns(run_dir), _segments_size(run_dir)
    seal(run_dir)
    columns["sealed"], sizes["sealed"] = _segment_columns(run_dir), _segments_size(run_dir)
    return {"columns": columns, "sizes": sizes}


def _segments_size(run_dir: Path) -> int:
    return sum(segment.path.stat().st_size for segments in read_layout(run_dir).segments.values() for segment in segments)


def _segment_columns(run_dir: Path) -> Counter[str]:
    """Bytes of each column of `rollouts` in the segments that count, and of the other tables."""
    found: Counter[str] = Counter()
    for table, segments in read_layout(run_dir).segments.items():
        for segment in segments:
            found += _column_chunks(segment.path) if table == ROLLOUTS.name else Counter({f"({table})": segment.path.stat().st_size})
    return found


def _column_chunks(path: Path) -> Counter[str]:
    metadata = pq.read_metadata(path)
    chunks = (metadata.row_group(g).column(c) for g in range(metadata.num_row_groups) for c in range(metadata.num_columns))
    found: Counter[str] = Counter()
    for chunk in chunks:
        found[chunk.path_in_schema.split(".")[0]] += chunk.total_compressed_size
    return found


def _jsonl_size(path: Path, steps: Sequence[StepTrace], decimals: int | None) -> int:
    for step in steps:
        rows.append_jsonl(path, step, decimals=decimals)
    size = path.stat().st_size
    path.unlink()
    return size

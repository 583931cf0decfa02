"""How fast steps come to lie safely on disk, and how fast they can be asked for, beside what users do today and what the disk and zstd allow."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from grpo_core.records import StepTrace
from grpo_core.trace.flat import flatten
from grpo_core.trace.groups import group_figures
from grpo_core.trace.recorder import COMPACT_EVERY, Recorder
from grpo_core.trace.tables import flat_tables, to_tables
from storage.encode import rounded
from storage.publish import publish
from storage.queries.conflicts import pushed_rollouts
from storage.queries.lab import rollouts_of_step
from storage.queries.runs import run_size
from storage.reader import Store
from storage.schema import TABLES
from storage.segments import RunWriter, encode_steps
from tests.benchmarks.store_parts import rows
from tests.benchmarks.store_parts.steps import Maker, Shape, tokens_of

RAW, SEGMENT, WHOLE, RECORDER = "raw limit", "tables to segment", "step to segment", "recorder"
TOGETHER = 8
"""Steps written together, as the recorder does with those that come within two seconds."""
SEGMENTS = f"tables to segment, {TOGETHER} steps together"
SLOWEST = 2.0
"""Times the raw limit that storing may take."""
WARM_UP = 6
HELPER_STARTS_S = 6.0
"""How long the process beside the recorder may take to be up; it is started at the fifth step."""


@dataclass(slots=True)
class Way:
    """A way to keep a step: `write` returns once it is durable, `read` gives all its rows back."""

    name: str
    write: Callable[[StepTrace], object]
    read: Callable[[StepTrace], object] | None
    folder: Path
    write_s: list[float] = field(default_factory=list)
    read_s: list[float] = field(default_factory=list)


def measure(folder: Path, *, tokens: int, shape: Shape, rounds: int = 3, helper_starts_s: float = HELPER_STARTS_S) -> dict[str, object]:
    """Every way writes and reads each step in turn, so that a machine that slows down slows all of them."""
    maker = Maker(shape)
    steps = list(tqdm(maker.steps(max(4, round(tokens / shape.tokens_per_step))), desc="ingest: making steps", total=None, leave=False))
    tokens_S = np.array([tokens_of(step.groups) for step in steps])
    tables = [to_tables(step) for step in steps]
    raw = [raw_buffers(t) for t in tables]
    for name in (RAW, SEGMENT, WHOLE, "others"):
        (folder / name).mkdir()
    store = Store(folder / "stores")
    direct, whole = (store.root / "runs" / name for name in ("direct", "whole"))
    with RunWriter.open(direct) as direct_writer, RunWriter.open(whole) as whole_writer:
        ways = [
            Way(RAW, lambda s: write_raw(folder / RAW, s.step, raw[s.step]), None, folder / RAW),
            Way(SEGMENT, lambda s: direct_writer.append_step(tables[s.step]), lambda s: rollouts_of_step(store, "direct", s.step), direct),
            Way(WHOLE, lambda s: whole_writer.append_step(to_tables(s)), lambda s: pushed_rollouts(store, "whole", s.step), whole),
            *_others(folder / "others"),
        ]
        for step in tqdm(steps, desc="ingest: each way in turn", leave=False):
            for way in ways:
                way.write_s.append(_timed(way.write, step))
                if way.read:
                    way.read_s.append(_timed(way.read, step))
    burst = steps[: COMPACT_EVERY - WARM_UP - 1]  # fewer than are merged
    pairs_s = [
        (_timed(lambda: [write_raw(folder / RAW, s.step, raw[s.step]) for s in burst]), recorder_s(folder / f"recorder-{n}", burst, helper_starts_s))
        for n in tqdm(range(rounds), desc="ingest: recorder", leave=False)
    ]
    figures = {way.name: _figures(way, ways[0], tokens_S) for way in ways} | {SEGMENTS: _together(store, folder / RAW, tables, raw, tokens_S)}
    alone_s, handed_s = np.array(pairs_s).T
    figures[RECORDER] = {"write": float(np.median(tokens_S[: len(burst)].sum() / handed_s)), "times_raw": float(np.median(handed_s / alone_s))}
    counts = {"tokens": int(tokens_S.sum()), "steps": len(steps), "burst": len(burst), "rounds": rounds}
    return counts | {"ways": figures, "stages_ms": _stages(folder / "stages", steps)}


def _together(store: Store, raw_folder: Path, tables: Sequence[dict[str, pa.Table]], raw: Sequence[list[bytes]], tokens_S: np.ndarray) -> dict[str, float]:
    """The figures of several steps a segment, each time beside the raw limit of the same steps, a file each."""
    blocks = [range(first, min(first + TOGETHER, len(tables))) for first in range(0, len(tables), TOGETHER)]
    alone_s, together_s = [], []
    with RunWriter.open(store.root / "runs" / "together") as writer:
        for block in tqdm(blocks, desc="ingest: several steps together", leave=False):
            alone_s.append(_timed(lambda: [write_raw(raw_folder, n, raw[n]) for n in block]))  # noqa: B023
            together_s.append(_timed(lambda: writer.append_steps([tables[n] for n in block])))  # noqa: B023
    read_s = [_timed(rollouts_of_step, store, "together", n) for n in range(len(tables))]
    tokens_B = np.array([tokens_S[list(block)].sum() for block in blocks])
    return {
        "write": float(np.median(tokens_B / together_s)),
        "times_raw": float(np.median(np.array(together_s) / alone_s)),
        "bytes_per_token": run_size(store, "together") / int(tokens_S.sum()),
        "read": float(np.median(tokens_S / read_s)),
    }


def report(figures: dict[str, object]) -> None:
    """Print the table and whether the aim is met."""
    ways = figures["ways"]
    print(f"ingest: {figures['tokens']:,} tokens in {figures['steps']} steps; each step durable (fsync) before the next; medians over steps")
    print(f"{'':>38} {'written':>12} {'× raw':>7} {'read back':>12} {'bytes':>7}\n{'':>38} {'tokens/s':>12} {'time':>7} {'tokens/s':>12} {'/token':>7}")
    for name, f in ways.items():
        read, size = (f"{f['read']:12,.0f}", f"{f['bytes_per_token']:7.1f}") if "read" in f else ("", "")
        print(f"{name:>38} {f['write']:12,.0f} {f['times_raw']:7.1f} {read} {size}")
    print(f"{RAW}: the same rounded bytes, split as in a segment, through the same zstd into one file per step, written, fsynced and renamed")
    print(f"{SEGMENTS}: RunWriter.append_steps, beside the raw limit of the same steps, a file each")
    print(f"{SEGMENT}: RunWriter.append_step, read back with every trace; {WHOLE}: with the figures of each group and step, read back token ids only")
    rounds = f"in {figures['rounds']} rounds each beside the raw limit"
    print(f"{RECORDER}: from the first record() to the end of flush(), a burst of {figures['burst']} steps, {rounds}")
    print("a step's way in ms: " + ", ".join(f"{name} {ms:.1f}" for name, ms in figures["stages_ms"].items()))
    print("reading a step back out of JSONL takes reading all lines before it; all other ways have a file or a listing to go by")
    ours = (SEGMENT, SEGMENTS, WHOLE, RECORDER)
    others = {n: f["times_raw"] for n, f in ways.items() if n not in (RAW, *ours)}
    for name in ours:
        ahead = [n for n, times in others.items() if times < ways[name]["times_raw"]]
        met = ways[name]["times_raw"] <= SLOWEST
        behind = f"slower than {', '.join(ahead)}" if ahead else "ahead of every other"
        print(f"aim: {name} at most {SLOWEST:g} × the raw limit: {'met' if met else 'MISSED'}; {behind}")


def _stages(run_dir: Path, steps: Sequence[StepTrace]) -> dict[str, float]:
    """Median milliseconds of each part of a step's way into a segment, the part before it left out."""
    with RunWriter.open(run_dir) as writer:
        found_S = [_stage_seconds(writer, step) for step in tqdm(steps, desc="ingest: stages", leave=False)]
    return {name: 1e3 * float(np.median([found[name] for found in found_S])) for name in found_S[0]}


def _stage_seconds(writer: RunWriter, step: StepTrace) -> dict[str, float]:
    moments = [time.perf_counter()]
    flat = flatten(step)
    moments.append(time.perf_counter())
    group_figures(flat)
    moments.append(time.perf_counter())
    tables = flat_tables(flat)  # makes the figures of groups again, so their time comes off
    moments.append(time.perf_counter())
    encoded = encode_steps([tables], writer.precision)
    moments.append(time.perf_counter())
    writer.append(encoded)
    moments.append(time.perf_counter())
    flattening, figures, tabling, encoding, publishing = np.diff(moments).tolist()
    return {"flatten": flattening, "figures of groups": figures, "other figures, tables": tabling - figures, "encode": encoding, "write, fsync": publishing}


def raw_buffers(tables: dict[str, pa.Table]) -> list[bytes]:
    """The step's rounded columns as bytes, floats split byte by byte as Parquet's BYTE_STREAM_SPLIT does: what is left is zstd and the disk."""
    found = []
    for name, table in tables.items():
        for column in rounded(table, TABLES[name], "rounded").columns:
            for chunk in column.chunks:
                values = chunk.values if pa.types.is_list(chunk.type) else chunk
                if pa.types.is_float32(values.type) and len(values):
                    numbers = np.frombuffer(values.buffers()[1], "u1").reshape(-1, 4)
                    found.append(np.ascontiguousarray(numbers.T).tobytes())
                else:
                    found += [buffer.to_pybytes() for buffer in values.buffers() if buffer is not None and buffer.size]
    return found


def write_raw(folder: Path, step: int, buffers: Sequence[bytes]) -> None:
    """Compress, write, fsync, rename; nothing else."""
    publish(folder, f"{step}.bin", lambda path: path.write_bytes(b"".join(pa.compress(buffer, codec="zstd", asbytes=True) for buffer in buffers)))


def _others(folder: Path) -> list[Way]:
    jsonl, wandb, parquet, trl = (folder / name for name in ("jsonl", "wandb", "parquet", "trl"))
    for made in (jsonl, wandb, parquet, trl):
        made.mkdir()
    lines, one = jsonl / "rows.jsonl", "{:05d}.{}".format
    return [
        Way("JSONL", lambda s: rows.append_jsonl(lines, s), lambda s: rows.read_jsonl_lines(lines, sum(len(g.rollouts) for g in s.groups)), jsonl),
        Way(
            "W&B-style table, JSON per step",
            lambda s: rows.write_wandb_table(wandb / one(s.step, "table.json"), s),
            lambda s: rows.read_wandb_table(wandb / one(s.step, "table.json")),
            wandb,
        ),
        Way(
            "pandas parquet per step",
            lambda s: rows.write_parquet(parquet / one(s.step, "parquet"), s),
            lambda s: pd.read_parquet(parquet / one(s.step, "parquet")),
            parquet,
        ),
        Way(
            "TRL's completions (no tokens)",
            lambda s: rows.write_trl_parquet(trl / one(s.step, "parquet"), s),
            lambda s: pd.read_parquet(trl / one(s.step, "parquet")),
            trl,
        ),
    ]


def recorder_s(run_dir: Path, steps: Sequence[StepTrace], helper_starts_s: float) -> float:
    """Seconds from the first step handed over until all are durable; what the recorder starts up with is over before."""
    recorder = Recorder(run_dir, queue_steps=2 * len(steps) + 10)
    try:
        warm_up = Maker(Shape(groups=1, group_size=2, tokens=8))
        for step in warm_up.steps(WARM_UP):
            recorder.record(step)
        recorder.flush(60)
        time.sleep(helper_starts_s)
        began = time.perf_counter()
        for step in steps:
            recorder.record(replace(step, step=step.step + WARM_UP))
        recorder.flush(600)
        seconds = time.perf_counter() - began
        assert recorder.missing == 0 and recorder.failure is None, recorder.failure
        return seconds
    finally:
        recorder.close(seal=False)


def _figures(way: Way, raw: Way, tokens_S: np.ndarray) -> dict[str, float]:
    written = sum(file.stat().st_size for file in way.folder.rglob("*") if file.is_file() and file.name not in ("run.duckdb", "empty.parquet"))
    return {
        "write": float(np.median(tokens_S / way.write_s)),
        "times_raw": float(np.median(np.array(way.write_s) / raw.write_s)),
        "bytes_per_token": written / int(tokens_S.sum()),
    } | ({"read": float(np.median(tokens_S / way.read_s))} if way.read else {})


def _timed(action: Callable[..., object], *arguments: object) -> float:
    began = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - began

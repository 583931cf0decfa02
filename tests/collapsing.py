"""A real run that collapses within a few steps, recorded: trained once per test process."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from grpo_core.launch.folder import RunFolder
from grpo_core.launch.start import create_run
from grpo_core.records import StepTrace
from grpo_core.trace.tables import to_tables
from storage import segments
from tests.trainer.small_runs import Watched, small_config

STEPS = 12
COLLAPSING = dict(name="too fast", steps=STEPS, lr=3e-3, epochs=4, prompts_per_step=8, probe_every=1, eval_every=4, eval_prompts=16)


@cache
def traces(cache: Path) -> tuple[StepTrace, ...]:
    run = Watched(cache / "collapsing", cache)
    run.run(small_config(**COLLAPSING))
    return tuple(run.traces)


def recorded(store_root: Path, model_cache: Path, *, steps: int = STEPS, checkpoints: tuple[int, ...] = ()) -> RunFolder:
    """A run folder in which the first steps are recorded, one segment each, as of a run whose process has just died; `checkpoints` are empty ones."""
    folder = create_run(store_root, small_config(**COLLAPSING))
    with segments.RunWriter.open(folder.path) as writer:
        for trace in traces(model_cache)[:steps]:
            writer.append_step(to_tables(trace))
    for done in checkpoints:
        place = folder.checkpoints / f"step-{done:08d}"
        place.mkdir(parents=True)
        (place / "trainer.pt").touch()
    return folder

"""The sentence of the project: one training step, from prompts to its trace."""

from __future__ import annotations

import time

from grpo_core.records import StepTrace
from grpo_core.trainer.batch import train_batch
from grpo_core.trainer.clock import Clock
from grpo_core.trainer.collect import collect_groups
from grpo_core.trainer.evaluate import evaluate
from grpo_core.trainer.probe import probe, remember_start
from grpo_core.trainer.remember import remember
from grpo_core.trainer.rescore import rescore
from grpo_core.trainer.state import TrainState
from grpo_core.trainer.traces import group_traces
from grpo_core.trainer.update import run_updates


def run_step(state: TrainState, step: int, *, attempt: int = 0, elapsed_s: float = 0.0, last: bool = False) -> StepTrace:
    """Sample groups, score them, update the policy on them, score them once more, and say everything that happened.

    `elapsed_s` is the run's training time before this step. The policy, optimizer and prompt sampler in `state` move.
    """
    clock = Clock()
    with clock.part("evaluate"):
        remember_start(state)
    judged = collect_groups(state, step, clock)
    kept = [j.scored for j in judged if j.kept]

    batch = updated = after = None
    if kept:
        with clock.part("update"):
            batch = train_batch(state, kept, step)
            updated = run_updates(state, batch, step)
        with clock.part("rescore"):
            after = rescore(state, batch, step)
    with clock.part("rescore"):
        remembered = remember(state, judged, batch)

    evaluation = None
    if state.config.eval_every and (step % state.config.eval_every == 0 or last):
        with clock.part("evaluate"):
            evaluation = evaluate(state)

    with clock.part("evaluate"):
        probed = probe(state, step, last=last)

    timings = clock.timings()
    return StepTrace(
        step=step,
        attempt=attempt,
        finished_at=time.time(),
        elapsed_s=elapsed_s + timings.total_s,
        timings=timings,
        groups=group_traces(judged, batch, updated, after, remembered),
        updates=updated.traces if updated else (),
        evaluation=evaluation,
        probe=probed,
    )

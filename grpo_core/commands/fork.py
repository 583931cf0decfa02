"""python -m grpo_core fork RUN: a new run that goes on from a checkpoint of another with changed settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from grpo_core.commands.finding import find_run
from grpo_core.commands.options import SectionedCommand, change_options, run_argument, store_option
from grpo_core.commands.printing import exit_with, say_notes
from grpo_core.errors import LaunchError
from grpo_core.running import run_training

if TYPE_CHECKING:
    from grpo_core.diagnosis.report import Report


@click.command(cls=SectionedCommand)
@run_argument
@click.option(
    "--step",
    type=click.IntRange(min=0),
    help="Steps that RUN had done at the checkpoint to go on from; 0 starts again. [default: the newest one from before trouble began]",
)
@click.option("--as-proposed", is_flag=True, help="Change what `diagnose` proposes; so it is when neither --step nor an option is given. Options given win.")
@click.option("--detach", is_flag=True, help="Go on in the background.")
@change_options
@store_option
def fork(run: str, step: int | None, as_proposed: bool, detach: bool, changes: dict[str, object], store: Path) -> None:
    """Start a new run from a checkpoint of RUN: its weights, optimizer and place in the data, with the options given here changed."""
    from grpo_core.launch.folder import RunFolder
    from grpo_core.launch.fork import create_fork, fork_run

    run_id = find_run(store, run)
    RunFolder.open(store, run_id).check_trained_here()
    if as_proposed or (step is None and not changes):
        step, changes = _proposed(store, run_id, step, changes)
    elif step is None:
        step = _before_trouble(store, run_id)
    if detach:
        forked = fork_run(store, run_id, step=step, changes=changes)
        say_notes(RunFolder.open(store, forked).read_config())
        click.echo(forked)
        return
    folder = create_fork(store, run_id, step=step, changes=changes)
    config = folder.read_config()
    say_notes(config)
    click.echo(f"run {folder.run_id} in {folder.path}, from step {step} of {run_id}", err=True)
    exit_with(run_training(folder, config, bar=True))


def _proposed(store: Path, run_id: str, step: int | None, changes: dict[str, object]) -> tuple[int, dict[str, object]]:
    """Where and with what to go on, as the diagnosis proposes, as far as it is not said already. Raises LaunchError."""
    remedy = _report(store, run_id).remedy
    if remedy is None or not remedy.changes:
        why = remedy.sentence if remedy else "it is not in trouble."
        raise LaunchError(f"there is no change to propose for run {run_id}: {why} Say what to change, e.g. --step 50 --lr 1e-4")
    return (remedy.fork_from or 0) if step is None else step, {**remedy.changes, **changes}


def _before_trouble(store: Path, run_id: str) -> int:
    """The newest checkpoint, or the newest from before the run's present trouble. Raises LaunchError where there is none."""
    from grpo_core.launch.folder import RunFolder

    there = RunFolder.open(store, run_id).checkpoint_steps()
    onset = _report(store, run_id).since_step
    early = [step for step in there if onset is None or step <= onset]
    if early:
        return early[-1]
    if there:
        raise LaunchError(
            f"every checkpoint of run {run_id} ({', '.join(map(str, there))}) is from after its trouble began "
            f"at step {onset}; choose one with --step, or 0 to start again"
        )
    raise LaunchError(f"run {run_id} has no checkpoint to go on from; --step 0 starts it again")


def _report(store: Path, run_id: str) -> Report:
    from grpo_core.watch.reading import report_on
    from storage.reader import Store

    return report_on(Store(store), run_id)

"""python -m grpo_core compare: methods trained under equal budgets over seeds, and what became of them.

What trains, reads and draws the bar is imported where it is used: every start of the command line passes through here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grpo_core.commands.options import SectionedCommand, json_option, setting_options, store_option
from grpo_core.commands.printing import answer, exit_with, table
from grpo_core.config import RunConfig, make_config
from grpo_core.errors import GroupscopeError
from grpo_core.methods import METHODS, method_name, unknown_method
from grpo_core.running import FAILED, OK

if TYPE_CHECKING:
    from grpo_core.study import Outcome

LOOK_S = 0.5
UNITS = "reward: mean of the last 5 steps; held-out: share correct; wall: s of training; ± is the standard deviation over seeds"


@click.command(cls=SectionedCommand)
@click.option("--methods", required=True, help="Methods to compare, with commas between them.")
@click.option("--seeds", default=3, show_default=True, type=click.IntRange(min=1), help="How many seeds each; they count up from --seed.")
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Runs at a time; they share the machine, so wall times are then longer.")
@setting_options
@store_option
@json_option
def compare(methods: str, seeds: int, jobs: int, settings: dict[str, object], store: Path, as_json: bool) -> None:
    """Train methods on the same task, budget and seeds, and print reward, held-out accuracy, verdicts and wall time with their spread.

    Runs are ordinary ones, tagged with the study's name; the app's page Study shows them side by side while they train. Ctrl-C stops them.
    """
    from grpo_core.study import new_tag

    if "method" in settings:
        raise click.UsageError(f"compare takes its methods from --methods; leave out --method {settings['method']}")
    wanted = [config for name, own in _each_its_own(_names(methods), settings).items() for config in _of_method(make_config(own), name, seeds)]
    study = new_tag()
    click.echo(f"{len(wanted)} runs, tagged {study}, in {store}", err=True)
    outcomes = _train_all(store, wanted, study, jobs)
    answer({"study": study, "runs": [asdict(one) for one in outcomes]}, as_json, text=_text(study, outcomes))
    exit_with(OK if all(one.state == "finished" for one in outcomes) else FAILED)


def _names(methods: str) -> list[str]:
    """The methods named, in order, by name or preset id. Raises UsageError for an unknown or repeated one."""
    written = [text.strip() for text in methods.split(",") if text.strip()]
    named = [method_name(text) for text in written]
    if None in named:
        raise click.UsageError(unknown_method(written[named.index(None)]))
    if not named or len(set(named)) < len(named):
        raise click.UsageError(f"--methods names methods once each, with commas between them, e.g. grpo,dr_grpo; got {methods!r}")
    return named


def _each_its_own(names: Sequence[str], settings: dict[str, object]) -> dict[str, dict[str, object]]:
    """The settings of each method: an option that only some of them read goes to those, one that none reads to all, who then refuse it."""
    read = frozenset().union(*(METHODS[name].knobs for name in names))
    return {name: {"method": name} | {k: v for k, v in settings.items() if k not in read or k in METHODS[name].knobs} for name in names}


def _of_method(config: RunConfig, method: str, seeds: int) -> Iterator[RunConfig]:
    for seed in range(config.seed, config.seed + seeds):
        yield config.with_changes(seed=seed, name=f"{method} seed {seed}")


def _train_all(store: Path, wanted: Sequence[RunConfig], study: str, jobs: int) -> list[Outcome]:
    """Train all, `jobs` at a time, with a bar over all their steps."""
    from tqdm import tqdm

    from grpo_core.launch.status import run_status

    waiting, run_ids = list(reversed(wanted)), []
    with _stopping(store, run_ids), tqdm(total=sum(c.steps for c in wanted), desc="training", unit="step", disable=None) as bar:
        while True:
            states = [run_status(store, run_id) for run_id in run_ids]
            bar.update(sum(s.step if s.alive else s.steps for s in states) - bar.n)  # one that ended early has nothing left to wait for
            alive = sum(s.alive for s in states)
            if not waiting and not alive:
                break
            for _ in range(min(jobs - alive, len(waiting))):
                run_ids.append(_start(store, waiting.pop(), study))
            time.sleep(LOOK_S)
    return [_outcome(store, run_id, config) for run_id, config in zip(run_ids, wanted, strict=True)]


def _start(store: Path, config: RunConfig, study: str) -> str:
    from grpo_core.launch.folder import catalog_place
    from grpo_core.launch.start import launch
    from storage.catalog import Catalog

    run_id = launch(store, config)
    Catalog(catalog_place(store)).set_tags(run_id, [study])
    return run_id


@contextmanager
def _stopping(store: Path, run_ids: list[str]) -> Iterator[None]:
    """Stop what still runs when the study is interrupted."""
    try:
        yield
    except BaseException:
        from grpo_core.launch.status import run_status
        from grpo_core.launch.stop import stop_runs

        alive = [run_id for run_id in run_ids if run_status(store, run_id).alive]
        click.echo("stopping the study's runs after their step", err=True)
        stop_runs(store, alive, lambda sentence: click.echo(sentence, err=True))
        raise


def _outcome(store: Path, run_id: str, config: RunConfig) -> Outcome:
    import numpy as np

    from grpo_core.launch.status import run_status
    from grpo_core.study import outcome
    from grpo_core.watch.reading import recorded_history, report_on
    from storage.errors import StoreError
    from storage.reader import Store

    status, opened = run_status(store, run_id), Store(store)
    try:
        history = recorded_history(opened, run_id)
        reward, held_out, report = history["reward_mean"], history["eval_correct"], report_on(opened, run_id, history)
    except (StoreError, GroupscopeError):  # it failed before it recorded anything
        reward = held_out = np.empty(0)
        report = None
    return outcome(config, status, reward=reward, held_out=held_out, report=report)


def _text(study: str, outcomes: Sequence[Outcome]) -> str:
    from grpo_core.study import by_method, findings

    rows = [_row(method, found) for method, found in by_method(outcomes).items()]
    head = ["METHOD", "SEEDS", "REWARD", "HELD-OUT: START", "BEST", "END", "VERDICTS", "WALL S"]
    return f"{' '.join(findings(outcomes))}\n\n{table(head, rows)}\n\n{UNITS}; runs are tagged {study}"


def _row(method: str, runs: Sequence[Outcome]) -> list[str]:
    from grpo_core.study import spread, verdicts

    figures = [spread([getattr(one, name) for one in runs]) for name in ("reward", "held_out_first", "held_out_best", "held_out_last")]
    return [method, str(len(runs)), *figures, verdicts(runs), spread([one.wall_s for one in runs], digits=0)]

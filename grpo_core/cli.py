"""python -m grpo_core …: the command line.

Torch, pandas and the store are imported inside the commands that need them, so that `--help` answers at once.
"""

from __future__ import annotations

import errno
import inspect
import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import click

from grpo_core.commands.compare import compare
from grpo_core.commands.diagnose import diagnose
from grpo_core.commands.export import export, import_
from grpo_core.commands.finding import find_run, names, no_runs, overview
from grpo_core.commands.fork import fork
from grpo_core.commands.mirror import mirror
from grpo_core.commands.options import SectionedCommand, config_options, json_option, run_argument, store_option
from grpo_core.commands.printing import answer, duration, exit_with, number, progress_bar, say_notes, sheet, table
from grpo_core.commands.retain import retain
from grpo_core.commands.sql import sql
from grpo_core.config import RunConfig
from grpo_core.errors import GroupscopeError, LaunchError
from grpo_core.methods import METHODS
from grpo_core.running import BAD_INPUT, FAILED, OK, run_training
from storage.errors import StoreError

INTERRUPTED = 130
BENCHMARKS = {
    "train": "a step beside TRL's on the same model and work",
    "prefix": "what computing a prompt once for its group saves, in time and memory",
    "recorder": "what recording costs",
    "store": "how fast steps are stored and asked for, bytes per token, growth, freshness",
    "diagnosis": "is the verdict right, on runs that collapse and healthy ones (trains them first: a quarter of an hour)",
    "remedies": "do forks as proposed hold",
    "llds": "does LLDS earn its place",
    "soak": "does a run of 10,000 steps end with every step, flat memory and few files",
    "kills": "what is lost when writers, trainers, commands and the app are killed at random moments",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 the run failed or is not in a state for it, 2 bad input, 3 unhealthy."""
    try:
        return cli.main(arguments, prog_name="python -m grpo_core", standalone_mode=False) or OK
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return OK
    except click.ClickException as error:
        return _complain(error.format_message(), BAD_INPUT)
    except (StoreError, LaunchError) as error:
        return _complain(str(error), FAILED)
    except GroupscopeError as error:
        return _complain(str(error), BAD_INPUT)
    except (click.Abort, KeyboardInterrupt):
        return _complain("interrupted", INTERRUPTED)
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:  # no room, no permission
        sentence = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        return _complain(f"{sentence}; choose a folder that can be written with --store" if error.errno == errno.EROFS else sentence, FAILED)


def _complain(sentence: str, code: int) -> int:
    click.echo(f"error: {' '.join(sentence.split())}", err=True)
    return code


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def cli() -> None:
    """Groupscope: train language models with GRPO and its relatives, record every token, and see why a run goes wrong."""


cli.add_command(compare)
cli.add_command(diagnose)
cli.add_command(export)
cli.add_command(fork)
cli.add_command(import_)
cli.add_command(mirror)
cli.add_command(retain)
cli.add_command(sql)


# Training ------------------------------------------------------------------------------------------------------------


@cli.command(cls=SectionedCommand)
@config_options
@store_option
@click.option("--run", "prepared", hidden=True, help="Take up a run folder that a launcher has prepared.")
def train(config: RunConfig, store: Path, prepared: str | None) -> None:
    """Train in the foreground, until done or Ctrl-C (which finishes the step and writes a checkpoint)."""
    from grpo_core.launch.folder import RunFolder
    from grpo_core.launch.start import create_run

    if prepared:
        folder = RunFolder.open(store, prepared)
        exit_with(run_training(folder, folder.read_config(), bar=False))
    folder = create_run(store, config)
    say_notes(config)
    click.echo(f"run {folder.run_id} in {folder.path}", err=True)
    exit_with(run_training(folder, config, bar=True))


@cli.command(cls=SectionedCommand)
@config_options
@store_option
@json_option
def launch(config: RunConfig, store: Path, as_json: bool) -> None:
    """Start a run in the background and print its id."""
    from grpo_core.launch.start import launch as launch_run

    run_id = launch_run(store, config)
    say_notes(config)
    answer({"run_id": run_id}, as_json, text=run_id)


@cli.command()
@run_argument
@click.option("--steps", type=int, help="Raise the run's number of steps, to go on with a finished one.")
@click.option("--detach", is_flag=True, help="Go on in the background.")
@store_option
def resume(run: str, steps: int | None, detach: bool, store: Path) -> None:
    """Go on with a stopped, failed or lost run from its newest checkpoint."""
    from grpo_core.launch.folder import RunFolder
    from grpo_core.launch.start import prepare_resume, resume_run

    run_id = find_run(store, run)
    if detach:
        resume_run(store, run_id, steps=steps)
        click.echo(run_id)
        return
    folder = RunFolder.open(store, run_id)
    prepare_resume(folder, steps=steps)
    exit_with(run_training(folder, folder.read_config(), bar=True))


# Runs ----------------------------------------------------------------------------------------------------------------


@cli.command()
@run_argument
@click.option("--grace", "grace_s", type=click.FloatRange(min=0), default=30.0, show_default=True, help="Seconds to wait before insisting.")
@store_option
@json_option
def stop(run: str, grace_s: float, store: Path, as_json: bool) -> None:
    """Stop a run: ask, then insist with SIGTERM and SIGKILL; says how it ended."""
    from grpo_core.launch.stop import stop_run

    run_id = find_run(store, run)
    result = stop_run(store, run_id, grace_s=grace_s)
    answer({"run_id": run_id, **asdict(result)}, as_json, text=result.sentence)
    exit_with(FAILED if result.outcome in ("already_over", "survived") else OK)


@cli.command()
@store_option
@json_option
def runs(store: Path, as_json: bool) -> None:
    """List all runs, newest first."""
    from storage.reader import Store

    opened = Store(store)
    named = names(store)
    rows = [overview(opened, run_id, named.get(run_id, "")) for run_id in sorted(opened.run_ids(), reverse=True)]
    lines = [
        [r["run_id"], r["state"], f"{r['step']}/{r['steps']}", number(r["reward"]), duration(r["eta_s"]), r["method"] or "-", r["name"], _origin(r)]
        for r in rows
    ]
    head = ["RUN", "STATE", "STEP", "REWARD", "ETA", "METHOD", "NAME", *(["FORKED FROM"] if any(r["parent"] for r in rows) else [])]
    answer(rows, as_json, text=table(head, lines) if rows else no_runs(opened.root))


def _origin(row: dict[str, object]) -> str:
    return f"step {row['parent_step']} of {row['parent']}" if row["parent"] else ""


@cli.command()
@run_argument
@store_option
@json_option
def show(run: str, store: Path, as_json: bool) -> None:
    """Show one run: status, latest figures, settings, and the command that repeats it."""
    from grpo_core.launch.folder import RunFolder
    from grpo_core.launch.fork import read_fork, repeating_command
    from storage.queries.runs import run_size
    from storage.queries.steps import step_series
    from storage.reader import Store

    run_id = find_run(store, run)
    opened = Store(store)
    folder = RunFolder.open(store, run_id)
    config = folder.read_config()
    series = step_series(opened, run_id)
    figures = json.loads(series.iloc[-1].to_json()) if len(series) else {}
    facts = {
        **overview(opened, run_id, names(store).get(run_id, "")),
        "bytes": run_size(opened, run_id),
        "command": shlex.join(repeating_command(read_fork(folder), config)),
        "figures": figures,
        "config": config.model_dump(mode="json"),
    }
    answer(facts, as_json, text=sheet(facts))


@cli.command()
@run_argument
@store_option
@json_option
def seal(run: str, store: Path, as_json: bool) -> None:
    """Merge an ended run's files into few and check them all, or finish what was cut short; run.duckdb finds a run that was moved again."""
    from grpo_core.launch.status import run_status
    from storage import segments
    from storage.reader import Store

    run_id = find_run(store, run)
    status = run_status(store, run_id)
    if status.alive:
        raise LaunchError(f"run {run_id} is {status.state}; it is sealed when it ends")
    run_dir = Store(store).run_dir(run_id)
    with progress_bar("sealing", "B") as progress:
        segments.seal(run_dir, progress=progress)
    answer({"run_id": run_id, "file": str(run_dir / "run.duckdb")}, as_json, text=f"sealed: {run_dir / 'run.duckdb'}")


@cli.command()
@json_option
def methods(as_json: bool) -> None:
    """List the training methods, each with its paper and the options it reads."""
    rows = [asdict(m) | {"preset": m.preset, "knobs": sorted(m.knobs)} for m in METHODS.values()]
    blocks = [
        f"{m.name}  ({m.title}, {m.paper})\n  preset: {m.preset}\n  {m.summary}\n  options: {', '.join(sorted(m.knobs)) or 'none of its own'}"
        for m in METHODS.values()
    ]
    answer(rows, as_json, text="\n\n".join(blocks))


# Tools ---------------------------------------------------------------------------------------------------------------


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", type=click.Choice(list(BENCHMARKS)))
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def bench(name: str, options: tuple[str, ...]) -> None:
    import importlib

    settings = _benchmark_options(options)
    try:
        benchmark = importlib.import_module(f"tests.benchmarks.{name}")
    except ModuleNotFoundError as error:
        missing = "this installation has no tests/ folder" if error.name.startswith("tests") else f"{error.name} is missing"
        raise click.UsageError(f"cannot run the benchmark: {missing}; run it in a checkout after `make test`, which installs what it needs") from None
    parameters = inspect.signature(benchmark.main).parameters
    unknown = sorted(settings.keys() - parameters.keys())
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        known = ", ".join(f"--{name.replace('_', '-')}" for name in parameters)
        raise click.UsageError(f"bench {name} has no option --{unknown[0].replace('_', '-')}; it has {known}")
    benchmark.main(**settings)


_each = "; ".join(f"{name}: {means}" for name, means in BENCHMARKS.items())
bench.help = f"Measure on this machine. OPTIONS are those of the benchmark, e.g. --steps 40.\n\n{_each}."


def _benchmark_options(options: tuple[str, ...]) -> dict[str, object]:
    """--key value pairs as keyword arguments; values that read as JSON (numbers, true) are taken so."""
    if len(options) % 2 or not all(key.startswith("--") for key in options[::2]):
        raise click.UsageError(f"benchmark options come in pairs like --steps 40, got: {' '.join(options)}")
    return {key[2:].replace("-", "_"): _json_or_text(value) for key, value in zip(options[::2], options[1::2])}


def _json_or_text(value: str) -> object:
    try:
        return json.loads(value)
    except ValueError:
        return value


@cli.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default="8501 or a free one", help="Port on 127.0.0.1.")
@store_option
def app(port: int, store: Path) -> None:
    """Open the app on 127.0.0.1 until Ctrl-C."""
    from grpo_core.demo import run_app

    run_app(store, port=port, say=click.echo)


@cli.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default="8501 or a free one", help="Port on 127.0.0.1.")
@store_option
def demo(port: int, store: Path) -> None:
    """Train a healthy and a collapsing run side by side and open the app on them, until Ctrl-C."""
    from grpo_core.demo import run_demo

    run_demo(store, port=port, say=click.echo)

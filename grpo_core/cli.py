"""python -m grpo_core …: the command line.

Torch, pandas and the store are imported inside the commands that need them, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args, get_origin

import click

from grpo_core.config import SECTIONS, RunConfig, load_config, make_config, structural_notes
from grpo_core.errors import GroupscopeError, LaunchError
from grpo_core.methods import METHODS
from grpo_core.presets import PRESETS, preset
from grpo_core.running import BAD_INPUT, FAILED, OK, run_training
from storage.errors import StoreError

if TYPE_CHECKING:
    from storage.reader import Store

INTERRUPTED = 130
STORE_VARIABLE = "GROUPSCOPE_STORE"
DEFAULT_STORE = "groupscope-data"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 the run failed or is not in a state for it, 2 bad input."""
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
        return _complain(f"{error.strerror}: {error.filename}" if error.filename else str(error), FAILED)


def _complain(sentence: str, code: int) -> int:
    click.echo(f"error: {' '.join(sentence.split())}", err=True)
    return code


# Options -------------------------------------------------------------------------------------------------------------


def store_option(command: Callable) -> Callable:
    return click.option(
        "--store",
        type=click.Path(path_type=Path, file_okay=False),
        default=lambda: Path(os.environ.get(STORE_VARIABLE) or DEFAULT_STORE),
        show_default=f"${STORE_VARIABLE} or ./{DEFAULT_STORE}",
        help="Folder that holds the runs.",
    )(command)


def json_option(command: Callable) -> Callable:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def run_argument(command: Callable) -> Callable:
    return click.argument("run", metavar="RUN")(command)


def config_options(command: Callable) -> Callable:
    """`--preset`, `--config` and one flag for every option of RunConfig; the command gets one checked `config`."""

    @wraps(command)
    def settled(preset_name: str | None, config_file: Path | None, **given):
        flags = {name: given.pop(name) for name in RunConfig.model_fields}
        return command(config=_settle(preset_name, config_file, flags), **given)

    for name in reversed(RunConfig.model_fields):
        settled = _config_option(name)(settled)
    settled = click.option("--config", "config_file", type=click.Path(path_type=Path), help="JSON or YAML file of options; flags win over it.")(settled)
    presets = " ".join(f"{p.name}: {p.means}" for p in PRESETS.values())
    return click.option("--preset", "preset_name", metavar="NAME", help=f"Start from a named config; file and flags win over it. {presets}")(settled)


def _config_option(name: str) -> Callable:
    """The flag of one option. Its value stays text: RunConfig judges it, so that messages are the same everywhere."""
    field = RunConfig.model_fields[name]
    kind = field.annotation
    notes = [field.json_schema_extra["unit"], "repeatable" if get_origin(kind) is tuple else "", f"default: {_spell_default(field.default)}"]
    return click.option(
        "--" + name.replace("_", "-"),
        name,
        metavar=_metavar(kind),
        multiple=get_origin(kind) is tuple,
        help=f"{field.description} [{'; '.join(filter(None, notes))}]",
    )


def _metavar(kind: object) -> str:
    if get_origin(kind) is Literal:
        return f"[{'|'.join(get_args(kind))}]"
    words = {int: "INTEGER", float: "NUMBER", float | None: "NUMBER"}
    return words.get(kind, "TEXT")


def _spell_default(value: object) -> str:
    return "empty" if value in (None, "", ()) else str(value)


def _settle(preset_name: str | None, config_file: Path | None, flags: dict[str, object]) -> RunConfig:
    """Defaults, then the preset, then the file, then the flags. An empty flag takes back what a preset or file has set."""
    settings: dict[str, object] = {}
    if preset_name:
        settings |= preset(preset_name).settings
    if config_file:
        settings |= load_config(config_file)
    for name, value in flags.items():
        if value == "" or value == ("",):
            settings.pop(name, None)
        elif value not in (None, ()):
            settings[name] = value
    return make_config(settings)


class SectionedCommand(click.Command):
    """A command whose help lists the config options under the sections of RunConfig."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], **{title: [] for title in SECTIONS.values()}}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                field = RunConfig.model_fields.get(parameter.name)
                sections[SECTIONS[field.json_schema_extra["section"]] if field else "Options"].append(record)
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def cli() -> None:
    """Groupscope: train language models with GRPO and its relatives, record every token, and see why a run goes wrong."""


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
        _exit_with(run_training(folder, folder.read_config(), bar=False))
    folder = create_run(store, config)
    _say_notes(config)
    click.echo(f"run {folder.run_id} in {folder.path}", err=True)
    _exit_with(run_training(folder, config, bar=True))


def _say_notes(config: RunConfig) -> None:
    for note in structural_notes(config):
        click.echo(f"note: {note}", err=True)


@cli.command(cls=SectionedCommand)
@config_options
@store_option
@json_option
def launch(config: RunConfig, store: Path, as_json: bool) -> None:
    """Start a run in the background and print its id."""
    from grpo_core.launch.start import launch as launch_run

    run_id = launch_run(store, config)
    _say_notes(config)
    _print({"run_id": run_id}, as_json, text=run_id)


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
    _exit_with(run_training(folder, folder.read_config(), bar=True))


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
    _print({"run_id": run_id, **asdict(result)}, as_json, text=result.sentence)
    _exit_with(FAILED if result.outcome in ("already_over", "survived") else OK)


@cli.command()
@store_option
@json_option
def runs(store: Path, as_json: bool) -> None:
    """List all runs, newest first."""
    from storage.reader import Store

    opened = Store(store)
    names = _names(store)
    rows = [_overview(opened, run_id, names.get(run_id, "")) for run_id in sorted(opened.run_ids(), reverse=True)]
    table = [[r["run_id"], r["state"], f"{r['step']}/{r['steps']}", _number(r["reward"]), _duration(r["eta_s"]), r["method"] or "-", r["name"]] for r in rows]
    empty = f"no runs in {opened.root}; start one with `python -m grpo_core train --preset healthy`"
    _print(rows, as_json, text=_table(["RUN", "STATE", "STEP", "REWARD", "ETA", "METHOD", "NAME"], table) if rows else empty)


@cli.command()
@run_argument
@store_option
@json_option
def show(run: str, store: Path, as_json: bool) -> None:
    """Show one run: status, latest figures, settings, and the command that repeats it."""
    from grpo_core.launch.folder import RunFolder
    from grpo_core.launch.start import command_line
    from storage.queries.runs import run_size
    from storage.queries.steps import step_series
    from storage.reader import Store

    run_id = find_run(store, run)
    opened = Store(store)
    config = RunFolder.open(store, run_id).read_config()
    series = step_series(opened, run_id)
    figures = json.loads(series.iloc[-1].to_json()) if len(series) else {}
    facts = {
        **_overview(opened, run_id, _names(store).get(run_id, "")),
        "bytes": run_size(opened, run_id),
        "command": shlex.join(command_line(config)),
        "figures": figures,
        "config": config.model_dump(mode="json"),
    }
    _print(facts, as_json, text=_sheet(facts))


@cli.command()
@run_argument
@store_option
@json_option
def seal(run: str, store: Path, as_json: bool) -> None:
    """Pack an ended run into one DuckDB file, or finish a packing that was cut short."""
    from grpo_core.launch.status import run_status
    from storage import segments
    from storage.reader import Store

    run_id = find_run(store, run)
    status = run_status(store, run_id)
    if status.alive:
        raise LaunchError(f"run {run_id} is {status.state}; it is sealed when it ends")
    run_dir = Store(store).run_dir(run_id)
    segments.seal(run_dir)
    _print({"run_id": run_id, "file": str(run_dir / "run.duckdb")}, as_json, text=f"sealed: {run_dir / 'run.duckdb'}")


@cli.command()
@run_argument
@click.option("--to", "target", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write to.")
@store_option
@json_option
def export(run: str, target: Path, store: Path, as_json: bool) -> None:
    """Write every table of a run as Parquet and CSV (lists as JSON text)."""
    from storage.queries.export import export_run
    from storage.reader import Store

    written = export_run(Store(store), find_run(store, run), target)
    rows = [asdict(table) for table in written]
    _print(rows, as_json, text=_table(["TABLE", "ROWS", "FILE"], [[r["table"], str(r["rows"]), r["file"]] for r in rows]))


@cli.command()
@json_option
def methods(as_json: bool) -> None:
    """List the training methods, each with its paper and the options it reads."""
    rows = [asdict(m) | {"knobs": sorted(m.knobs)} for m in METHODS.values()]
    blocks = [f"{m.name}  ({m.title}, {m.paper})\n  {m.summary}\n  options: {', '.join(sorted(m.knobs)) or 'none of its own'}" for m in METHODS.values()]
    _print(rows, as_json, text="\n\n".join(blocks))


def find_run(store: Path, text: str) -> str:
    """The id of the run meant by an id, a unique beginning of one, or a unique name. Raises RunNotFound."""
    from storage.errors import RunNotFound
    from storage.reader import Store

    run_ids = Store(store).run_ids()
    if text in run_ids:
        return text
    meant = [run_id for run_id in run_ids if text and run_id.startswith(text)]
    meant = meant or [run_id for run_id, name in _names(store).items() if name == text and run_id in run_ids]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise RunNotFound(f"{text!r} could be {len(meant)} runs ({', '.join(sorted(meant, reverse=True)[:5])}); give more of the id")
    raise RunNotFound(f"no run {text!r} in {store}; `python -m grpo_core runs` lists the runs")


def _names(store: Path) -> dict[str, str]:
    from storage.catalog import Catalog

    if not store.is_dir():  # looking is no reason to make a store
        return {}
    annotations = Catalog(store).annotations()
    return dict(zip(annotations["run_id"], annotations["name"]))


def _overview(store: Store, run_id: str, name: str) -> dict[str, object]:
    """Status, key settings and last reward of a run; settings that cannot be read are None."""
    from grpo_core.launch.folder import RunFolder
    from grpo_core.launch.status import run_status
    from storage.queries.runs import reward_curve

    status = run_status(store.root, run_id)
    try:
        config = RunFolder.open(store.root, run_id).read_config()
        settings = {"method": config.method, "task": config.task, "model": config.model}
    except GroupscopeError:  # config.json is damaged or from a newer version
        settings = dict.fromkeys(("method", "task", "model"))
    try:
        curve = reward_curve(store, run_id)
    except StoreError:
        curve = []
    return {**asdict(status), "name": name, **settings, "reward": curve[-1] if curve else None}


# Tools ---------------------------------------------------------------------------------------------------------------


@cli.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", type=click.Choice(["train", "recorder"]))
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def bench(name: str, options: tuple[str, ...]) -> None:
    """Measure on this machine: train (beside TRL) or recorder (its cost). OPTIONS are those of the benchmark, e.g. --steps 40."""
    import importlib

    settings = _benchmark_options(options)
    try:
        benchmark = importlib.import_module(f"tests.benchmarks.{name}")
    except ModuleNotFoundError as error:
        missing = "this installation has no tests/ folder" if error.name.startswith("tests") else f"{error.name} is missing"
        raise click.UsageError(f"cannot run the benchmark: {missing}; run it in a checkout after `make test`, which installs what it needs") from None
    benchmark.main(**settings)


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


# Printing ------------------------------------------------------------------------------------------------------------


def _exit_with(code: int) -> None:
    raise click.exceptions.Exit(code)


def _print(content: object, as_json: bool, *, text: str) -> None:
    click.echo(json.dumps(content, indent=2, ensure_ascii=False) if as_json else text)


def _table(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [head, *rows])


def _sheet(facts: dict) -> str:
    """A run's facts as lines of `name  value`; figures and settings as blocks, settings only where they differ from the default."""
    config = {name: value for name, value in facts["config"].items() if value != make_config({}).model_dump(mode="json")[name]}
    plain = {name: value for name, value in facts.items() if name not in ("config", "figures")}
    figures = {name: value for name, value in facts["figures"].items() if not isinstance(value, dict | list)}
    return "\n\n".join(_block(title, content) for title, content in (("", plain), ("latest step", figures), ("settings that differ from the defaults", config)))


def _block(title: str, content: dict) -> str:
    width = max((len(name) for name in content), default=0)
    lines = [f"{name.ljust(width)}  {_fact(name, value)}" for name, value in content.items()]
    return "\n".join(filter(None, [title, *lines])) if content else f"{title}\nnone"


def _fact(name: str, value: object) -> str:
    if value is None or value == "":
        return "not available"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value)) if name.endswith("_at") else str(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"

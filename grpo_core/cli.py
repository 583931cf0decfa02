"""python -m grpo_core …: the command line, and the one place that wires task, trainer, recorder and run folder together.

Torch, pandas and the store are imported inside the commands that need them, so that `--help` answers at once.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args, get_origin

import click

from grpo_core.config import SECTIONS, RunConfig, load_config, make_config
from grpo_core.errors import GroupscopeError, LaunchError, TrainingStopped
from grpo_core.methods import METHODS
from grpo_core.presets import PRESETS, preset
from storage.errors import StoreError

if TYPE_CHECKING:
    from tqdm import tqdm

    from grpo_core.launch.folder import RunFolder
    from grpo_core.launch.status import Heartbeat
    from grpo_core.launch.stop import StopRequests
    from grpo_core.records import StepTrace
    from grpo_core.trace.recorder import Recorder
    from grpo_core.trainer.loop import Start
    from storage.reader import Store

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
STORE_VARIABLE = "GROUPSCOPE_STORE"
DEFAULT_STORE = "groupscope-data"
FLUSH_PATIENCE_S = 60.0

logger = logging.getLogger(__name__)


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
    click.echo(f"run {folder.run_id} in {folder.path}", err=True)
    _exit_with(run_training(folder, config, bar=True))


@cli.command(cls=SectionedCommand)
@config_options
@store_option
@json_option
def launch(config: RunConfig, store: Path, as_json: bool) -> None:
    """Start a run in the background and print its id."""
    from grpo_core.launch.start import launch as launch_run

    run_id = launch_run(store, config)
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


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: finished, stopped or failed, the exit code, and one sentence."""

    state: str
    exit_code: int
    sentence: str


def run_training(folder: RunFolder, config: RunConfig, *, bar: bool) -> int:
    """Train on a prepared folder, record it, and leave a truthful status whatever happens; returns the exit code."""
    from grpo_core.launch.status import Heartbeat
    from grpo_core.launch.stop import StopRequests

    heartbeat = Heartbeat(folder)
    requests = StopRequests(folder)
    with logging_to(folder.log):
        progress = Progress(heartbeat, config.steps, bar=bar)
        try:
            ending = _train_and_record(folder, config, heartbeat, requests, progress)
        except TrainingStopped:
            ending = Ending("stopped", OK, f"Stopped while {progress.busy_with}; steps finished before that: {heartbeat.step_count}.")
        except KeyboardInterrupt:
            ending = Ending("stopped", FAILED, f"Stopped in the middle of a step; steps finished before that: {heartbeat.step_count}.")
        except (GroupscopeError, StoreError) as error:
            ending = Ending("failed", BAD_INPUT, str(error))
        except BaseException as error:  # SystemExit too: a reward function is user code
            logger.exception("the run failed")
            ending = Ending("failed", FAILED, _failure(error, folder))
        requests.ending = True
        progress.close()
        heartbeat.finish(ending.state, ending.exit_code, ending.sentence)
        logger.info("%s: %s", ending.state, ending.sentence)
    if bar:
        click.echo(f"error: {ending.sentence}" if ending.state == "failed" else ending.sentence, err=True)
    return ending.exit_code


def _failure(error: BaseException, folder: RunFolder) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"the disk that holds {folder.path} is full; free some space, then: python -m grpo_core resume {folder.run_id}"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]} (details in {folder.log})"


def _train_and_record(folder: RunFolder, config: RunConfig, heartbeat: Heartbeat, requests: StopRequests, progress: Progress) -> Ending:
    from grpo_core.trace.recorder import Recorder

    progress.phase("loading")
    recorder = Recorder(folder.path, precision=config.precision, queue_steps=config.queue_steps)
    try:
        from transformers.utils.logging import disable_progress_bar

        from grpo_core.trainer.loop import train as train_loop

        def on_start(start: Start) -> None:
            disable_progress_bar()  # a download is worth a bar of its own, a checkpoint is not
            recorder.set_vocabulary(start.pieces)
            if heartbeat.attempt:
                recorder.resume_at(start.first_step)
            progress.begin(start.first_step)

        def record(trace: StepTrace) -> None:
            if config.record == "full":
                recorder.record(trace)
            progress.step(trace, recorder)

        def on_phase(name: str, done: int, total: int) -> None:
            progress.phase(name, done, total)
            if not progress.training and requests.asked():  # from the first step on, the loop asks for itself
                raise TrainingStopped

        result = train_loop(
            config,
            cache_dir=folder.store_root / "cache",
            checkpoint_dir=folder.checkpoints,
            record=record,
            flush=lambda: recorder.flush(timeout_s=FLUSH_PATIENCE_S),
            on_start=on_start,
            progress=on_phase,
            should_stop=requests.asked,
            resume=heartbeat.attempt > 0,
            attempt=heartbeat.attempt,
        )
    except BaseException:
        requests.ending = True
        recorder.close(seal=False)
        raise
    requests.ending = True
    progress.phase("sealing")
    recorder.close(seal=True)
    trouble = f" Recording: {recorder.failure}" if recorder.failure else ""
    if result.stopped:
        return Ending("stopped", OK, f"Stopped after step {result.steps_done}; checkpoint written.{trouble}")
    return Ending("finished", OK, f"All {result.steps_done} steps done.{trouble}")


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """What the modules log goes to the run's log.txt."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    handler.handleError = lambda record: None  # a full disk must not end a run for its log
    machine = logging.getLogger("grpo_core")
    machine.addHandler(handler)
    machine.setLevel(logging.INFO)
    try:
        yield
    finally:
        machine.removeHandler(handler)
        handler.close()


class Progress:
    """Tells the heartbeat, the log and, in the foreground, a progress bar how far the run is."""

    def __init__(self, heartbeat: Heartbeat, steps: int, *, bar: bool) -> None:
        self._heartbeat = heartbeat
        self._steps = steps
        self._show = bar
        self.busy_with = ""
        self._bar = self._new_bar("", 0)
        self.training = False
        self._pace_s: float | None = None
        self._last = time.monotonic()

    def phase(self, name: str, done: int = 0, total: int = 0) -> None:
        """Busy with something other than a step; before the first step it has a bar of its own."""
        self._heartbeat.phase(name, done, total)
        if self.training:
            self._bar.set_description_str(name)
            return
        if name != self.busy_with:
            self._bar.close()
            self.busy_with, self._bar = name, self._new_bar(name, total)
        self._bar.update(done - self._bar.n)

    def begin(self, first_step: int) -> None:
        """The step loop starts, at this step."""
        self._heartbeat.step(first_step, None)
        self._bar.close()
        self._bar = self._new_bar("training", self._steps, first_step)
        self.training = True
        self._last = time.monotonic()

    def step(self, trace: StepTrace, recorder: Recorder) -> None:
        """A step is done and handed to the recorder."""
        now = time.monotonic()
        took_s, self._last = now - self._last, now
        self._pace_s = took_s if self._pace_s is None else 0.9 * self._pace_s + 0.1 * took_s
        self._heartbeat.step(trace.step + 1, self._pace_s, missing_steps=recorder.missing, message=recorder.failure or "")
        reward = mean_reward(trace)
        logger.info("step %d: reward %.3f, %.2f s", trace.step, reward, took_s)
        self._bar.set_description_str("training")
        self._bar.set_postfix_str(f"reward {reward:.3f}", refresh=False)
        self._bar.update(trace.step + 1 - self._bar.n)

    def close(self) -> None:
        self._bar.close()

    def _new_bar(self, name: str, total: int, initial: int = 0) -> tqdm:
        from tqdm import tqdm

        return tqdm(
            desc=name,
            total=total,
            initial=initial,
            unit="step",
            disable=not self._show,
            bar_format=None if total else "{desc}",
            leave=total > 0,
            mininterval=0.1 if sys.stderr.isatty() else 10.0,
            dynamic_ncols=True,
        )


def mean_reward(trace: StepTrace) -> float:
    """Mean total reward of the step's scored rollouts, NaN if none was scored."""
    totals = [r.reward.total for group in trace.groups for r in group.rollouts if not r.reward.failed]
    return sum(totals) / len(totals) if totals else float("nan")


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

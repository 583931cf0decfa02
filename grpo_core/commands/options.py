"""What commands are made of: the store, the run, JSON or text, and one flag for every option of RunConfig."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Literal, get_args, get_origin

import click

from grpo_core.config import SECTIONS, RunConfig, load_config, make_config
from grpo_core.launch.folder import DEFAULT_STORE, STORE_VARIABLE, default_store
from grpo_core.presets import PRESETS, preset
from storage.cached import store_folder


class _StorePlace(click.Path):
    """A folder; of a URL, the folder that the store there is read through."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return super().convert(store_folder(str(value)), param, ctx)


def store_option(command: Callable) -> Callable:
    return click.option(
        "--store",
        type=_StorePlace(path_type=Path, file_okay=False),
        default=default_store,
        show_default=f"${STORE_VARIABLE} or ./{DEFAULT_STORE}",
        help="Folder that holds the runs, or for reading the URL of a place that runs are mirrored to, like s3://bucket/runs.",
    )(command)


def json_option(command: Callable) -> Callable:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def run_argument(command: Callable) -> Callable:
    return click.argument("run", metavar="RUN")(command)


def config_options(command: Callable) -> Callable:
    """`--preset`, `--config` and one flag for every option of RunConfig; the command gets one checked `config`."""

    @wraps(command)
    def checked(*, settings: dict[str, object], **given):
        return command(config=make_config(settings), **given)

    return setting_options(checked)


def setting_options(command: Callable) -> Callable:
    """The same options; the command gets what they set as `settings`, unchecked."""

    @wraps(command)
    def settled(preset_name: str | None, config_file: Path | None, **given):
        flags = {name: given.pop(name) for name in RunConfig.model_fields}
        return command(settings=settle(preset_name, config_file, flags), **given)

    for name in reversed(RunConfig.model_fields):
        settled = _config_option(name)(settled)
    settled = click.option("--config", "config_file", type=click.Path(path_type=Path), help="JSON or YAML file of options; flags win over it.")(settled)
    presets = " ".join(f"{p.name}: {p.means}" for p in PRESETS.values())
    return click.option("--preset", "preset_name", metavar="NAME", help=f"Start from a named config; file and flags win over it. {presets}")(settled)


def change_options(command: Callable) -> Callable:
    """One flag for every option of RunConfig; the command gets those given as `changes`, unchecked. An empty flag means the default."""

    @wraps(command)
    def changed(**given):
        flags = {name: given.pop(name) for name in RunConfig.model_fields}
        return command(changes={name: _or_default(name, value) for name, value in flags.items() if value not in (None, ())}, **given)

    for name in reversed(RunConfig.model_fields):
        changed = _config_option(name)(changed)
    return changed


def _or_default(name: str, value: object) -> object:
    return RunConfig.model_fields[name].default if value in ("", ("",)) else value


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


def settle(preset_name: str | None, config_file: Path | None, flags: dict[str, object]) -> dict[str, object]:
    """What departs from the defaults: the preset, then the file, then the flags. An empty flag takes back what a preset or file has set."""
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
    return settings


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

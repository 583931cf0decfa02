"""How commands answer: aligned text, or JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from grpo_core.config import RunConfig, make_config
from grpo_core.notes import structural_notes


def exit_with(code: int) -> None:
    raise click.exceptions.Exit(code)


def answer(content: object, as_json: bool, *, text: str) -> None:
    click.echo(json.dumps(content, indent=2, ensure_ascii=False) if as_json else text)


def say_notes(config: RunConfig) -> None:
    for note in structural_notes(config):
        click.echo(f"note: {note}", err=True)


def table(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in [head, *rows])


def sheet(facts: dict) -> str:
    """A run's facts as lines of `name  value`; figures and settings as blocks, settings only where they differ from the default."""
    config = {name: value for name, value in facts["config"].items() if value != make_config({}).model_dump(mode="json")[name]}
    hidden = ("config", "figures", *(() if facts["parent"] else ("parent", "parent_step")))
    plain = {name: value for name, value in facts.items() if name not in hidden}
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


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


@contextmanager
def progress_bar(what: str, unit: str = "part") -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal that is told what is done and of how much, gone when it is done; nothing elsewhere."""
    from tqdm import tqdm

    with tqdm(desc=what, unit=unit, unit_scale=unit == "B", disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress

"""python -m grpo_core sql "SELECT …": one query over the tables of runs, which reads and does nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grpo_core.commands.finding import find_run, no_runs
from grpo_core.commands.options import json_option, store_option
from grpo_core.commands.printing import answer, table

if TYPE_CHECKING:
    import pyarrow as pa

    from storage.sql import Answer

WIDEST = 60
"""Characters of a cell in the printed table."""


@click.command()
@click.argument("query")
@click.option("--run", "runs", metavar="RUN", multiple=True, help="Run to ask, as id, beginning of one, or name; repeatable. [default: the newest]")
@click.option("--limit", type=click.IntRange(1, 10_000_000), default=1000, show_default=True, help="Rows at most.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True, help="Seconds the query may take.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV; lists and maps as JSON text.")
@store_option
@json_option
def sql(query: str, runs: tuple[str, ...], limit: int, timeout_s: float, as_csv: bool, store: Path, as_json: bool) -> None:
    """Ask the tables of one or several runs: steps, groups, rollouts, updates, positions, tokens and vocabulary (docs/schema.md), each with run_id.

    QUERY is one SELECT in DuckDB's dialect, also over a run that is training. It can read these tables and nothing else.
    """
    from storage.errors import QueryRefused
    from storage.sql import csv_bytes
    from storage.sql_process import RunningQuery

    if as_json and as_csv:
        raise click.UsageError("--json and --csv exclude each other; give one")
    run_ids = list(dict.fromkeys(find_run(store, run) for run in runs)) or [_newest(store)]
    try:
        found = RunningQuery(store, run_ids, query, limit=limit, timeout_s=timeout_s).answer()
    except QueryRefused as error:
        raise click.UsageError(str(error)) from None
    if as_csv:
        click.echo(csv_bytes(found.table).decode(), nl=False)
    else:
        answer(_facts(run_ids, found) if as_json else None, as_json, text=_text(found.table))
    click.echo(_summary(found, limit), err=True)


def _newest(store: Path) -> str:
    from storage.errors import RunNotFound
    from storage.reader import Store

    run_ids = Store(store).run_ids()
    if not run_ids:
        raise RunNotFound(no_runs(store))
    click.echo(f"over the newest run, {run_ids[-1]}; --run names others", err=True)
    return run_ids[-1]


def _facts(run_ids: Sequence[str], found: Answer) -> dict[str, object]:
    columns = [{"name": field.name, "type": str(field.type)} for field in found.table.schema]
    rows = [_sayable(row) for row in found.table.to_pylist(maps_as_pydicts="lossy")]
    return {"run_ids": list(run_ids), "columns": columns, "rows": rows, "cut": found.cut, "seconds": found.seconds}


def _sayable(value: object) -> object:
    """The value as JSON can say it: NaN and infinities as null, times as text."""
    if isinstance(value, dict):
        return {str(key): _sayable(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_sayable(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def _text(found: pa.Table) -> str:
    from storage.sql import flat, plan

    if (explained := plan(found)) is not None:
        return explained
    rows = zip(*(column.to_pylist() for column in flat(found).columns))
    return table([_cell(name) for name in found.column_names], [[_cell(value) for value in row] for row in rows])


def _cell(value: object) -> str:
    """The value on one short line; what would steer a terminal is spelled out."""
    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    text = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text[: WIDEST + 1])
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def _summary(found: Answer, limit: int) -> str:
    rows = found.table.num_rows
    said = f"{rows} {'row' if rows == 1 else 'rows'} in {found.seconds:.2f} s"
    if found.cut == "rows":
        return f"{said}; there are more, --limit {10 * limit} shows more of them"
    return f"{said}; cut there, because the answer grew too large: name fewer columns" if found.cut else said

"""python -m grpo_core export RUN and import EXPORT: a run as files for other programs, and a run of another machine in this store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from grpo_core.commands.finding import find_run, names
from grpo_core.commands.options import json_option, run_argument, store_option
from grpo_core.commands.printing import answer, progress_bar, table

FORMATS = ("parquet", "csv", "duckdb")


@click.command()
@run_argument
@click.option("--to", "target", type=click.Path(path_type=Path), required=True, help="Folder to write to; with --format duckdb, the file.")
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    help="Repeatable. duckdb: one file that needs nothing beside it. [default: parquet and csv]",
)
@store_option
@json_option
def export(run: str, target: Path, formats: tuple[str, ...], store: Path, as_json: bool) -> None:
    """Write every table of a run, also while it trains: as Parquet and CSV (lists as JSON text), or as one DuckDB file.

    The Parquet folder and the DuckDB file can be imported elsewhere.
    """
    from grpo_core.launch.exchange import about_run
    from storage.queries.export import export_database, export_run
    from storage.reader import Store

    formats = formats or ("parquet", "csv")
    if "duckdb" in formats and len(set(formats)) > 1:
        raise click.UsageError("--format duckdb makes one file, parquet and csv make a folder of files; export twice")
    run_id = find_run(store, run)
    about = about_run(store, run_id, name=names(store).get(run_id, ""))
    with progress_bar("exporting") as progress:
        if formats[0] == "duckdb":
            written = export_database(Store(store), run_id, target, about, progress=progress)
        else:
            written = export_run(Store(store), run_id, target, about, formats=tuple(dict.fromkeys(formats)), progress=progress)
    rows = [asdict(one) for one in written]
    answer(rows, as_json, text=table(["TABLE", "ROWS", "FILE"], [[r["table"], str(r["rows"]), r["file"]] for r in rows]))


@click.command("import")
@click.argument("source", metavar="EXPORT", type=click.Path(path_type=Path))
@click.option("--as", "run_id", metavar="ID", help="Id of the run in this store. [default: the one it has]")
@store_option
@json_option
def import_(source: Path, run_id: str | None, store: Path, as_json: bool) -> None:
    """Make a run of this store of an export: a .duckdb file or a folder with Parquet that `export` wrote. Nothing is ever overwritten."""
    from grpo_core.launch.exchange import import_run

    with progress_bar("importing") as progress:
        done = import_run(store, source, run_id=run_id, progress=progress)
    for note in done.notes:
        click.echo(f"note: {note}", err=True)
    steps = f"{done.steps} {'step' if done.steps == 1 else 'steps'}"
    text = f"imported: run {done.run_id}, {steps}" if done.new else f"run {done.run_id} is here already, with the same {steps}; nothing was changed"
    answer({"run_id": done.run_id, "new": done.new, "steps": done.steps}, as_json, text=text)

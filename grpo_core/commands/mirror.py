"""python -m grpo_core mirror RUN URL: a run's records copied to a place elsewhere, as training with GROUPSCOPE_MIRROR does."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path

import click

from grpo_core.commands.finding import find_run
from grpo_core.commands.options import json_option, run_argument, store_option
from grpo_core.commands.printing import answer, exit_with, progress_bar
from grpo_core.launch.folder import MIRROR_VARIABLE, RunFolder
from storage.cached import check_local

FAILED = 1


@click.command()
@run_argument
@click.argument("url", required=False)
@click.option("--again", is_flag=True, help="Upload what is there already, too: it may be damaged there.")
@store_option
@json_option
def mirror(run: str, url: str | None, again: bool, store: Path, as_json: bool) -> None:
    """Copy what RUN has recorded to URL, like s3://bucket/runs, as far as it is not there yet. [default URL: $GROUPSCOPE_MIRROR]

    The place is a store that others read: `--store URL`, or GROUPSCOPE_STORE=URL for the app. Checkpoints stay here.
    """
    from storage.mirror import Mirror
    from storage.places import open_place

    url = url or os.environ.get(MIRROR_VARIABLE)
    if not url:
        raise click.UsageError(f"where to? give a URL, like s3://bucket/runs or file:///mnt/shared/runs, or set {MIRROR_VARIABLE}")
    check_local(store)
    folder = RunFolder.open(store, find_run(store, run))
    with progress_bar("mirroring", "B") as progress:
        done = Mirror(folder.path, open_place(url), again=again, progress=progress).push(time.monotonic(), final=True)
    folder.mirror.unlink(missing_ok=True)
    for sentence in done.damaged:
        click.echo(f"note: {sentence}", err=True)
    text = f"mirrored: {done.files} files, {done.bytes / 1e6:,.1f} MB to {url}" if done.files else f"everything of {folder.run_id} is in {url} already"
    answer({"run_id": folder.run_id, "url": url, **asdict(done)}, as_json, text=text)
    exit_with(FAILED if done.damaged else 0)

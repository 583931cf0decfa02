"""python -m grpo_core retain RUN: take the tokens of old steps by a policy, after saying what goes and what stays."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grpo_core.commands.finding import find_run
from grpo_core.commands.options import json_option, run_argument, store_option
from grpo_core.commands.printing import answer, progress_bar, table

if TYPE_CHECKING:
    from storage.retention import Plan

KEEPS = ("all", "every", "flagged", "budget")


@click.command()
@run_argument
@click.option(
    "--keep",
    type=click.Choice(KEEPS),
    required=True,
    help="all; every n-th step; flagged groups only; or a budget, the oldest steps going first. Figures, texts and flagged groups always stay.",
)
@click.option("--every", type=int, default=0, metavar="N", help="With --keep every: keep the tokens of every this many steps.")
@click.option("--budget", default="", metavar="SIZE", help="With --keep budget: what token lists may take on disk, e.g. 500MB or 2GB.")
@click.option("--recent", type=int, metavar="N", help="Newest steps that keep their tokens in any case. [default: 64]")
@click.option("--dry-run", is_flag=True, help="Say what would go and what stays, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--by", hidden=True, default="the command line")
@store_option
@json_option
def retain(run: str, keep: str, every: int, budget: str, recent: int | None, dry_run: bool, yes: bool, by: str, store: Path, as_json: bool) -> None:
    """Take the tokens of a run's old steps for good, by a policy; every figure, text and reward stays, and so does flagged evidence."""
    from grpo_core.launch.retain import bytes_of, plan_retention, retain_run
    from storage.errors import StoreError
    from storage.retention import RECENT, Retention, size_text

    try:
        retention = Retention(keep=keep, every=every, budget_bytes=bytes_of(budget) if budget else 0, recent=RECENT if recent is None else recent)
    except StoreError as error:
        raise click.UsageError(str(error)) from None
    run_id = find_run(store, run)
    plan = plan_retention(store, run_id, retention)
    facts = {
        "run_id": run_id, "policy": retention.sentence, "token_bytes": plan.token_bytes, "freed_bytes_estimated": plan.freed_bytes,
        "over_bytes": plan.over_bytes, "steps": len(plan.steps), "groups": len(plan.lost), "kept": [asdict(one) for one in plan.kept()],
    }  # fmt: skip
    if dry_run or plan.lost.empty:
        if not dry_run:
            retain_run(store, run_id, retention, by=by)  # one that was killed may have left old files
        answer(facts | {"thinned": []}, as_json, text=_sheet(run_id, plan))
        return
    if not as_json:
        click.echo(_sheet(run_id, plan))
    if not yes:
        _confirm(run_id, plan)
    with progress_bar("thinning") as progress:
        done = retain_run(store, run_id, retention, by=by, progress=progress)
    freed = sum(one.bytes_freed for one in done)
    facts |= {"freed_bytes": freed, "thinned": [asdict(one) for one in done]}
    answer(facts, as_json, text=f"freed {size_text(freed)}: {sum(one.groups for one in done)} groups have no tokens any more, and keep all their figures")


def _confirm(run_id: str, plan: Plan) -> None:
    """Raises click.Abort where the answer is no, UsageError where nobody can answer."""
    from storage.retention import size_text

    if not sys.stdin.isatty():
        raise click.UsageError("nothing was taken, for nobody confirmed it: add --yes, or run this in a terminal; --dry-run only looks")
    click.confirm(
        f"Take the tokens of {len(plan.lost)} groups in {len(plan.steps)} steps of run {run_id} for good ({size_text(plan.freed_bytes)})?", abort=True, err=True
    )


def _sheet(run_id: str, plan: Plan) -> str:
    """What stays and why, what goes, and what the policy cannot do."""
    from storage.retention import BEFORE, size_text

    rows = [[one.reason if one.reason == BEFORE else f"kept: {one.reason}", str(one.steps), str(one.groups), size_text(one.bytes)] for one in plan.kept()]
    goes = ["taken", str(len(plan.steps)), str(len(plan.lost)), f"{size_text(plan.freed_bytes)}, estimated"]
    lines = [
        f"run {run_id}, policy '{plan.retention.sentence}': token lists take {size_text(plan.token_bytes)}",
        table(["TOKENS", "STEPS", "GROUPS", "SIZE"], [*rows, goes]),
    ]
    if plan.over_bytes:
        lines.append(f"the budget cannot be met: what always stays is {size_text(plan.over_bytes)} above it")
    if plan.lost.empty:
        lines.append("nothing to take")
    return "\n".join(lines)

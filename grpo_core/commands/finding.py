"""Which run is meant, and what is known of it at a glance."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from grpo_core.errors import GroupscopeError
from storage.errors import StoreError

if TYPE_CHECKING:
    from storage.reader import Store


def find_run(store: Path, text: str) -> str:
    """The id of the run meant by an id, a unique beginning of one, or a unique name. Raises RunNotFound."""
    from storage.errors import RunNotFound
    from storage.reader import Store

    run_ids = Store(store).run_ids()
    if text in run_ids:
        return text
    meant = [run_id for run_id in run_ids if text and run_id.startswith(text)]
    meant = meant or [run_id for run_id, name in names(store).items() if name == text and run_id in run_ids]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise RunNotFound(f"{text!r} could be {len(meant)} runs ({', '.join(sorted(meant, reverse=True)[:5])}); give more of the id")
    raise RunNotFound(f"no run {text!r} in {store}; `python -m grpo_core runs` lists the runs")


def no_runs(store: Path) -> str:
    """What to say of a store without runs."""
    return f"no runs in {store}; start one with `python -m grpo_core train --preset healthy`"


def names(store: Path) -> dict[str, str]:
    from grpo_core.launch.folder import catalog_place
    from storage.catalog import Catalog

    if not store.is_dir():  # looking is no reason to make a store
        return {}
    annotations = Catalog(catalog_place(store)).annotations()
    return dict(zip(annotations["run_id"], annotations["name"]))


def overview(store: Store, run_id: str, name: str) -> dict[str, object]:
    """Status, key settings, origin and last reward of a run; settings that cannot be read are None, and so is the parent of a run that is no fork."""
    from grpo_core.launch.folder import RunFolder
    from grpo_core.launch.fork import read_fork
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
    fork = read_fork(RunFolder.open(store.root, run_id))
    origin = {"parent": fork and fork.parent, "parent_step": fork and fork.step}
    return {**asdict(status), "name": name, **settings, **origin, "reward": curve[-1] if curve else None}

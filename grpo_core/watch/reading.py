"""From a run in the store to what the diagnosis reads."""

from __future__ import annotations

from grpo_core.config import load_config
from grpo_core.diagnosis.history import Facts, History, facts_of_settings, history_of
from grpo_core.diagnosis.integrity import integrity
from grpo_core.diagnosis.places import Recorded, places, with_places
from grpo_core.diagnosis.report import Report, diagnose
from grpo_core.errors import ConfigError
from grpo_core.launch.folder import RunFolder
from grpo_core.launch.fork import read_fork
from storage.errors import StoreError
from storage.queries import evidence
from storage.queries.integrity import scored_rollouts
from storage.queries.steps import step_series
from storage.queries.variance import outcome_counts
from storage.reader import Store


def recorded_history(store: Store, run_id: str) -> History:
    """Everything recorded of a run so far; a damaged segment leaves a gap. Raises RunNotFound, NewerStore and RunLocked."""
    return history_of(step_series(store, run_id), facts_in(RunFolder.open(store.root, run_id)), outcome_counts(store, run_id))


def facts_in(folder: RunFolder) -> Facts:
    """What the run's config says; nothing where config.json is damaged or not of a run trained here."""
    try:
        return facts_of_settings(load_config(folder.config))
    except ConfigError:
        return Facts()


def report_on(store: Store, run_id: str, history: History | None = None, *, checked: bool = False) -> Report:
    """The diagnosis of a run, live or over, from its history if that has been read already.

    `checked` also holds the newest steps' rollouts against each other and names the groups and tokens to look at, which reads rollouts.
    Raises as `recorded_history`.
    """
    history = recorded_history(store, run_id) if history is None else history
    more = [integrity(history, scored_rollouts(store, run_id))] if checked else []
    report = diagnose(history, checkpoints=RunFolder.open(store.root, run_id).checkpoint_steps(), more=more)
    return _located(store, run_id, report) if checked else report


def _located(store: Store, run_id: str, report: Report) -> Report:
    """The report with places to look at; as it is where the recording of those steps cannot be read."""
    try:
        return with_places(report, places(report, Recorded.of(evidence, store, run_id)))
    except StoreError:  # `diagnose` names the damaged file itself
        return report


def has_gaps(store: Store, run_id: str, history: History) -> bool:
    """Whether steps the run has made are not in its history: never recorded, or in a file that cannot be read."""
    fork = read_fork(RunFolder.open(store.root, run_id))
    first, last = fork.step if fork else 0, store.last_step(run_id)
    return last is not None and len(history) < last + 1 - first

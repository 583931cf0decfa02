"""The diagnosis of a run, kept in memory: reading all signals and the newest rollouts costs too much for every refresh of every page."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import streamlit as st

from grpo_core.diagnosis.history import facts_of, history_of
from grpo_core.diagnosis.integrity import integrity
from grpo_core.diagnosis.levels import Evidence
from grpo_core.diagnosis.places import Recorded, places, with_places
from grpo_core.diagnosis.report import Report, diagnose
from grpo_core.errors import GroupscopeError
from grpo_core.launch.folder import RunFolder
from pages.components import data, variance_view
from pages.components.data import Run
from storage.errors import StoreError
from storage.queries import evidence

KEPT = 500
PATIENCE = 40
"""The diagnosis of a live run may lag behind by a 40th of its steps: the longer the run, the longer it takes to read."""
AT_ONCE_S = 0.4
"""How long one refresh of a table of runs may spend on diagnoses; the rest follow with the next."""


@dataclass(frozen=True, slots=True)
class _Made:
    """A report, and how far the run was when it was made."""

    step: int
    alive: bool
    report: Report

    def fits(self, run: Run) -> bool:
        status = run.status
        return self.alive == status.alive and 0 <= status.step - self.step <= status.step // PATIENCE


class ReportCache:
    """The reports last made, one per run and attempt."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: OrderedDict[tuple[Path, str, int], _Made] = OrderedDict()

    def known(self, run: Run) -> Report | None:
        """The report on the run as it is now, or nearly; None if none has been made."""
        with self._lock:
            made = self._made.get(_key(run))
        return made.report if made and made.fits(run) else None

    def report(self, run: Run) -> Report:
        """The same, made if there is none. Raises StoreError."""
        found = self.known(run)
        if found is None:
            found = _diagnose(run)
            with self._lock:
                self._made.pop(_key(run), None)
                self._made[_key(run)] = _Made(run.status.step, run.status.alive, found)
                while len(self._made) > KEPT:
                    self._made.popitem(last=False)
        return found


@st.cache_resource(show_spinner=False)
def _cache() -> ReportCache:
    return ReportCache()


def report(run: Run) -> Report:
    """The diagnosis of the run so far. Raises StoreError."""
    return _cache().report(run)


def located(run: Run, found: Report) -> Report:
    """The report with the groups and tokens to look at; as it is where the recording of those steps cannot be read."""
    try:
        return with_places(found, _places(data.root(), run.run_id, run.status.attempt, found.step, found))
    except StoreError:  # the page of the run names the damaged file
        return found


@st.cache_data(show_spinner=False, max_entries=32)
def _places(path: Path, run_id: str, attempt: int, step: int | None, _report: Report) -> dict[str, tuple[Evidence, ...]]:
    return places(_report, Recorded.of(evidence, data.store(), run_id))


def steps(run: Run) -> pd.DataFrame:
    """Everything the signals are read from, for their curves: the run's steps and what their groups came to. Raises StoreError."""
    recorded = data.steps(run)
    return variance_view.per_step(run, recorded) if len(recorded) else recorded


def reports(runs: Iterable[Run]) -> dict[str, Report]:
    """The diagnoses of several runs by id: those known, and as many more as fit into AT_ONCE_S, at least one."""
    found, until = {}, time.monotonic() + AT_ONCE_S
    for run in runs:
        known = _cache().known(run)
        if known is None and time.monotonic() < until:
            try:
                known = _cache().report(run)
            except (StoreError, GroupscopeError):  # said on the run's own pages
                continue
        if known is not None:
            found[run.run_id] = known
    return found


def _diagnose(run: Run) -> Report:
    checkpoints = RunFolder.open(data.root(), run.run_id).checkpoint_steps()
    recorded = data.steps(run)
    history = history_of(recorded, facts_of(run.config), data.outcome_counts(run))
    return diagnose(history, checkpoints=checkpoints, more=[integrity(history, data.rollouts_to_check(run))])


def _key(run: Run) -> tuple[Path, str, int]:
    return data.root(), run.run_id, run.status.attempt

"""What the pages ask the store, kept in memory where the answer cannot change. Runs grow, so their steps are read by cursor."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import streamlit as st

from grpo_core.config import RunConfig
from grpo_core.errors import GroupscopeError
from grpo_core.lab.batch import RecordedBatch, recorded_batch
from grpo_core.lab.process import Laboratory
from grpo_core.launch.folder import RunFolder, catalog_place, default_store
from grpo_core.launch.fork import Fork, read_fork
from grpo_core.launch.retain import outlook as run_outlook
from grpo_core.launch.status import RunStatus, log_tail, run_status
from pages.components.series import with_shares
from storage.catalog import Catalog
from storage.errors import StoreError
from storage.queries import groups as group_queries
from storage.queries import integrity as integrity_queries
from storage.queries import lab as lab_queries
from storage.queries import likelihood as likelihood_queries
from storage.queries import retention as retention_queries
from storage.queries import runs as run_queries
from storage.queries import steps as step_queries
from storage.queries import variance as variance_queries
from storage.reader import DamagedFile, Store
from storage.retention import Plan, Retention
from storage.thinning import RECORD, Thinning, read_record

SERIES_KEPT = 8
SIZES_S = 30.0
"""So long a run's size on disk is taken for what it was."""
COURSES_KEPT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as the pages show it: its status now, its configuration, what people wrote about it, and the run it was forked from."""

    status: RunStatus
    config: RunConfig
    name: str
    tags: tuple[str, ...]
    note: str
    fork: Fork | None = None

    @property
    def run_id(self) -> str:
        return self.status.run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A run whose folder cannot be read, and the sentence that says why."""

    run_id: str
    why: str


def root() -> Path:
    """The store's folder, in full."""
    return default_store().absolute()


@st.cache_resource(show_spinner=False)
def _store(path: Path) -> Store:
    return Store(path)


@st.cache_resource(show_spinner=False)
def _catalog(place: Path | str) -> Catalog:
    return Catalog(place)


def store() -> Store:
    return _store(root())


def catalog() -> Catalog:
    return _catalog(catalog_place(root()))


def rollouts_to_check(run: Run) -> pd.DataFrame:
    """The newest rollouts with their rewards and advantages, for diagnosis.integrity. Raises StoreError."""
    return integrity_queries.scored_rollouts(store(), run.run_id)


def run_ids() -> list[str]:
    """Every run, newest first."""
    return sorted(store().run_ids(), reverse=True)


def runs() -> tuple[list[Run], list[Unreadable]]:
    """Every run, the last started first, and those that cannot be read."""
    notes = catalog().annotations().set_index("run_id")
    readable, unreadable = [], []
    for run_id in run_ids():
        try:
            readable.append(_run(run_id, notes))
        except (StoreError, GroupscopeError) as error:
            unreadable.append(Unreadable(run_id=run_id, why=str(error)))
    return sorted(readable, key=lambda run: run.status.started_at or 0.0, reverse=True), unreadable


def run(run_id: str) -> Run:
    """One run. Raises RunNotFound or ConfigError."""
    return _run(run_id, catalog().annotations().set_index("run_id"))


def _run(run_id: str, notes: pd.DataFrame) -> Run:
    status = run_status(root(), run_id)
    config = _config(root(), run_id, status.attempt)
    name, tags, note = tuple(notes.loc[run_id, ["name", "tags", "note"]]) if run_id in notes.index else ("", [], "")
    return Run(status=status, config=config, name=name or config.title, tags=tuple(tags), note=note, fork=_fork(root(), run_id))


@st.cache_data(show_spinner=False, max_entries=2000)
def _config(path: Path, run_id: str, attempt: int) -> RunConfig:
    return RunFolder.open(path, run_id).read_config()


@st.cache_data(show_spinner=False, max_entries=2000)
def _fork(path: Path, run_id: str) -> Fork | None:
    return read_fork(RunFolder.open(path, run_id))


def alive_count() -> int:
    """How many runs have a living process."""
    alive = 0
    for run_id in store().run_ids():
        try:
            alive += run_status(root(), run_id).alive
        except (StoreError, GroupscopeError):  # said on the page of runs
            continue
    return alive


def log_lines(run_id: str, lines: int = 40) -> str:
    return log_tail(root(), run_id, lines)


class SeriesCache:
    """What `read(store, run_id, after)` answers of every step of the `kept` runs last looked at.

    Each call reads only the steps recorded since the one before.
    """

    def __init__(self, read: Callable[[Store, str, int], pd.DataFrame], kept: int = SERIES_KEPT) -> None:
        self._read, self._kept = read, kept
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[Path, str, int], pd.DataFrame] = OrderedDict()

    def rows(self, store: Store, run_id: str, attempt: int) -> pd.DataFrame:
        """The rows of all recorded steps of the run, in order of step; not to be changed.

        A resume (another `attempt`) may take steps back, and so may a repair, so then everything is read again.
        """
        key = (store.root, run_id, attempt)
        with self._lock:
            known = self._known.pop(key, None)
            last = run_queries.last_step(store, run_id)
            if known is None or known.empty or last is None or last < _last(known):
                known = self._read(store, run_id, -1)
            elif last > _last(known):
                fresh = self._read(store, run_id, _last(known))
                known = pd.concat([known, fresh], ignore_index=True) if len(fresh) else known
            self._known[key] = known
            while len(self._known) > self._kept:
                self._known.popitem(last=False)
        return known


def _last(steps: pd.DataFrame) -> int:
    return int(steps["step"].iloc[-1])


@st.cache_resource(show_spinner=False)
def _step_cache() -> SeriesCache:
    return SeriesCache(lambda store, run_id, after: with_shares(step_queries.step_series(store, run_id, after)))


@st.cache_resource(show_spinner=False)
def _outcome_cache() -> SeriesCache:
    return SeriesCache(variance_queries.outcome_counts)


def steps(run: Run) -> pd.DataFrame:
    """All recorded steps of a run; columns of storage.schema.STEPS and series.with_shares."""
    return _step_cache().rows(store(), run.run_id, run.status.attempt)


def unreadable(run: Run) -> list[DamagedFile]:
    """The files whose steps are missing from `steps` as they cannot be read."""
    recorded = steps(run)["step"]
    return _unreadable(root(), run.run_id, run.status.attempt, len(recorded), recorded)


@st.cache_data(show_spinner=False, max_entries=16)
def _unreadable(path: Path, run_id: str, attempt: int, count: int, _recorded: pd.Series) -> list[DamagedFile]:
    return _store(path).unreadable(run_id, frozenset(_recorded))


def outcome_counts(run: Run) -> pd.DataFrame:
    """What the groups of each recorded step came to; columns of storage.queries.variance.outcome_counts."""
    return _outcome_cache().rows(store(), run.run_id, run.status.attempt)


@st.cache_resource(show_spinner=False)
def _course_cache() -> SeriesCache:
    return SeriesCache(step_queries.course, kept=COURSES_KEPT)


def course(run: Run) -> pd.DataFrame:
    """What the run is compared with others by, over its recorded steps; columns of storage.queries.steps.course."""
    return _course_cache().rows(store(), run.run_id, run.status.attempt)


def reward_curve(run: Run) -> list[float]:
    """At most 60 mean rewards over the run, for a sparkline."""
    return _reward_curve(root(), run.run_id, run.status.attempt, run.status.step, run.status.state)


@st.cache_data(show_spinner=False, max_entries=2000)
def _reward_curve(path: Path, run_id: str, attempt: int, step: int, state: str) -> list[float]:
    return run_queries.reward_curve(_store(path), run_id, points=60)


def groups(run: Run, step: int) -> pd.DataFrame:
    """The groups of a recorded step; columns of storage.schema.GROUPS."""
    return _groups(root(), run.run_id, run.status.attempt, step)


@st.cache_data(show_spinner=False, max_entries=64)
def _groups(path: Path, run_id: str, attempt: int, step: int) -> pd.DataFrame:
    return group_queries.groups_of_step(_store(path), run_id, step)


def verdicts(run: Run, step: int) -> pd.DataFrame:
    """Every rollout of a recorded step without its text: group_index, rollout_index, reward, correct, source."""
    return _verdicts(root(), run.run_id, run.status.attempt, step)


@st.cache_data(show_spinner=False, max_entries=64)
def _verdicts(path: Path, run_id: str, attempt: int, step: int) -> pd.DataFrame:
    return group_queries.verdicts_of_step(_store(path), run_id, step)


def size(run: Run) -> int:
    """Bytes on disk of everything recorded, checkpoints and log left out."""
    return _size(root(), run.run_id, run.status.state, taken(run))


@st.cache_data(show_spinner=False, max_entries=2000, ttl=SIZES_S)
def _size(path: Path, run_id: str, state: str, taken: int) -> int:
    return run_queries.run_size(_store(path), run_id)


def outlook(run: Run) -> Callable[[Retention], Plan]:
    """What any retention policy would take of the run as it is now. Raises StoreError."""
    return _outlook(root(), run.run_id, run.status.attempt, run.status.step, run.status.state, taken(run))


@st.cache_resource(show_spinner=False, max_entries=4)
def _outlook(path: Path, run_id: str, attempt: int, step: int, state: str, taken: int) -> Callable[[Retention], Plan]:
    return run_outlook(path, run_id)


def taken(run: Run) -> int:
    """Another number whenever tokens of the run have been thinned, so that what is kept in memory of them is asked for anew."""
    try:
        return (store().run_dir(run.run_id) / RECORD).stat().st_size
    except FileNotFoundError:
        return 0


def thinnings(run: Run) -> tuple[Thinning, ...]:
    """What a retention policy has taken of the run, the oldest first."""
    return read_record(store().run_dir(run.run_id)) if taken(run) else ()


def thinned(run: Run, step: int) -> frozenset[int]:
    """The groups of a step whose tokens are gone."""
    count = taken(run)
    return _thinned(root(), run.run_id, run.status.attempt, count, step) if count else frozenset()


@st.cache_data(show_spinner=False, max_entries=256)
def _thinned(path: Path, run_id: str, attempt: int, taken: int, step: int) -> frozenset[int]:
    return frozenset(retention_queries.thinned_groups(_store(path), run_id, step))


def rollouts(run: Run, step: int, group_index: int) -> pd.DataFrame:
    """The rollouts of a group with their traces; columns of storage.schema.ROLLOUTS."""
    return _rollouts(root(), run.run_id, run.status.attempt, taken(run), step, group_index)


@st.cache_resource(show_spinner=False, max_entries=32)
def _rollouts(path: Path, run_id: str, attempt: int, taken: int, step: int, group_index: int) -> pd.DataFrame:
    return group_queries.rollouts_of_group(_store(path), run_id, step, group_index)


def worst_tokens(run: Run, step: int, count: int) -> pd.DataFrame:
    """The tokens of the step's correct rollouts that lost most log-prob; columns of storage.queries.likelihood.worst_tokens."""
    return _worst_tokens(root(), run.run_id, run.status.attempt, taken(run), step, count)


@st.cache_data(show_spinner=False, max_entries=64)
def _worst_tokens(path: Path, run_id: str, attempt: int, taken: int, step: int, count: int) -> pd.DataFrame:
    return likelihood_queries.worst_tokens(_store(path), run_id, step, count)


@st.cache_resource(show_spinner=False, max_entries=8)
def _vocabulary(path: Path, run_id: str) -> list[str]:
    return group_queries.vocabulary(_store(path), run_id)


def vocabulary(run: Run) -> list[str]:
    """The text of every token id; empty until the run has written it, so an empty answer is not kept."""
    pieces = _vocabulary(root(), run.run_id)
    if not pieces:
        _vocabulary.clear(root(), run.run_id)
    return pieces


@st.cache_data(show_spinner=False, max_entries=64)
def _prompt_history(path: Path, run_id: str, prompt_hash: str, step: int) -> pd.DataFrame:
    return group_queries.prompt_history(_store(path), run_id, prompt_hash)


def prompt_history(run: Run, prompt_hash: str) -> pd.DataFrame:
    """Every group of the same prompt in the run: step, group_index, reward_mean, correct, size."""
    return _prompt_history(root(), run.run_id, prompt_hash, run.status.step)


@st.cache_resource(show_spinner=False, on_release=Laboratory.close)
def laboratory() -> Laboratory:
    return Laboratory()


def recorded_step(run: Run, step: int) -> RecordedBatch:
    """One step as the laboratory takes it: those of its groups that have their tokens still."""
    return _recorded_step(root(), run.run_id, run.status.attempt, taken(run), step, run.config.max_new_tokens)


@st.cache_data(show_spinner=False, max_entries=8)
def _recorded_step(path: Path, run_id: str, attempt: int, taken: int, step: int, max_length: int) -> RecordedBatch:
    rollouts = lab_queries.rollouts_of_step(_store(path), run_id, step)
    weights = lab_queries.part_weights(_store(path), run_id, step)
    return recorded_batch(rollouts, first_entropy=_first_entropy(path, run_id, attempt), max_length=max_length, part_weights=weights, step=step)


@st.cache_data(show_spinner=False, max_entries=64)
def _first_entropy(path: Path, run_id: str, attempt: int) -> float:
    return lab_queries.first_entropy(_store(path), run_id)

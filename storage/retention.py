"""Which token lists of old steps a policy keeps, and how many bytes taking the others would free.

Only the lists of `rollouts` (TOKEN_LISTS) are ever taken. Scalars and texts of rollouts, and everything in `steps` and `groups`, stay for ever, and
so do the lists of what the figures themselves name as evidence. Thinning itself is in thinning.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from storage.compaction import BLOCK
from storage.errors import StoreError
from storage.layout import Layout, Segment, damaged, read_layout
from storage.schema import ROLLOUTS

Keep = Literal["all", "every", "flagged", "budget"]
KEEPS: tuple[Keep, ...] = get_args(Keep)
TOKEN_LISTS = tuple(column.name for column in ROLLOUTS.columns if pa.types.is_list(column.type))
"""What thinning takes: token ids and every trace."""
RECENT = 64
"""Newest steps that keep their tokens under any policy, unless more or fewer are asked for."""
ALERT_REACH = 2
"""Steps before and after an alert that keep their tokens."""
LIVE_SLACK = 0.1
"""A run that keeps a budget while it trains thins so much below it at once, so that large files are seldom written anew."""

_UNITS = ("bytes", "kB", "MB", "GB", "TB")
_GROUP = ["step", "group_index"]
_TRIES = 20
BEFORE, NEWEST, FIRST, ALERT, SMALL = "thinned before", "newest steps", "first step", "near an alert", "not merged yet"
"""Why a group keeps its tokens under any policy; or, the first, has none left. Groups that figures name have the reasons of queries/retention.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What a run keeps of its token lists: all, every n-th step, evidence alone (flagged), or as much as fits a budget, the oldest steps going first.

    Raises StoreError where the numbers cannot work.
    """

    keep: Keep = "all"
    every: int = 0
    budget_bytes: int = 0
    recent: int = RECENT

    def __post_init__(self) -> None:
        if self.keep not in KEEPS:
            raise StoreError(f"unknown retention {self.keep!r}; known: {', '.join(KEEPS)}")
        if self.keep == "every" and self.every < 2:
            raise StoreError(f"keep every {self.every} steps thins nothing; every needs 2 or more, e.g. 10")
        if self.keep == "budget" and self.budget_bytes < 1:
            raise StoreError(f"a budget of {self.budget_bytes} bytes keeps nothing; give a size, e.g. 2GB")
        if self.keep != "every" and self.every:
            raise StoreError(f"every={self.every} is read only by the policy every; leave it out, or keep every")
        if self.keep != "budget" and self.budget_bytes:
            raise StoreError(f"a budget of {size_text(self.budget_bytes)} is read only by the policy budget; leave it out, or keep budget")
        if self.recent < 0:
            raise StoreError(f"recent={self.recent} is no number of steps; the default is {RECENT}")

    @property
    def sentence(self) -> str:
        """The policy as one says it: `every 10th step`."""
        words = {"all": "all tokens", "every": f"every {_ordinal(self.every)} step", "flagged": "flagged groups only"}
        return words.get(self.keep) or f"at most {size_text(self.budget_bytes)} of tokens"


@dataclass(frozen=True, slots=True)
class Survey:
    """What the token lists of a run take: one row per step and group of its rollouts.

    Columns: file (index into `files`), step, group_index, bytes (on disk, as Parquet's footers say, shared by length), thinned, merged (whether
    its file may be written anew), last (last step of its file).
    """

    layout: Layout
    files: tuple[Segment, ...]
    groups: pd.DataFrame


@dataclass(frozen=True, slots=True)
class Kept:
    """Groups that keep their tokens for one reason."""

    reason: str
    steps: int
    groups: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a policy would do to a run. `groups` has a Survey's columns and `why`: the reason to keep the group's tokens, empty where they go."""

    retention: Retention
    files: tuple[Segment, ...]
    groups: pd.DataFrame

    @property
    def lost(self) -> pd.DataFrame:
        """The groups whose tokens go."""
        return self.groups[self.groups["why"] == ""]

    @property
    def token_bytes(self) -> int:
        """Bytes of all token lists there are now."""
        return round(self.groups["bytes"].sum())

    @property
    def freed_bytes(self) -> int:
        """Bytes that would be freed: an estimate, for what stays is compressed anew."""
        return round(self.lost["bytes"].sum())

    @property
    def steps(self) -> list[int]:
        """Steps that would lose tokens, in order."""
        return sorted(set(self.lost["step"].tolist()))

    @property
    def over_bytes(self) -> int:
        """By how much the run would stay over its budget, because nothing else may go."""
        budget = self.retention.budget_bytes
        return max(0, self.token_bytes - self.freed_bytes - budget) if budget else 0

    def kept(self) -> list[Kept]:
        """What would stay, by reason, the most bytes first; last what has no tokens any more."""
        stays = self.groups[self.groups["why"] != ""].groupby("why")
        found = [Kept(str(why), int(rows["step"].nunique()), len(rows), round(rows["bytes"].sum())) for why, rows in stays]
        return sorted(found, key=lambda one: (-one.bytes, one.reason))


def survey(run_dir: Path) -> Survey:
    """Reads the footers of a run's rollouts and four small columns; no token.

    Raises StoreError for a run that an earlier version sealed, SegmentDamaged where a file cannot be read, NewerStore.
    """
    for attempt in range(_TRIES):
        layout = read_layout(run_dir)
        if layout.in_database:
            raise StoreError(
                f"run {run_dir.name} was sealed by an earlier version as tables in run.duckdb, from which no tokens can be taken; "
                f"`python -m grpo_core seal {run_dir.name}` makes files of them first"
            )
        files = layout.segments["rollouts"]
        try:
            parts = [_survey_file(index, segment, large=_may_be_rewritten(segment, layout)) for index, segment in enumerate(files)]
            groups = pd.concat(parts, ignore_index=True) if parts else _survey_rows(0, [], [], [], [], False, 0)
            return Survey(layout, files, groups)
        except FileNotFoundError as error:  # merged away meanwhile
            if attempt == _TRIES - 1:
                raise damaged(Path(error.filename), "it vanished while being read") from None
    raise AssertionError("unreachable")


def plan(retention: Retention, found: Survey, named: pd.DataFrame, *, alerts: Iterable[int] = (), live: bool = False) -> Plan:
    """What a policy would take. `named` are groups that figures name as evidence (step, group_index, reason), `alerts` steps with an alert.

    While a run is live only files are touched that lie wholly before its newest steps, so that no file is written anew twice.
    """
    rows = found.groups.copy()
    step = rows["step"].to_numpy("i8")
    newest = step.max(initial=-1) - retention.recent
    why = np.full(len(rows), "", object)

    def stays(which: np.ndarray, reason: str) -> None:
        why[(why == "") & which] = reason

    stays(rows["thinned"].to_numpy(bool), BEFORE)
    stays(step > newest, NEWEST)
    stays(step == step.min(initial=0), FIRST)
    for alert in alerts:
        stays(np.abs(step - alert) <= ALERT_REACH, ALERT)
    reasons = rows[_GROUP].merge(named.drop_duplicates(_GROUP), how="left", on=_GROUP)["reason"]
    for reason in dict.fromkeys(reasons.dropna()):
        stays((reasons == reason).to_numpy(bool), reason)
    stays(~rows["merged"].to_numpy(bool) | (live & (rows["last"].to_numpy("i8") > newest)), SMALL)
    if retention.keep == "all":
        stays(np.ones(len(rows), bool), retention.sentence)
    elif retention.keep == "every":
        stays(step % retention.every == 0, retention.sentence)
    elif retention.keep == "budget":
        stays(~np.isin(step, _oldest(rows[why == ""], _excess(rows, retention, live))), "within the budget")
    return Plan(retention, found.files, rows.assign(why=why))


def size_text(size: float) -> str:
    """Bytes as people read them, in powers of ten: `3.2 MB`."""
    power = 0
    while abs(size) >= 999.5 and power < len(_UNITS) - 1:
        size, power = size / 1000, power + 1
    return f"{size:.{1 if power and abs(size) < 9.95 else 0}f} {_UNITS[power]}"


def _ordinal(n: int) -> str:
    return f"{n}{'th' if n % 100 in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def _excess(rows: pd.DataFrame, retention: Retention, live: bool) -> float:
    total = rows["bytes"].sum()
    target = retention.budget_bytes * (1 - LIVE_SLACK if live else 1)
    return total - target if total > retention.budget_bytes else 0.0


def _oldest(rows: pd.DataFrame, excess: float) -> Sequence[int]:
    """The oldest steps of these groups that add up to so many bytes, or all."""
    if excess <= 0:
        return []
    sizes = rows.groupby("step")["bytes"].sum().sort_index()
    return sizes.index[: int(np.searchsorted(sizes.cumsum().to_numpy(), excess)) + 1].tolist()


def _may_be_rewritten(segment: Segment, layout: Layout) -> bool:
    return segment.merged and (layout.sealed or segment.last - segment.first + 1 >= BLOCK)


def _survey_file(index: int, segment: Segment, *, large: bool) -> pd.DataFrame:
    try:
        with pq.ParquetFile(segment.path) as file:
            rows, sizes = zip(*(_token_bytes(file.metadata.row_group(n)) for n in range(file.num_row_groups))) if file.num_row_groups else ((), ())
            names = [name for name in (*_GROUP, "length", "thinned") if name in file.schema_arrow.names]
            table = file.read(names, use_threads=False)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise damaged(segment.path, " ".join(str(error).split())[:200]) from None
    thinned = table["thinned"].fill_null(False).to_numpy() if "thinned" in names else np.zeros(table.num_rows, bool)
    length = np.where(thinned, 0, table["length"].fill_null(0).to_numpy()).astype("f8")
    part = np.repeat(np.arange(len(rows)), rows)
    weight = np.bincount(part, weights=length, minlength=len(rows))
    share = np.divide(np.asarray(sizes, "f8"), weight, out=np.zeros(len(rows)), where=weight > 0)
    return _survey_rows(index, table["step"].to_numpy(), table["group_index"].to_numpy(), length * share[part], thinned, large, segment.last)


def _survey_rows(index: int, step: Sequence, group: Sequence, size: Sequence, thinned: Sequence, merged: bool, last: int) -> pd.DataFrame:
    rows = pd.DataFrame({"step": np.asarray(step, "i8"), "group_index": np.asarray(group, "i8"), "bytes": np.asarray(size, "f8")})
    rows["thinned"] = np.asarray(thinned, bool)
    groups = rows.groupby(_GROUP, as_index=False).agg({"bytes": "sum", "thinned": "all"})
    return groups.assign(file=index, merged=merged, last=last)


def _token_bytes(group: pq.RowGroupMetaData) -> tuple[int, int]:
    """Rows of a row group, and the bytes of its token lists."""
    columns = (group.column(n) for n in range(group.num_columns))
    return group.num_rows, sum(c.total_compressed_size for c in columns if c.path_in_schema.split(".")[0] in TOKEN_LISTS)

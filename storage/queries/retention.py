"""What a retention policy has to know of a run: the groups that its own figures name as evidence, and the steps of its alerts; and what one has taken."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd

from storage.layout import Layout, check_segment
from storage.queries.evidence import GROUP_FIGURES
from storage.reader import Store
from storage.schema import GROUPS
from storage.views import files_source, in_full

NAMED = {
    "lost most likelihood": f"{GROUP_FIGURES['delta_correct']}",
    "strongest conflict": f"{GROUP_FIGURES['conflict_net']}",
    "paid beyond correctness": f"-({GROUP_FIGURES['unearned']})",
}
"""By reason, the figure by which one group of each step is evidence: the one in which it is lowest, if that is below 0.

They are those the pages send one to: Likelihood, Conflicts, and where a signal says that rewards and correctness part. Groups behind a hint are not named.
"""


def named_groups(layout: Layout) -> pd.DataFrame:
    """Groups that are kept whatever the policy, at most one per step and reason. Columns: step, group_index, reason.

    Raises SegmentDamaged where a file of groups cannot be read: what is evidence is not known then.
    """
    files = layout.segments["groups"]
    if not files:
        return pd.DataFrame({"step": pd.Series(dtype="i8"), "group_index": pd.Series(dtype="i8"), "reason": pd.Series(dtype=object)})
    for segment in files:
        check_segment(segment)
    parts = [
        f"""select step, group_index, '{reason}' as reason
              from (select step, group_index, {figure} as value from groups where coalesce(hint_tokens, 0) = 0) where value < 0
           qualify row_number() over (partition by step order by value, group_index) = 1"""
        for reason, figure in NAMED.items()
    ]
    with duckdb.connect(config={"threads": 1}) as database:
        database.register("empty_groups", GROUPS.arrow.empty_table())
        database.execute(f"create view groups as {in_full('empty_groups', files_source(segment.path for segment in files))}")
        return database.execute(" union all ".join(parts)).df()


def thinned_groups(store: Store, run_id: str, step: int) -> list[int]:
    """The groups of a step whose token lists a retention policy has taken, in order. Raises as Store.frame does."""
    sql = "select distinct group_index from rollouts where step = ? and thinned order by group_index"
    return store.frame(run_id, sql, [step], steps=(step, step))["group_index"].tolist()


def alert_steps(catalog: Path | str, run_id: str) -> list[int]:
    """Steps after which the diagnosis raised an alert, each once. `catalog` is a store's folder or a URL. Raises StoreError."""
    from storage.catalog import FILE, Catalog  # SQLAlchemy takes a while to load, and most runs thin nothing

    if isinstance(catalog, Path) and not (catalog / FILE).exists():  # looking is no reason to make one
        return []
    return sorted(set(Catalog(catalog).alerts(run_id)["step"].astype(int).tolist()))

"""Runs recorded by earlier versions stay readable, can be continued and sealed, and read as empty where they lack a column.

fixtures/v<N>.zip hold a live and a sealed run each, three steps of one group of two rollouts, written by the code of that version.
"""

import shutil
from pathlib import Path

import duckdb
import pytest

from storage.queries import lab
from storage.queries.groups import groups_of_step, rollouts_of_group
from storage.queries.steps import step_series
from storage.queries.variance import outcome_counts
from storage.reader import Store
from storage.schema import SCHEMA_VERSION
from storage.segments import RunWriter, seal
from tests.factories import make_step_tables

FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("v*.zip"))
LATER = {"steps": "groups_hinted", "groups": "diversity", "rollouts": "delta_sum"}
"""A column of each table that version 1 does not have and version 2 does."""


@pytest.fixture(params=FIXTURES, ids=lambda path: path.stem)
def old_store(request, tmp_path):
    shutil.unpack_archive(request.param, tmp_path)
    return tmp_path


@pytest.fixture
def lacks(request):
    """Whether the version lacks the columns in LATER."""
    return request.node.callspec.params["old_store"].stem == "v1"


def test_every_earlier_version_has_a_fixture():
    assert [path.stem for path in FIXTURES] == [f"v{version}" for version in range(1, SCHEMA_VERSION)]


def values(root: Path, run: str, table: str) -> list:
    return Store(root).frame(run, f"select step, max({LATER[table]}) as later from {table} group by step order by step")[["step", "later"]].values.tolist()


@pytest.mark.parametrize("run", ["live", "sealed"])
def test_an_old_run_reads(old_store, lacks, run):
    store = Store(old_store)
    assert step_series(store, run)["step"].tolist() == [0, 1, 2] and step_series(store, run)["entropy"].tolist() == pytest.approx([1, 1 / 2, 1 / 3])
    assert all(later != later if lacks else later == later for table in LATER for _, later in values(old_store, run, table))
    assert rollouts_of_group(store, run, 1, 0)["delta_sum"].isna().all() == lacks
    assert lab.rollouts_of_step(store, run, 1)["greedy_reward"].isna().all() and lab.part_weights(store, run, 1) == {}
    assert len(groups_of_step(store, run, 1)) == 1 and outcome_counts(store, run)["scored"].tolist() == [1, 1, 1]
    assert store.damaged(run) == []


@pytest.mark.parametrize("run", ["live", "sealed"])
def test_an_old_run_goes_on_and_is_sealed(old_store, lacks, run):
    run_dir = old_store / "runs" / run
    before = Store(old_store).frame(run, "select text, entropy, logp_delta from rollouts order by step, rollout_index")
    with RunWriter.open(run_dir) as writer:
        assert writer.last_step == 2
        writer.append_step(make_step_tables(3, groups=1, group_size=2, tokens=4))
        for where in ("live", "merged"):
            for table in LATER:
                rows = values(old_store, run, table)
                assert {step for step, _ in rows} == {0, 1, 2, 3} and all((later != later) == lacks for step, later in rows if step < 3), (where, table)
            with duckdb.connect(str(run_dir / "run.duckdb"), read_only=True) as plain:
                found = plain.execute("select step, groups_hinted is null, updates from steps order by step").fetchall()
                assert found == [(s, lacks and s < 3, 2) for s in range(4)]
                assert plain.execute("select count(*), count(diversity) from groups").fetchall() == [(4, 1 if lacks else 4)]
            writer.supersede(3)  # nothing to do, but it must know the layout
            writer.compact()
    seal(run_dir)
    store = Store(old_store)
    assert store.frame(run, "select count(delta_sum) as n, count(*) as all_rows from rollouts").values.tolist() == [[1 if lacks else 4, 8]]
    after = store.frame(run, "select text, entropy, logp_delta from rollouts where step < 3 order by step, rollout_index")
    assert after["text"].tolist() == before["text"].tolist() and all((a == b).all() for a, b in zip(after["entropy"], before["entropy"]))


def test_old_segments_merge_with_new_ones(old_store, lacks, monkeypatch):
    monkeypatch.setattr("storage.compaction.BLOCK", 4)
    monkeypatch.setattr("storage.compaction.SINCE_DELAY_S", -1.0)
    with RunWriter.open(old_store / "runs" / "live") as writer:
        writer.append_step(make_step_tables(3, groups=1, group_size=2, tokens=4))
        assert writer.compact() == 4
    assert len(step_series(Store(old_store), "live")) == 4
    assert values(old_store, "live", "groups") == [
        pytest.approx([step, float("nan") if lacks and step < 3 else 0.5], nan_ok=True) for step in range(4)
    ]

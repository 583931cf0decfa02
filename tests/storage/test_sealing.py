import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from storage import compaction, sealing
from storage.errors import NewerStore, RunLocked, RunNotFound, SegmentDamaged, StoreError
from storage.layout import list_segments
from storage.queries.steps import step_series
from storage.reader import Store
from storage.schema import SCHEMA_VERSION, TABLES
from storage.segments import RunWriter, is_sealed, seal
from tests.factories import make_step_tables

TOKENS = "select * from tokens order by all"


@pytest.fixture
def recorded(writer, record, run_dir):
    record(0, 9)
    writer.write_vocabulary(["a", "b"])
    writer.close()
    return run_dir


def test_sealing_leaves_one_file_with_the_same_rows(recorded, store, plain):
    views = ("steps", "groups", "rollouts", "updates", "positions", "tokens", "vocabulary")
    live = {name: plain(f"select * from {name} order by all") for name in views}
    frame = store.frame("r1", TOKENS)
    assert not is_sealed(recorded)
    seal(recorded)
    assert is_sealed(recorded)
    assert sorted(path.name for path in recorded.iterdir() if path.suffix != ".lock") == ["config.json", "run.duckdb", "store.json"]
    for name in views:  # repr: NaN equals NaN
        assert repr(plain(f"select * from {name} order by all")) == repr(live[name]), name
    assert store.frame("r1", TOKENS).equals(frame)
    assert plain("select table_name from duckdb_tables() order by 1") == [("groups",), ("rollouts",), ("steps",), ("store_info",), ("vocabulary",)]
    assert plain("from store_info") == [(SCHEMA_VERSION, "rounded", True)]


def test_a_sealed_file_stands_alone(recorded, tmp_path):
    seal(recorded)
    alone = tmp_path / "mailed to a friend.duckdb"
    alone.write_bytes((recorded / "run.duckdb").read_bytes())
    with duckdb.connect(str(alone)) as database:
        assert database.execute("select count(*) from tokens").fetchone() == (10 * 122,)
        assert database.execute("select tags['storage_version'] from duckdb_databases() where path like '%friend%'").fetchone()[0].startswith("v1.5")


def test_sealing_again_changes_nothing(recorded):
    seal(recorded)
    before = (recorded / "run.duckdb").read_bytes(), (recorded / "store.json").read_bytes()
    seal(recorded)
    assert ((recorded / "run.duckdb").read_bytes(), (recorded / "store.json").read_bytes()) == before


def test_an_empty_run_and_one_never_written_can_be_sealed(tmp_path):
    RunWriter.open(tmp_path / "runs" / "opened").close()
    (tmp_path / "runs" / "never").mkdir()
    for run_id in ("opened", "never"):
        seal(tmp_path / "runs" / run_id)
        assert is_sealed(tmp_path / "runs" / run_id) and step_series(Store(tmp_path), run_id).empty
        assert Store(tmp_path).last_step(run_id) is None
        with RunWriter.open(tmp_path / "runs" / run_id) as writer:
            assert writer.last_step == -1
    with pytest.raises(RunNotFound, match="no run folder"):
        seal(tmp_path / "runs" / "nowhere")


def test_a_run_being_written_is_not_sealed(writer, record, run_dir):
    record(0, 0)
    with pytest.raises(RunLocked):
        seal(run_dir)
    record(1, 1)


@pytest.mark.parametrize("harm", ["truncated", "missing"])
def test_a_damaged_run_is_not_sealed_and_stays_as_it_was(recorded, store, harm):
    path = list_segments(recorded / "groups")[4].path
    path.unlink() if harm == "missing" else path.write_bytes(path.read_bytes()[:100])
    files = sorted(recorded.rglob("*"))
    with pytest.raises(SegmentDamaged, match="groups"):
        seal(recorded)
    assert sorted(recorded.rglob("*")) == files and not is_sealed(recorded)
    assert len(store.frame("r1", "select * from groups", skip_damaged=True)) == 18


class _Short(dict):
    """SQL sources that lose rows when tables are filled from them, and are right when tables are compared with them."""

    def __getitem__(self, name: str) -> str:
        return f"(from {super().__getitem__(name)} limit 9)"


def test_tables_that_differ_from_the_segments_are_thrown_away(recorded, store, monkeypatch):
    monkeypatch.setattr(sealing, "_sources", lambda run_dir, layout, real=sealing._sources: _Short(real(run_dir, layout)))
    files = sorted(recorded.rglob("*"))
    with pytest.raises(StoreError, match="table steps built for .* differs from its segments .* stays unsealed and whole"):
        seal(recorded)
    assert sorted(recorded.rglob("*")) == files and not is_sealed(recorded)
    assert len(step_series(store, "r1")) == 10


def test_no_room_for_the_sealed_file_leaves_the_run_as_it_was(recorded, store):
    """DuckDB keeps silent when it cannot write its file on closing; the limit is the kernel's own (EFBIG)."""
    code = f"""
import resource
from pathlib import Path
from storage.errors import DiskFull
from storage.segments import seal
for limit in range(100_000, 1_300_000, 200_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        seal(Path({str(recorded)!r}))
        break
    except DiskFull as error:
        print(error)
"""
    files, before = sorted(recorded.rglob("*")), store.frame("r1", TOKENS)
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.stdout.count("no room to write in") == 6, done.stderr
    assert sorted(recorded.rglob("*")) == files and not is_sealed(recorded)
    assert store.frame("r1", TOKENS).equals(before)


def test_a_newer_run_is_not_sealed(recorded):
    (recorded / "store.json").write_text('{"schema_version": 7}')
    for refused in (seal, is_sealed):
        with pytest.raises(NewerStore, match="version 7"):
            refused(recorded)
    assert len(list_segments(recorded / "steps")) == 10


def test_a_sealed_run_goes_on(recorded, store, plain, monkeypatch):
    monkeypatch.setattr(sealing, "UNSEAL_BLOCK", 4)
    monkeypatch.setattr(sealing, "UNSEAL_BATCH", 3)
    before = store.frame("r1", TOKENS)
    seal(recorded)
    with RunWriter.open(recorded, precision="half") as writer:
        assert writer.last_step == 9 and not is_sealed(recorded)
        assert {table: [(s.first, s.last) for s in list_segments(recorded / table)] for table in TABLES} == dict.fromkeys(TABLES, [(0, 3), (4, 7), (8, 9)])
        assert store.frame("r1", TOKENS).equals(before), "what was recorded keeps its precision"
        assert plain("select count(*) from rollouts") == [(80,)] and plain("select piece from vocabulary order by token_id") == [("a",), ("b",)]
        writer.append_step(make_step_tables(10))
        assert writer.supersede(5) == 5
        writer.append_step(make_step_tables(6))
    seal(recorded)
    assert step_series(store, "r1")["step"].tolist() == list(range(7)) and plain("select max(step) from groups") == [(6,)]
    assert len(list((recorded / "superseded" / "0" / "steps").iterdir())) == 3


@pytest.mark.parametrize("after", ["tables built", "marker published", "rollouts removed"])
def test_a_seal_cut_short_is_whole_for_readers_and_can_be_finished_or_written(recorded, store, plain, monkeypatch, after):
    class Killed(BaseException):
        pass

    def die(*args):
        raise Killed

    with monkeypatch.context() as patch:
        if after == "tables built":
            patch.setattr(sealing, "publish_info", die)
        elif after == "marker published":
            patch.setattr(sealing, "remove_segments", die)
        else:
            patch.setattr(sealing.shutil, "rmtree", die)
        with pytest.raises(Killed):
            seal(recorded)
    assert is_sealed(recorded) == (after != "tables built")
    assert store.frame("r1", "select count(*) as n from rollouts")["n"][0] == 80 == plain("select count(*) from rollouts")[0][0]
    assert store.damaged("r1") == []
    with RunWriter.open(recorded) as writer:
        assert writer.last_step == 9
        writer.append_step(make_step_tables(10))
    seal(recorded)
    assert len(step_series(store, "r1")) == 11 and plain("select count(*) from rollouts") == [(88,)]
    assert not [path for path in recorded.iterdir() if path.is_dir() or path.name.startswith(".tmp")]


def test_an_unseal_cut_short_starts_over(recorded, store, monkeypatch):
    seal(recorded)
    with monkeypatch.context() as patch:
        patch.setattr(sealing, "TABLES", {"groups": TABLES["groups"], "rollouts": TABLES["rollouts"]})
        patch.setattr(sealing, "VOCABULARY", None)  # dies after two tables
        with pytest.raises(AttributeError):
            RunWriter.open(recorded)
    assert is_sealed(recorded) and len(step_series(store, "r1")) == 10
    with RunWriter.open(recorded) as writer:
        assert writer.last_step == 9
    assert len(store.frame("r1", "select * from rollouts")) == 80


def test_an_old_view_of_a_sealed_run_fails_loudly(recorded):
    with duckdb.connect(str(recorded / "run.duckdb"), read_only=True) as database:
        assert database.execute("select count(*) from rollouts").fetchone() == (80,)
        seal(recorded)
        with pytest.raises(duckdb.IOException, match="No files found"):
            database.execute("select count(*) from rollouts")


def test_merged_segments_seal_too(recorded, store, monkeypatch):
    monkeypatch.setattr(compaction, "BLOCK", 4)
    with RunWriter.open(recorded) as writer:
        assert writer.compact() == 8
    before = store.frame("r1", TOKENS)
    seal(recorded)
    assert store.frame("r1", TOKENS).equals(before)

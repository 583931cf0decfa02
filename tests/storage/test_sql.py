"""A person's query: what it may read, and everything it may not do, each beside a query that works."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from storage import sql
from storage.errors import QueryRefused, QueryStopped, RunNotFound, SegmentDamaged, StoreError
from storage.layout import list_segments
from storage.reader import Store
from storage.segments import RunWriter, seal
from storage.sql import NAMES, answer, flat, lock
from storage.sql_process import RunningQuery
from storage.views import files_source
from tests.factories import make_step_tables

WORKS = "select step from steps order by step"


@pytest.fixture(params=["live", "sealed"])
def recorded(request: pytest.FixtureRequest, run_dir: Path, store: Store) -> Store:
    """A store whose run r1 has three steps, as segments or sealed."""
    record(run_dir)
    if request.param == "sealed":
        seal(run_dir)
    return store


@pytest.fixture
def live(run_dir: Path, store: Store) -> Store:
    record(run_dir)
    return store


@pytest.fixture(scope="module", params=["live", "sealed"])
def attacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same with a stranger's file beside the recorded ones; for tests that change nothing, as they make sure."""
    store = Store(tmp_path_factory.mktemp(request.param))
    run_dir = store.root / "runs" / "r1"
    record(run_dir)
    if request.param == "sealed":
        seal(run_dir)
    with duckdb.connect() as database:
        database.execute(f"copy (select 'secret' as word) to '{run_dir / 'beside.parquet'}'")
        if request.param == "live":
            database.execute(f"copy (select 'secret' as word) to '{run_dir / 'steps' / 'beside.parquet'}'")
    return store


def record(run_dir: Path, steps: int = 3) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "config.json").write_text("{}")
    with RunWriter.open(run_dir) as writer:
        writer.write_vocabulary(["a", "b", "c"])
        for step in range(steps):
            writer.append_step(make_step_tables(step))


def rows(store: Store, text: str, *run_ids: str, limit: int = 1000) -> list[tuple]:
    table = answer(store, run_ids or ("r1",), text, limit=limit).table
    return list(zip(*(column.to_pylist() for column in table.columns)))


def everything(folder: Path) -> dict[str, bytes]:
    """What every file below a folder holds, locks aside."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


# what it reads


def test_every_table_is_there_with_the_run_before_its_columns(recorded: Store) -> None:
    for name in NAMES:
        frame = recorded.frame("r1", f"select * from {name}")
        found = answer(recorded, ["r1"], f"from {name}", limit=10_000).table
        assert found.column_names == ["run_id", *frame.columns] and found.num_rows == len(frame), name
    assert rows(recorded, WORKS) == [(0,), (1,), (2,)]
    assert rows(recorded, "select distinct run_id from tokens") == [("r1",)]


def test_a_live_run_is_read_up_to_its_newest_whole_step(run_dir: Path, store: Store) -> None:
    with RunWriter.open(run_dir) as writer:
        writer.append_step(make_step_tables(0))
        assert rows(store, WORKS) == [(0,)]
        writer.append_step(make_step_tables(1))
        assert rows(store, WORKS) == [(0,), (1,)]


def test_several_runs_are_told_apart(live: Store, run_dir: Path) -> None:
    other = run_dir.parent / "r2"
    record(other, steps=2)
    seal(other)
    counts = "select run_id, count(*) from steps group by run_id order by run_id"
    assert rows(live, counts, "r1", "r2") == [("r1", 3), ("r2", 2)] and rows(live, counts, "r2") == [("r2", 2)]
    pieces = "select count(*) from tokens join vocabulary using (run_id, token_id)"
    assert rows(live, pieces, "r1", "r2")[0][0] == rows(live, pieces, "r1")[0][0] + rows(live, pieces, "r2")[0][0] > 0


def test_names_are_found_however_they_are_written(live: Store) -> None:
    for text in ('select count(*) from "Steps"', "select count(*) from main.STEPS", "select count(*) from (select * from steps)", "-- three\nselect 3;"):
        assert rows(live, text) == [(3,)], text
    assert rows(live, "with steps as (select 1 as step) select step from steps") == [(1,)]
    assert rows(live, "select count(*) from steps s semi join groups g on g.step = s.step") == [(3,)]


def test_what_else_only_reads_is_allowed(live: Store) -> None:
    assert rows(live, "show tables") == [(name,) for name in sorted(NAMES)]
    assert [name for name, *_ in rows(live, "describe vocabulary")] == ["run_id", "token_id", "piece"]
    assert ("step", "INTEGER", "0", "2") in [row[:4] for row in rows(live, "summarize steps")]
    assert "steps" not in rows(live, "explain select 1")[0][1].lower()
    assert "Total Time" in rows(live, "explain analyze select max(step) from steps")[0][1]
    assert rows(live, "pivot (select 'a' as k, 1 as v) on k in ('a') using sum(v)") == [(1,)]
    assert rows(live, "select * from range(2), unnest(['x'])") == [(0, "x"), (1, "x")]


def test_only_tables_that_are_named_are_opened(live: Store, run_dir: Path) -> None:
    list_segments(run_dir / "rollouts")[0].path.write_bytes(b"garbage")
    assert rows(live, "select tokens > 0 from steps limit 1") == [(True,)]
    with pytest.raises(SegmentDamaged, match="do not match the checksum"):
        rows(live, "select count(*) from tokens")


def test_a_run_with_signs_in_its_path_is_read(tmp_path: Path) -> None:
    root = tmp_path / "a store's [x]*"
    record(root / "runs" / "r1")
    assert rows(Store(root), WORKS) == [(0,), (1,), (2,)]


def test_an_unknown_run_is_told(live: Store) -> None:
    with pytest.raises(RunNotFound, match="^no run 'r9'"):
        rows(live, WORKS, "r9")


def test_a_run_that_is_sealed_meanwhile_is_read_again(run_dir: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    record(run_dir)
    sources, moved = Store.sources, []

    def seal_once(self: Store, *given: object, **named: object) -> object:
        found = sources(self, *given, **named)
        if not moved:
            moved.append(seal(run_dir))
        return found

    monkeypatch.setattr(Store, "sources", seal_once)
    assert rows(store, WORKS) == [(0,), (1,), (2,)] and moved


# what it may not do

WRITES = {
    "copy (select 1) to '{place}/out.csv'": "COPY is not allowed",
    "copy steps to '{segment}' (format parquet, use_tmp_file false)": "COPY is not allowed",
    "explain analyze copy (select 1) to '{segment}' (format parquet, use_tmp_file false)": "COPY is not allowed",
    "with a as (copy (select 1) to '{segment}' (format parquet, use_tmp_file false)) from a": "COPY inside a query is not allowed",
    "with a as (insert into steps select * from steps returning *) from a": "INSERT inside a query is not allowed",
    "with a as (update steps set step = 1 returning *) from a": "UPDATE inside a query is not allowed",
    "with a as (delete from steps returning *) from a": "DELETE inside a query is not allowed",
    "select (with a as (delete from steps returning step) select max(step) from a)": "DELETE inside a query is not allowed",
    "explain with a as (delete from steps returning *) from a": "DELETE inside a query is not allowed",
    "insert into steps values (1)": "INSERT is not allowed",
    "update steps set step = 1": "UPDATE is not allowed",
    "delete from steps": "DELETE is not allowed",
    "merge into steps using groups on true when matched then delete": "MERGE INTO is not allowed",
    "create table t as select 1": "CREATE is not allowed",
    "create macro m() as 1": "CREATE is not allowed",
    "create secret (type s3)": "CREATE is not allowed",
    "drop table steps": "DROP is not allowed",
    "alter table steps add column x int": "ALTER is not allowed",
    "truncate steps": "is not allowed",
    "export database '{place}/out'": "EXPORT is not allowed",
    "import database '{place}/out'": "PRAGMA is not allowed",
    "attach '{place}/other.duckdb'": "ATTACH is not allowed",
    "attach ':memory:' as other": "ATTACH is not allowed",
    "detach run": "DETACH is not allowed",
    "install httpfs": "LOAD is not allowed",
    "load httpfs": "LOAD is not allowed",
    "set threads = 8": "SET is not allowed",
    "reset lock_configuration": "SET is not allowed",
    "set variable x = 1": "SET is not allowed",
    "use memory": "SET is not allowed",
    "pragma enable_profiling": "PRAGMA is not allowed",
    "call enable_logging()": "CALL is not allowed",
    "checkpoint": "CALL is not allowed",
    "vacuum": "VACUUM is not allowed",
    "prepare p as select 1": "PREPARE is not allowed",
    "begin": "TRANSACTION is not allowed",
    "pivot steps on attempt using max(step)": "PIVOT looks for its columns with a second statement",
    "select 1; select 2": "these are 2 statements",
    "select 1; delete from steps": "these are 2 statements",
    "explain (format json) select 1": "EXPLAIN|syntax error",
    "": "the query is empty",
    "-- nothing": "the query is empty",
    "selct 1": 'syntax error at or near "selct"',
    "select 1 " + " " * sql.LONGEST: "has 20,009 characters and may have 20,000",
    "select " + "not " * 2000 + "true": "expression depth limit",
}
READS = {
    "from read_csv('/etc/passwd')": "read_csv\\(\\) is not allowed",
    "from READ_TEXT('/etc/passwd')": "read_text\\(\\) is not allowed",
    "from read_blob('/etc/passwd')": "read_blob\\(\\) is not allowed",
    "from read_parquet('{beside}')": "read_parquet\\(\\) is not allowed",
    "from read_duckdb('{beside}')": "read_duckdb\\(\\) is not allowed",
    "from parquet_metadata('{beside}')": "parquet_metadata\\(\\) is not allowed",
    "from sniff_csv('/etc/passwd')": "sniff_csv\\(\\) is not allowed",
    "from glob('/etc/*')": "glob\\(\\) is not allowed",
    "select (select content from system.main.read_text('/etc/passwd'))": "read_text\\(\\) is not allowed",
    "select list_transform([1], lambda x: (select 1 from glob('/*')))": "glob\\(\\) is not allowed",
    "from steps where step in (select 1 from glob('/*')) order by (select 1 from glob('/*'))": "glob\\(\\) is not allowed",
    "from '/etc/passwd'": "there is no table /etc/passwd|reads tables of runs and no files",
    "from '{beside}'": "reads tables of runs and no files, so not .*beside.parquet",
    "from '{beside}.csv'": "reads tables of runs and no files",
    "from 'https://example.com/a.parquet'": "reads tables of runs and no files",
    "from 's3://bucket/a.parquet'": "reads tables of runs and no files",
    "from query('select 1')": "query\\(\\) is not allowed",
    "from query_table('steps')": "query_table\\(\\) is not allowed",
    "from json_execute_serialized_sql(json_serialize_sql('select 1'))": "json_execute_serialized_sql\\(\\) is not allowed",
    "from duckdb_secrets()": "duckdb_secrets\\(\\) is not allowed",
    "from duckdb_settings()": "duckdb_settings\\(\\) is not allowed",
    "from which_secret('s3://x', 's3')": "which_secret\\(\\) is not allowed",
    "from enable_logging(storage = 'file', storage_path = '{place}')": "enable_logging\\(\\) is not allowed",
    "from pandas_scan(1, 2, 3)": "pandas_scan\\(\\) is not allowed",
    "from arrow_scan(1, 2, 3)": "arrow_scan\\(\\) is not allowed",
    "select getenv('HOME')": "getenv does not exist",
    "from store": "there is no table store in a run; its tables are steps, groups",
    "select foo from steps": 'Referenced column "foo" not found.*Candidate bindings',
}


@pytest.mark.parametrize(("text", "sentence"), [*WRITES.items(), *READS.items()], ids=lambda value: value[:60])
def test_everything_else_is_refused_and_changes_nothing(attacked: Store, text: str, sentence: str) -> None:
    run_dir = attacked.run_dir("r1")
    beside = next(iter(run_dir.rglob("*/beside.parquet")), run_dir / "beside.parquet")
    segment = next((one.path for one in list_segments(run_dir / "steps")), run_dir / "run.duckdb")
    before = everything(attacked.root)
    with pytest.raises(QueryRefused, match=sentence) as refused:
        rows(attacked, text.format(place=attacked.root, segment=segment, beside=beside) if "{" in text else text)
    assert "\n" not in str(refused.value)
    assert everything(attacked.root) == before
    assert rows(attacked, WORKS) == [(0,), (1,), (2,)]


def test_a_mistake_is_shown_where_it_is(live: Store) -> None:
    with pytest.raises(QueryRefused) as refused:
        rows(live, "select step,\n  foo from steps")
    assert refused.value.place.splitlines()[0] == "LINE 2:   foo from steps" and "^^^" in refused.value.place


# the second wall: the same without the first


@pytest.fixture
def locked(live: Store, run_dir: Path, tmp_path: Path) -> Callable[[str], object]:
    """Runs any text, unchecked, in a DuckDB that may read the first segment of steps and nothing else."""
    first = list_segments(run_dir / "steps")[0].path
    database = duckdb.connect(config={"python_enable_replacements": "false"})
    database.execute(f"create view steps as from {files_source([first])}")
    lock(database, [first])
    yield lambda text: database.execute(text).fetchone()
    database.close()


@pytest.mark.parametrize(
    "text",
    [
        "from read_text('/etc/passwd')",
        "from read_parquet('{second}')",
        "from read_parquet('{folder}/*.parquet')",
        "from glob('{folder}/*')",
        "from '{second}'",
        "copy (select 1) to '{folder}/out.csv'",
        "attach '{folder}/other.duckdb'",
        "install httpfs",
        "load httpfs",
        "set threads = 8",
        "set enable_external_access = true",
        "set allowed_directories = ['/']",
        "reset lock_configuration",
        "create persistent secret (type http, bearer_token 'x')",
        "export database '{folder}/out'",
        "call enable_logging(storage = 'file', storage_path = '{folder}')",
        "select getenv('HOME')",
        "from live",
    ],
)
def test_the_connection_itself_cannot(locked: Callable[[str], object], run_dir: Path, tmp_path: Path, text: str) -> None:
    live = pa.table({"seen": [1]})
    before = everything(tmp_path)
    with pytest.raises(duckdb.Error):
        locked(text.format(second=list_segments(run_dir / "steps")[1].path, folder=run_dir / "steps"))
    assert everything(tmp_path) == before and live.num_rows == 1
    assert locked("select step from steps") == (0,)


# limits


def test_rows_are_cut_at_the_limit_and_only_there(live: Store) -> None:
    assert answer(live, ["r1"], WORKS, limit=3).cut == ""
    cut = answer(live, ["r1"], WORKS, limit=2)
    assert cut.cut == "rows" and cut.table.column("step").to_pylist() == [0, 1]
    many = answer(live, ["r1"], "from range(1_000_000_000)", limit=5000)
    assert many.cut == "rows" and many.table.num_rows == 5000


def test_an_answer_is_cut_before_it_grows_too_large(live: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "LARGEST_BYTES", 100_000)
    cut = answer(live, ["r1"], "select repeat('x', 1000) as wide from range(1000)", limit=1000)
    assert cut.cut == "size" and 50 < cut.table.num_rows < 110


def test_what_needs_too_much_memory_is_stopped(live: Store) -> None:
    with pytest.raises(QueryStopped, match="more than 1GB of memory"):
        rows(live, "select list(range) from range(1_000_000_000)")


def test_columns_have_names_and_types_that_others_know(live: Store) -> None:
    text = "select 1 as a, 2 as a, 3 as a_1, sum(range) as s, 10::hugeint ** 30 as big, 1.5::decimal(9, 2) as d from range(3)"
    found = answer(live, ["r1"], text, limit=5).table
    assert found.to_pylist() == [{"a": 1, "a_1": 2, "a_1_1": 3, "s": 3, "big": 1e30, "d": 1.5}]
    odd = answer(live, ["r1"], "select interval 36 hours as i, 'x'::enum('x') as e, null as n, uuid() is null as u", limit=5).table
    assert odd.to_pylist() == [{"i": "0 months 0 days 129600 s", "e": "x", "n": None, "u": False}]


def test_lists_and_maps_become_text(live: Store) -> None:
    nested = answer(live, ["r1"], """select [1, null] as "a ""list", map {'k': 0.5} as m, 'plain' as p""", limit=5).table
    assert flat(nested).to_pylist() == [{'a "list': "[1,null]", "m": '{"k":0.5}', "p": "plain"}]
    assert flat(nested.select(["p"])) == nested.select(["p"])


# in a process of its own


def ask(store: Store, text: str, *, limit: int = 1000, timeout_s: float = 60.0) -> RunningQuery:
    return RunningQuery(store.root, ["r1"], text, limit=limit, timeout_s=timeout_s)


def test_the_process_answers_as_the_function_does(live: Store) -> None:
    asked = [ask(live, WORKS, limit=2), ask(live, "select foo from steps"), RunningQuery(live.root, ["r9"], WORKS, limit=1, timeout_s=60)]
    found = asked[0].answer()
    assert found.table.to_pydict() == {"step": [0, 1]} and found.cut == "rows" and math.isfinite(found.seconds)
    with pytest.raises(QueryRefused, match='"foo" not found') as refused:
        asked[1].answer()
    assert refused.value.place.startswith("LINE 1: select foo")
    with pytest.raises(RunNotFound, match="no run 'r9'"):
        asked[2].answer()


ENDLESS = "select sum(a.range * b.range) from range(1_000_000) a, range(1_000_000) b"


@pytest.mark.parametrize("text", [ENDLESS, "select sleep_ms(100_000)", "with recursive t(i) as (select 1 union all select i + 1 from t) select max(i) from t"])
def test_a_query_has_its_time(live: Store, text: str) -> None:
    with pytest.raises(QueryStopped, match="took longer than its 0.5 s"):
        ask(live, text, timeout_s=0.5).answer()


def test_a_query_can_be_cancelled(live: Store) -> None:
    query = ask(live, ENDLESS)
    assert not query.done()
    query.cancel()
    assert query.done()
    with pytest.raises(QueryStopped, match="^the query was cancelled$"):
        query.answer()


def test_an_answered_query_cannot_be_cancelled(live: Store) -> None:
    query = ask(live, "select 1 as one")
    query._process.wait()
    query.cancel()
    assert query.answer().table.to_pydict() == {"one": [1]}


def test_a_process_that_dies_is_told(live: Store) -> None:
    query = ask(live, ENDLESS)
    query._process.terminate()
    with pytest.raises(StoreError, match="process broke down"):
        query.answer()

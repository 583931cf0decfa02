"""Exports as runs of another store: the same rows, and a sentence for every file that is no export, with nothing left behind."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from storage.about import RUN_FILE, About
from storage.errors import ExportRefused, NewerStore, StoreError
from storage.importing import LOCK, Export, add_run, differing_tables, read_export
from storage.layout import checksum
from storage.queries.export import export_database, export_run
from storage.reader import Store
from storage.schema import SCHEMA_VERSION, TABLES
from storage.segments import RunWriter, is_sealed, seal
from tests.factories import make_step_tables

ABOUT = About(run_id="r1", name="a run", config={"steps": 8}, status={"state": "finished"}, fork={"parent": "p", "step": 2, "changes": {}})
FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("v*.zip"))
EVERYTHING = ("steps", "groups", "rollouts", "updates", "positions", "tokens", "vocabulary")


@pytest.fixture
def store(store: Store, writer: RunWriter, record) -> Store:
    """A live run r1 of six steps."""
    record(0, 5)
    writer.write_vocabulary(["a", "b"])
    return store


def exported(store: Store, form: str, place: Path, run_id: str = "r1") -> Path:
    target = place / ("run.duckdb" if form == "duckdb" else "folder")
    if form == "duckdb":
        export_database(store, run_id, target, ABOUT)
    else:
        export_run(store, run_id, target, ABOUT)
    return target


@pytest.fixture(params=["duckdb", "parquet"])
def export(request, store: Store, tmp_path: Path) -> Path:
    return exported(store, request.param, tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with exports of the same run, made once."""
    root, place = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("exports")
    with RunWriter.open(root / "runs" / "r1") as writer:
        for step in range(6):
            writer.append_step(make_step_tables(step))
        writer.write_vocabulary(["a", "b"])
    for form in ("duckdb", "parquet"):
        exported(Store(root), form, place)
    return place


@pytest.fixture
def database(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made / "run.duckdb", tmp_path / "run.duckdb"))


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "folder", tmp_path / "folder"))


def rows(run_dir: Path) -> dict[str, str]:
    with duckdb.connect(str(run_dir / "run.duckdb"), read_only=True) as plain:
        return {name: repr(plain.execute(f"select * from {name} order by all").fetchall()) for name in EVERYTHING}


def listing(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.suffix != ".lock")


def test_an_export_becomes_a_sealed_run_with_the_same_rows(store: Store, export: Path, tmp_path: Path) -> None:
    before, frame = rows(store.run_dir("r1")), store.frame("r1", "select * from tokens order by all")
    moved = export.rename(tmp_path / f"moved{export.suffix}")
    found = read_export(moved)
    assert found.about == ABOUT or found.about.files  # a folder's checksums are beside what it says
    assert (found.about.run_id, found.about.config, found.about.fork, found.rows("rollouts")) == ("r1", {"steps": 8}, ABOUT.fork, 48)
    other = tmp_path / "other"
    seen: list[tuple[int, int]] = []
    add_run(other, "r1", found, {"config.json": "{}"}, progress=lambda *at: seen.append(at))
    assert seen == [(done, 18) for done in (0, 6, 12, 18)]
    shutil.rmtree(store.root / "runs")
    moved.unlink() if moved.is_file() else shutil.rmtree(moved)
    run_dir = other / "runs" / "r1"
    assert sorted(path.name for path in run_dir.iterdir()) == ["config.json", "run.duckdb", "sealed", "store.json", "vocabulary.parquet"]
    assert is_sealed(run_dir) and rows(run_dir) == before and Store(other).damaged("r1") == []
    assert Store(other).frame("r1", "select * from tokens order by all").equals(frame)
    assert differing_tables(Store(other), "r1", found) == []
    assert [path.name for path in (other / "runs").iterdir() if path.suffix != ".lock"] == ["r1"]


@pytest.mark.parametrize("form", ["duckdb", "parquet"])
@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
def test_a_run_of_an_older_version_travels(fixture: Path, form: str, tmp_path: Path) -> None:
    shutil.unpack_archive(fixture, tmp_path / "old")
    old = Store(tmp_path / "old")
    for run_id in ("live", "sealed"):
        place = tmp_path / run_id
        place.mkdir()
        found = read_export(exported(old, form, place, run_id))
        add_run(tmp_path / "new", run_id, found, {"config.json": "{}"})
        texts = "select text, entropy, logp_delta, delta_sum from rollouts order by step, rollout_index"
        assert Store(tmp_path / "new").frame(run_id, texts).astype(str).equals(old.frame(run_id, texts).astype(str))


def test_an_export_of_an_older_version_gets_the_columns_it_lacks(database: Path, tmp_path: Path) -> None:
    """What version 1 wrote, by hand: without later columns, and with fewer fields in an update."""
    with duckdb.connect(str(database)) as plain:
        plain.execute("drop view updates")
        plain.execute("alter table steps drop column conflict_head")
        plain.execute("alter table rollouts drop column delta_sum")
        plain.execute("alter table steps alter update_rows type struct(update integer, loss double)[] using [{'update': 0::int, 'loss': 2.5::double}]")
        plain.execute("update store_info set schema_version = 1")
    add_run(tmp_path / "new", "r1", read_export(database), {"config.json": "{}"})
    new = Store(tmp_path / "new")
    assert (
        new.frame("r1", "select conflict_head from steps")["conflict_head"].isna().all()
        and new.frame("r1", "select delta_sum from rollouts").isna().all().all()
    )
    assert new.frame("r1", "select loss, grad_norm from updates where step = 3").fillna(-1).values.tolist() == [[2.5, -1]]


def changed(file: Path, *statements: str) -> None:
    with duckdb.connect(str(file)) as plain:
        for statement in statements:
            plain.execute(statement)


SPOILED = {
    "update store_info set schema_version = 99": (NewerStore, "exported with store version 99, but this Groupscope reads up to"),
    "update store_info set precision = 'fuzzy'": (ExportRefused, "recorded with precision 'fuzzy'; known are"),
    "drop table run_info": (ExportRefused, "has no table run_info, so nothing says which run it holds"),
    "drop table store_info": (ExportRefused, "has no table run_info, so nothing says which run it holds"),
    "delete from run_info": (ExportRefused, "does not say of exactly one run"),
    "insert into run_info from run_info": (ExportRefused, "does not say of exactly one run"),
    "update run_info set run_id = null": (ExportRefused, "does not describe a run .run_id: input should be a valid string"),
    "alter table run_info alter run_id type integer using 7": (ExportRefused, "does not describe a run .run_id"),
    "update run_info set config = '[1]'": (ExportRefused, "does not describe a run .config"),
    "update run_info set config = '{\"a\": NaN}'": (ExportRefused, "something that is no JSON"),
    "update run_info set config = repeat('[', 100_000)": (ExportRefused, "something that is no JSON"),
    'update run_info set config = \'{"name": "\\u001b[31m"}\'': (ExportRefused, "control characters in the run's config"),
    'update run_info set config = \'{"name": "\\ud800"}\'': (ExportRefused, "does not describe a run"),
    "update run_info set config = repeat(' ', 20_000_000)": (ExportRefused, "20000000 bytes of facts"),
    "update run_info set name = 'a' || chr(27) || '[2J'": (ExportRefused, "control characters in the run's name"),
    "drop table vocabulary": (ExportRefused, "has no table vocabulary"),
    "alter table groups drop column step": (ExportRefused, "has no column groups.step"),
    "alter table groups add column payload varchar": (ExportRefused, "has a column groups.'payload', which no run has"),
    "alter table groups alter prompt type integer using 1": (ExportRefused, "has column groups.prompt as INTEGER, and it is VARCHAR"),
    "alter table rollouts alter entropy type double[]": (ExportRefused, r"rollouts.entropy as DOUBLE\[\], and it is FLOAT\[\]"),
    "alter table steps alter update_rows type struct(x integer)[] using []": (ExportRefused, "steps.update_rows as STRUCT"),
    "insert into steps from steps where step = 2": (ExportRefused, "rows in steps that no run has: step tell them apart"),
    "update steps set step = -1 where step = 2": (ExportRefused, "rows in steps that no run has"),
    "update groups set group_index = null": (ExportRefused, "rows in groups that no run has"),
    "delete from steps where step = 2": (ExportRefused, "rows in groups of steps that are not in its table steps"),
    "update rollouts set entropy = [1.0] where step = 2": (ExportRefused, "token traces of different lengths in one rollout .step, group, rollout: .2, "),
}


@pytest.mark.parametrize("statement", SPOILED)
def test_a_file_that_is_no_run_is_refused_in_one_sentence(database: Path, statement: str) -> None:
    kind, sentence = SPOILED[statement]
    changed(database, *(f"drop view {view}" for view in ("updates", "positions", "tokens")), statement)
    with pytest.raises(kind, match=sentence) as caught:
        read_export(database)
    assert "\n" not in str(caught.value) and str(database) in str(caught.value)


def test_a_view_in_place_of_a_table_reads_nothing_of_this_machine(database: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("token_id,piece\n0,secret\n")
    changed(database, "drop table vocabulary", f"create view vocabulary as select token_id::integer as token_id, piece from read_csv('{secret}')")
    with pytest.raises(ExportRefused, match="has no table vocabulary"):
        read_export(database)


def test_views_and_macros_of_an_export_are_left_behind(database: Path, tmp_path: Path) -> None:
    changed(database, "create or replace view tokens as select 'false' as piece", "create macro avg(x) as 7", "create table extra as select 1 as one")
    add_run(tmp_path / "new", "r1", read_export(database), {"config.json": "{}"})
    with duckdb.connect(str(tmp_path / "new" / "runs" / "r1" / "run.duckdb"), read_only=True) as plain:
        assert plain.execute("select count(*) from tokens").fetchone() == (6 * 122,)
        assert plain.execute("select avg(step) from steps").fetchone() == (2.5,)
        assert plain.execute("select count(*) from duckdb_tables() where table_name = 'extra'").fetchone() == (0,)


def test_a_damaged_file_is_refused(database: Path, folder: Path) -> None:
    whole = database.read_bytes()
    for at in range(5, 100, 15):  # percent
        place = len(whole) * at // 100
        database.write_bytes(whole[:place])
        with pytest.raises(ExportRefused, match="cannot be read .*; copy it again"):
            read_export(database)
    refused = 0
    for place in range(4096, len(whole), len(whole) // 20):
        database.write_bytes(whole[:place] + bytes(byte ^ 0xFF for byte in whole[place : place + 8]) + whole[place + 8 :])
        try:
            read_export(database)
        except ExportRefused:
            refused += 1
    assert refused >= 5, "flipped bits in blocks that hold data"
    file = folder / "rollouts.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    with pytest.raises(ExportRefused, match="rollouts.parquet is not as it was exported, as its checksum in run.json says"):
        read_export(folder)
    file.unlink()
    with pytest.raises(ExportRefused, match="lacks rollouts.parquet, so it is half an export"):
        read_export(folder)


def test_a_folder_whose_facts_and_tables_do_not_fit_is_refused(folder: Path) -> None:
    said = json.loads((folder / RUN_FILE).read_text())
    pq.write_table(pa.table({"token_id": pa.array([1, 1], pa.int32()), "piece": ["a", "b"]}), folder / "vocabulary.parquet")
    said["files"]["vocabulary.parquet"] = checksum(folder / "vocabulary.parquet")
    (folder / RUN_FILE).write_text(json.dumps(said))
    with pytest.raises(ExportRefused, match="rows in vocabulary that no run has: token_id tell them apart"):
        read_export(folder)
    (folder / "vocabulary.parquet").write_bytes(b"PAR1 and so on")
    said["files"]["vocabulary.parquet"] = checksum(folder / "vocabulary.parquet")
    (folder / RUN_FILE).write_text(json.dumps(said))
    with pytest.raises(ExportRefused, match="cannot be read"):
        read_export(folder)
    (folder / RUN_FILE).write_text(json.dumps(said | {"schema_version": SCHEMA_VERSION + 1, "new": "fact"}))
    with pytest.raises(NewerStore, match=f"reads up to {SCHEMA_VERSION}; update Groupscope to import it"):
        read_export(folder)
    (folder / RUN_FILE).write_text('{"run_id": ')
    with pytest.raises(ExportRefused, match="run.json holds something that is no JSON"):
        read_export(folder)


def test_what_is_no_export_at_all_is_told_apart(store: Store, folder: Path, run_dir: Path, tmp_path: Path) -> None:
    (folder / RUN_FILE).unlink()
    csv = tmp_path / "csv"
    csv.mkdir()
    shutil.copy(folder / "steps.csv", csv)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.duckdb").write_text("hello")
    refused = {
        folder: "has no run.json, so nothing says which run it holds",
        folder / "steps.parquet": "is one table of a run; name the folder",
        folder / "steps.csv": "is CSV, in which numbers and lists are only text",
        csv: "is CSV, in which numbers and lists are only text",
        tmp_path / "empty": "has no run.json",
        tmp_path / "text.duckdb": "is no export of a run; name a .duckdb file",
        tmp_path / "nowhere": "there is no .*; name a .duckdb file",
        run_dir / "run.duckdb": "has no table run_info",
    }
    for path, sentence in refused.items():
        with pytest.raises(ExportRefused, match=sentence) as caught:
            read_export(path)
        assert "\n" not in str(caught.value)


def test_a_file_open_for_writing_is_named(database: Path) -> None:
    code = f"import duckdb; c = duckdb.connect({str(database)!r}); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(StoreError, match="is open for writing in another program; close it there"):
            read_export(database)
        holder.communicate("\n")


# into the store


@pytest.fixture
def checked(database: Path) -> Export:
    return read_export(database)


@pytest.mark.parametrize("taken", ["run", "empty folder", "file", "dangling link"])
def test_nothing_is_overwritten(checked: Export, tmp_path: Path, taken: str) -> None:
    place = tmp_path / "new" / "runs" / "r1"
    place.parent.mkdir(parents=True)
    if taken == "run":
        add_run(tmp_path / "new", "r1", checked, {"config.json": "mine"})
    elif taken == "empty folder":
        place.mkdir()
    elif taken == "file":
        place.write_text("mine")
    else:
        place.symlink_to(tmp_path / "nowhere")
    before = listing(tmp_path / "new")
    with pytest.raises(FileExistsError):
        add_run(tmp_path / "new", "r1", checked, {"config.json": "other"})
    assert listing(tmp_path / "new") == before and (taken != "run" or (place / "config.json").read_text() == "mine")


def test_an_export_that_changes_after_it_was_checked_is_not_imported(checked: Export, tmp_path: Path) -> None:
    changed(checked.path, "update steps set reward_mean = 1 where step = 3")
    with pytest.raises(ExportRefused, match="changed while it was imported; nothing was imported"):
        add_run(tmp_path / "new", "r1", checked, {"config.json": "{}"})
    assert listing(tmp_path / "new" / "runs") == []


def test_no_room_leaves_nothing(checked: Export, tmp_path: Path) -> None:
    """The limit is the kernel's own (EFBIG)."""
    code = f"""
import resource
from pathlib import Path
from storage.errors import DiskFull
from storage.importing import add_run, read_export
export = read_export(Path({str(checked.path)!r}))
for limit in (50, 2_000, 20_000, 50_000, 200_000, 400_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        add_run(Path({str(tmp_path / "new")!r}), "r1", export, {{"config.json": "{{}}"}})
    except DiskFull as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sentences = done.stdout.splitlines()
    assert len(sentences) == 6 and all(s.startswith("no room to import ") and "nothing was imported: free some space" in s for s in sentences), sentences
    assert listing(tmp_path / "new" / "runs") == []


def test_a_killed_import_leaves_a_draft_that_no_one_sees_and_the_next_one_clears(checked: Export, tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from storage.importing import add_run, read_export
die = lambda done, total: done == 6 and os._exit(9)
add_run(Path({str(tmp_path / "new")!r}), "r1", read_export(Path({str(checked.path)!r})), {{"config.json": "{{}}"}}, progress=die)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 9
    (left,) = (path for path in (tmp_path / "new" / "runs").iterdir() if path.suffix != ".lock")
    (left / "config.json").write_text("{}")
    assert Store(tmp_path / "new").run_ids() == []
    add_run(tmp_path / "new", "r1", checked, {"config.json": "{}"})
    assert Store(tmp_path / "new").run_ids() == ["r1"] and not left.exists()


def test_two_imports_at_once_do_not_meet(checked: Export, tmp_path: Path) -> None:
    (tmp_path / "new" / "runs").mkdir(parents=True)
    with FileLock(tmp_path / "new" / "runs" / LOCK), pytest.raises(StoreError, match="another import into .* is under way; wait until it has ended"):
        add_run(tmp_path / "new", "r1", checked, {"config.json": "{}"})
    add_run(tmp_path / "new", "r1", checked, {"config.json": "{}"})


def test_a_store_that_cannot_be_written_is_named(checked: Export, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write to .*/file/store: Not a directory; nothing was imported"):
        add_run(tmp_path / "file" / "store", "r1", checked, {"config.json": "{}"})


def test_differing_tables_are_named(store: Store, checked: Export, record) -> None:
    assert differing_tables(store, "r1", checked) == []
    record(6, 6)
    assert differing_tables(store, "r1", checked) == list(TABLES)


def test_an_imported_run_can_be_sealed_again_and_taken_apart(checked: Export, tmp_path: Path) -> None:
    add_run(tmp_path / "new", "r1", checked, {"config.json": "{}"})
    run_dir = tmp_path / "new" / "runs" / "r1"
    before = rows(run_dir)
    seal(run_dir)
    with RunWriter.open(run_dir) as writer:
        assert writer.last_step == 5
        writer.append_step(make_step_tables(6))
    assert rows(run_dir) != before and Store(tmp_path / "new").last_step("r1") == 6

from __future__ import annotations

import math
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from storage.catalog import Catalog
from storage.errors import StoreError
from tests.servers import Postgres, free_port


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """A new catalogue's, in a folder or on a server."""
    return tmp_path if request.param == "sqlite" else request.getfixturevalue("postgres").url()


@pytest.fixture
def catalog(place: Path | str) -> Catalog:
    return Catalog(place)


def row(catalog: Catalog, run_id: str) -> dict:
    return catalog.annotations().set_index("run_id").loc[run_id].to_dict()


def test_what_people_add_comes_back(catalog: Catalog) -> None:
    catalog.register("r1", "first")
    catalog.set_tags("r1", ["slow", " good ", "slow", ""])
    catalog.set_note("r1", "look at step 40 <b>")
    catalog.rename("r1", "renamed 'run'")
    found = row(catalog, "r1")
    assert found.pop("created_at") > 1.7e9
    assert found == {"name": "renamed 'run'", "tags": ["good", "slow"], "note": "look at step 40 <b>"}
    catalog.set_tags("r1", ["good"])
    assert row(catalog, "r1")["tags"] == ["good"]


def test_empty_catalogue_has_the_promised_columns(catalog: Catalog) -> None:
    assert list(catalog.annotations().columns) == ["run_id", "name", "tags", "note", "created_at"]
    assert list(catalog.launches("r1").columns) == ["at", "command"]


def test_annotating_an_unregistered_run_makes_its_row(catalog: Catalog) -> None:
    catalog.set_tags("old", ["kept"])
    found = row(catalog, "old")
    assert (found["name"], found["tags"], math.isnan(found["created_at"])) == ("", ["kept"], True)
    catalog.register("old", "now named")
    assert row(catalog, "old")["tags"] == ["kept"]


def test_launches_in_order(catalog: Catalog) -> None:
    catalog.record_launch("r1", "train --seed 1", 20.0)
    catalog.record_launch("r1", "train --seed 0", 10.0)
    catalog.record_launch("r2", "train", 15.0)
    assert catalog.launches("r1").values.tolist() == [[10.0, "train --seed 0"], [20.0, "train --seed 1"]]


def test_saved_queries_by_name(catalog: Catalog) -> None:
    assert catalog.queries() == {}
    catalog.save_query("worst", "select 1")
    catalog.save_query("a 'name' <b>", "select 2")
    catalog.save_query("worst", "select 3")
    assert list(catalog.queries().items()) == [("a 'name' <b>", "select 2"), ("worst", "select 3")]
    catalog.delete_query("worst")
    catalog.delete_query("worst")
    assert catalog.queries() == {"a 'name' <b>": "select 2"}


def test_a_second_catalogue_sees_the_first(catalog: Catalog, place: Path | str) -> None:
    catalog.register("r1", "first")
    assert Catalog(place).annotations().name.tolist() == ["first"]


def test_a_folder_by_other_names(tmp_path: Path) -> None:
    Catalog(tmp_path).register("r1", "first")
    assert Catalog(str(tmp_path)).annotations().name.tolist() == ["first"]
    assert Catalog(f"sqlite:///{tmp_path}/catalog.sqlite").annotations().name.tolist() == ["first"]


def test_of_sixteen_threads_one_claims(catalog: Catalog) -> None:
    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(lambda _: catalog.claim("form-1"), range(64))) == 1
    assert catalog.claim("form-2")


def create_and_claim(places: list[Path | str], me: int, together: Barrier, wins: Queue) -> None:
    for place in places:
        together.wait(timeout=120)
        catalog = Catalog(place)
        wins.put(catalog.claim("form"))
        catalog.set_tags("shared", [str(me), "all"])
        catalog.save_query("worst", str(me))
        catalog.register(f"run-{me}", "mine")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_processes_that_create_a_catalogue_at_once_all_work(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    context = multiprocessing.get_context("spawn")
    places = [tmp_path / f"store-{i}" if kind == "sqlite" else request.getfixturevalue("postgres").url() for i in range(5)]
    together, wins = context.Barrier(4), context.Queue()
    processes = [context.Process(target=create_and_claim, args=(places, me, together, wins)) for me in range(4)]
    for process in processes:
        process.start()
    outcomes = [wins.get(timeout=120) for _ in range(4 * len(places))]
    for process in processes:
        process.join(timeout=120)
    assert [p.exitcode for p in processes] == [0] * 4
    assert sum(outcomes) == len(places)
    for place in places:
        found = Catalog(place).annotations().set_index("run_id")
        assert sorted(found.index) == ["run-0", "run-1", "run-2", "run-3", "shared"]
        assert len(found.tags["shared"]) == 2
        assert list(Catalog(place).queries()) == ["worst"]


def test_threads_writing_one_run_do_not_lock_each_other_out(catalog: Catalog) -> None:
    def annotate(i: int) -> None:
        catalog.set_note("r1", str(i))
        catalog.set_tags("r1", [str(i)])
        catalog.annotations()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(annotate, range(40)))
    assert len(row(catalog, "r1")["tags"]) == 1


@pytest.mark.parametrize("damage", [b"not a database at all" * 500, b"SQLite format 3\x00" + b"\xff" * 8000])
def test_a_damaged_file_says_what_to_do_and_is_remade(tmp_path: Path, damage: bytes) -> None:
    catalog = Catalog(tmp_path)
    catalog.register("r1", "first")
    for file in tmp_path.glob("catalog.sqlite-*"):
        file.unlink()
    (tmp_path / "catalog.sqlite").write_bytes(damage)
    for use in (catalog.annotations, lambda: catalog.claim("n"), lambda: catalog.rename("r1", "x"), lambda: Catalog(tmp_path)):
        with pytest.raises(StoreError, match=r"damaged \(.*\); runs are untouched: delete .*catalog.sqlite\*"):
            use()
    for file in tmp_path.glob("catalog.sqlite*"):
        file.unlink()
    assert catalog.annotations().empty
    assert catalog.claim("n")


def test_damage_found_only_when_writing(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path)
    for i in range(60):
        catalog.record_launch("r1", "x" * 2000, float(i))
    file = tmp_path / "catalog.sqlite"
    content = bytearray(file.read_bytes())
    content[len(content) // 3 : 2 * len(content) // 3] = b"\xaa" * (2 * len(content) // 3 - len(content) // 3)
    file.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        catalog.launches("r1")


def test_a_place_that_cannot_hold_a_catalogue(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="runs are untouched"):
        Catalog(tmp_path / "file")
    with pytest.raises(StoreError, match="give a store folder or a URL"):
        Catalog("nonsense://")


def test_alerts_of_a_run_and_of_all_newest_first(catalog: Catalog) -> None:
    assert catalog.alerts().empty and list(catalog.alerts().columns) == ["run_id", "step", "level", "cause", "sentence", "link", "at"]
    said = {"cause": "displacement", "sentence": "Unhealthy.", "link": "/diagnosis?run=r1&step=7"}
    catalog.record_alert("r1", step=7, level="unhealthy", at=10.0, **said)
    catalog.record_alert("r2", step=3, level="collapsed", at=11.0, **said)
    catalog.record_alert("r1", step=9, level="healthy", at=12.0, **{**said, "cause": ""})
    assert catalog.alerts()["run_id"].tolist() == ["r1", "r2", "r1"]
    assert catalog.alerts("r1").to_dict("records")[1] == {"run_id": "r1", "step": 7, "level": "unhealthy", "at": 10.0, **said}


def test_processes_write_one_server_at_once(postgres: Postgres) -> None:
    url, context = postgres.url(), multiprocessing.get_context("spawn")
    together, wins = context.Barrier(4), context.Queue()
    processes = [context.Process(target=create_and_claim, args=([url] * 20, me, together, wins)) for me in range(4)]
    for process in processes:
        process.start()
    outcomes = [wins.get(timeout=120) for _ in range(4 * 20)]
    for process in processes:
        process.join(timeout=120)
    assert [p.exitcode for p in processes] == [0] * 4
    assert sum(outcomes) == 1


def test_a_server_that_was_away_is_used_again(postgres: Postgres) -> None:
    catalog = Catalog(postgres.url())
    catalog.register("r1", "first")
    postgres.stop()
    try:
        for use in (catalog.annotations, lambda: catalog.rename("r1", "lost")):
            with pytest.raises(StoreError) as refused:
                use()
            assert_one_sentence_without_the_password(refused, "cannot be used")
    finally:
        postgres.start()
    catalog.set_note("r1", "back")
    assert (row(catalog, "r1")["name"], row(catalog, "r1")["note"]) == ("first", "back")
    postgres.stop()
    postgres.start()
    assert row(catalog, "r1")["note"] == "back"


def assert_one_sentence_without_the_password(refused: pytest.ExceptionInfo, *parts: str) -> None:
    said = str(refused.value)
    assert "\n" not in said and all(part in said for part in (*parts, "postgresql://gs:***@")), said
    assert "s3cret" not in said and "wrong" not in said


def test_wrong_password_host_and_database_are_one_sentence_each(postgres: Postgres) -> None:
    with pytest.raises(StoreError) as refused:
        Catalog(postgres.url(password="wrong"))
    assert_one_sentence_without_the_password(refused, "password authentication failed", "runs are untouched: check that its server is up")
    with pytest.raises(StoreError) as refused:
        Catalog(postgres.url(port=free_port()))
    assert_one_sentence_without_the_password(refused, "refused", "/base_")
    with pytest.raises(StoreError) as refused:
        Catalog(postgres.url() + "_no")
    assert_one_sentence_without_the_password(refused, "does not exist")
    with pytest.raises(StoreError) as refused:
        Catalog("postgresql://gs@no.such.host.invalid/base?password=s3cret")
    assert "s3cret" not in str(refused.value) and "password=***" in str(refused.value) and "no.such.host" in str(refused.value)


@pytest.mark.parametrize(
    ("url", "because"),
    [
        ("postgresql://gs:s3cret@host:port/base", "its port is no number"),
        ("postgresql+s3cret://gs:s3cret@host/base", "Can't load plugin"),
        ("postgresql+asyncpg://gs:s3cret@host/base", "asyncpg is not installed; for PostgreSQL: pip install 'psycopg[binary]'"),
    ],
)
def test_what_is_no_url_of_a_database_is_shown_without_its_password(url: str, because: str) -> None:
    with pytest.raises(StoreError) as refused:
        Catalog(url)
    assert because in str(refused.value) and "gs:s3cret" not in str(refused.value)

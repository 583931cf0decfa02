"""`bench kills`: twenty of its kills, and the ledger's word on every kind of loss, so that "nothing lost" cannot be said of a store that lost something."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from storage.encode import publish_tables
from storage.layout import list_segments
from storage.schema import TABLES
from storage.segments import RunWriter
from tests.benchmarks import kills
from tests.benchmarks.kill_parts import ledger
from tests.benchmarks.kill_parts.ledger import Book, Difference, difference
from tests.factories import make_step_tables

KILLS = 20


@pytest.mark.xdist_group("processes")
@pytest.mark.timeout(900)
def test_twenty_kills_lose_nothing(store_root: Path, capsys) -> None:
    found = kills.main(kills=KILLS, seed=3, victims="writer,packer,recorder,command export,command import,command seal,command sql,app")
    assert len(found.kills) >= KILLS and found.committed > 20 and not found.found and not found.broken
    assert {kill.victim for kill in found.kills} >= {"writer", "packer", "recorder", "app"}
    said = capsys.readouterr().out
    assert f"{len(found.kills)} kills, {found.committed} steps committed; rows lost 0, changed 0, doubled 0" in said
    assert sorted(path.name for path in store_root.iterdir()) == ["cache"]


def test_an_unknown_victim_and_an_odd_number_are_named(store_root: Path) -> None:
    with pytest.raises(ValueError, match="victims: unknown victim 'tea'; known: writer, packer"):
        kills.main(victims="tea")
    with pytest.raises(ValueError, match="kills: input should be a whole number of at least 1, got 0"):
        kills.main(kills=0)


# the ledger ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def book(tmp_path: Path, monkeypatch) -> Book:
    """A run of five steps, with its ledger."""
    for name in ("append", "supersede"):  # put back afterwards what the ledger wraps
        monkeypatch.setattr(RunWriter, name, getattr(RunWriter, name))
    run_dir = tmp_path / "runs" / "r1"
    run_dir.mkdir(parents=True)
    (run_dir / "config.json").write_text("{}")
    RunWriter.open(run_dir).close()
    book = Book(tmp_path, "r1", tmp_path / "ledger")
    ledger.keep(book.ledger)
    with RunWriter.open(run_dir) as writer:
        for step in range(5):
            writer.append_step(make_step_tables(step))
    assert not book.settle() and book.committed == 5
    return book


def rewritten(book: Book, table: str, change) -> None:
    """Step 2 of a table after a change, with a checksum that fits: nothing but the ledger can notice."""
    path = list_segments(book.run_dir / table)[2].path
    before = pq.read_table(path, schema=TABLES[table].arrow)
    path.unlink()
    publish_tables(path.parent, lambda crc: f"s00000002-{crc}.parquet", [change(before)], TABLES[table], "exact")


def other_advantage(rollouts: pa.Table) -> pa.Table:
    return rollouts.set_column(rollouts.schema.get_field_index("advantage"), "advantage", pc.add(rollouts["advantage"], pa.scalar(1e-6, pa.float32())))


def one_token(rollouts: pa.Table) -> pa.Table:
    ids = rollouts["token_ids"].to_pylist()
    ids[3][0] += 1
    return rollouts.set_column(rollouts.schema.get_field_index("token_ids"), "token_ids", pa.array(ids, rollouts.schema.field("token_ids").type))


@pytest.mark.parametrize(
    ("table", "change", "found"),
    [
        ("rollouts", lambda rows: rows.slice(1), Difference(lost=2)),  # a reader each
        ("rollouts", lambda rows: pa.concat_tables([rows, rows.slice(0, 3)]), Difference(doubled=6)),
        ("rollouts", other_advantage, Difference(changed=16)),
        ("rollouts", one_token, Difference(changed=2)),
        ("groups", lambda rows: rows.slice(0, 0), Difference(lost=4)),
        ("steps", lambda rows: pa.concat_tables([rows, rows]), Difference(doubled=2)),
    ],
)
def test_the_ledger_sees_what_was_lost_changed_and_doubled(book: Book, table: str, change, found: Difference) -> None:
    rewritten(book, table, change)
    assert book.settle() == found


def test_the_ledger_misses_a_step_that_is_gone_whole(book: Book) -> None:
    for table in TABLES:
        list_segments(book.run_dir / table)[4].path.unlink()
    assert book.settle() == Difference(lost=2 * (1 + 2 + 8))


def test_the_ledger_sees_a_step_that_nobody_committed(book: Book) -> None:
    before = ledger.seen_by_store(book.root, "r1")
    assert difference({step: rows for step, rows in before.items() if step < 4}, before) == Difference(changed=11)


def test_steps_set_aside_must_be_in_the_folder_for_that(book: Book) -> None:
    with RunWriter.open(book.run_dir) as writer:
        assert writer.supersede(2) == 2
        writer.append_step(make_step_tables(3, seed=1))
    assert not book.settle() and book.committed == 6
    list_segments(book.run_dir / "superseded" / "0" / "rollouts")[0].path.unlink()
    assert book.settle() == Difference(lost=8)


@pytest.mark.parametrize("died", ["before a file", "after rollouts", "after all of it"])
def test_a_step_in_flight_may_be_there_or_not_but_whole(book: Book, monkeypatch, died: str) -> None:
    from storage import segments

    class Killed(BaseException):
        pass

    published, publish = [], segments.publish

    def dying(*arguments) -> Path:
        if died == "before a file" or (died == "after rollouts" and published):
            raise Killed
        published.append(publish(*arguments))
        if died == "after all of it" and len(published) == 3:
            monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process takes nothing back
            raise Killed
        return published[-1]

    with RunWriter.open(book.run_dir) as writer, monkeypatch.context() as patch:
        patch.setattr(segments, "publish", dying)
        with pytest.raises(Killed):
            writer.append_step(make_step_tables(5))
    monkeypatch.undo()
    assert not book.settle()
    assert book.committed == (6 if died == "after all of it" else 5)

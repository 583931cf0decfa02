"""A run's records elsewhere: what a mirror uploads and takes away, and what a store that lies there answers."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pandas as pd
import pytest

from storage.errors import RunLocked, RunNotFound, SegmentDamaged, StoreError
from storage.layout import list_segments, read_layout
from storage.mirror import Manifest, Mirror, Pushed
from storage.places import Place, Unreachable, open_place
from storage.queries.runs import run_size
from storage.reader import Store
from storage.remote import remote_of
from storage.segments import RunWriter, seal
from tests.factories import make_step_tables
from tests.servers import S3

pytestmark = pytest.mark.timeout(300)

EVERYTHING = {
    "steps": "select * from steps order by step",
    "groups": "select * from groups order by step, group_index",
    "rollouts": "select * from rollouts order by step, group_index, rollout_index",
    "tokens": "select * from tokens order by all",
    "positions": "select * from positions order by all",
    "updates": "select * from updates order by all",
    "vocabulary": "select * from vocabulary order by token_id",
}
_made = iter(range(1_000_000))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUPSCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("storage.remote.FRESH_S", 0.0)
    monkeypatch.setattr("storage.remote.REST_S", 0.0)


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for runs, on a disk and in a bucket."""
    if request.param == "file":
        return f"file://{tmp_path / 'shared disk'}"
    return f"{request.getfixturevalue('s3').make_bucket(f'bucket-{os.getpid()}-{next(_made)}')}/team/runs"


@pytest.fixture
def mirror(run_dir: Path, url: str) -> Mirror:
    return Mirror(run_dir, open_place(url))


def push(mirror: Mirror) -> Pushed:
    return mirror.push(time.monotonic(), final=True)


def assert_same_answers(run_dir: Path, url: str) -> None:
    here, there = Store(run_dir.parent.parent), Store(url)
    assert there.run_ids() == [run_dir.name]
    for sql in EVERYTHING.values():
        pd.testing.assert_frame_equal(here.frame(run_dir.name, sql), there.frame(run_dir.name, sql))


def paths_there(url: str) -> list[str]:
    return sorted(open_place(url).sizes("runs/r1"))


def counted(run_dir: Path) -> list[str]:
    return sorted(str(s.path.relative_to(run_dir)) for segments in read_layout(run_dir).segments.values() for s in segments)


def test_a_store_elsewhere_answers_as_the_one_here(run_dir: Path, url: str, mirror: Mirror, writer: RunWriter, record) -> None:
    record(0, 5)
    writer.write_vocabulary([f"piece {i}" for i in range(50)])
    done = push(mirror)
    assert done.files == 3 * 6 + 1 and not done.damaged and done.bytes > 0
    assert_same_answers(run_dir, url)
    assert push(mirror) == Pushed()
    record(6, 6)
    assert push(mirror).files == 3
    assert_same_answers(run_dir, url)
    assert Store(url).last_step("r1") == 6 and not Store(url).damaged("r1")


def test_progress_counts_the_bytes_of_all_segments_up_to_the_last(run_dir: Path, tmp_path: Path, record) -> None:
    record(0, 3)
    told: list[tuple[int, int]] = []
    mirror = Mirror(run_dir, open_place(f"file://{tmp_path / 'there'}"), progress=lambda *one: told.append(one))
    push(mirror)
    size = sum(s.path.stat().st_size for segments in read_layout(run_dir).segments.values() for s in segments)
    assert len(told) == 3 * 4 and {total for _, total in told} == {size} and max(told)[0] == size
    push(mirror)
    assert len(told) == 3 * 4


def test_merging_sealing_resuming_and_superseding_are_followed(run_dir: Path, url: str, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.compaction.SINCE_DELAY_S", 0.0)
    monkeypatch.setattr("storage.compaction.GRACE_S", 0.0)
    with RunWriter.open(run_dir) as writer:
        for step in range(70):
            writer.append_step(make_step_tables(step))
        push(mirror)
        assert writer.compact() == 64
        time.sleep(0.01)
        writer.compact()  # what was merged is removed here
        assert push(mirror).removed == 3 * 64
        assert_same_answers(run_dir, url)
        assert writer.supersede(60) == 9
        push(mirror)
        assert Store(url).last_step("r1") == 60
        assert_same_answers(run_dir, url)
        for step in range(61, 72):
            writer.append_step(make_step_tables(step, seed=1))
        push(mirror)
        assert_same_answers(run_dir, url)
        set_aside = [str(path.relative_to(run_dir)) for path in run_dir.glob("superseded/0/*/*.parquet")]
        assert set(counted(run_dir)) | set(set_aside) <= set(paths_there(url))
        assert not [path for path in paths_there(url) if path.endswith(".parquet") and path not in {*counted(run_dir), *set_aside, "vocabulary.parquet"}]
    seal(run_dir)
    push(mirror)
    assert_same_answers(run_dir, url)
    with RunWriter.open(run_dir) as writer:
        push(mirror)
        assert_same_answers(run_dir, url)
        writer.append_step(make_step_tables(72))
        push(mirror)
        assert_same_answers(run_dir, url)


def test_a_seal_in_the_middle_of_a_pass_is_seen_in_the_next(run_dir: Path, url: str, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunWriter.open(run_dir) as writer:
        for step in range(3):
            writer.append_step(make_step_tables(step))
    look, upload_changing = Store(run_dir.parent.parent), Mirror._upload_changing

    def and_seal(self: Mirror, name: str) -> tuple[int, str] | None:
        found = upload_changing(self, name)
        if not read_layout(run_dir).sealed:
            seal(run_dir)
        return found

    monkeypatch.setattr(Mirror, "_upload_changing", and_seal)
    push(mirror)
    assert look.last_step("r1") == Store(url).last_step("r1") == 2
    assert not read_layout(Store(url).run_dir("r1")).sealed
    push(mirror)
    assert read_layout(Store(url).run_dir("r1")).sealed
    assert_same_answers(run_dir, url)


def test_a_run_that_an_earlier_version_sealed(tmp_path: Path, url: str) -> None:
    shutil.unpack_archive(Path(__file__).parent / "fixtures" / "v2.zip", tmp_path / "old")
    run_dir = tmp_path / "old" / "runs" / "sealed"
    assert read_layout(run_dir).in_database
    push(Mirror(run_dir, open_place(url)))
    assert_same_answers(run_dir, url)


def test_an_index_that_was_half_applied_leaves_nothing_behind(run_dir: Path, url: str, mirror: Mirror) -> None:
    """What a killed reader had put there of an index would count twice once those steps were trained again."""
    with RunWriter.open(run_dir) as writer:
        for step in range(4):
            writer.append_step(make_step_tables(step))
        push(mirror)
        there = Store(url)
        assert there.last_step("r1") == 3
        for table in ("rollouts", "groups", "steps"):
            stray = there.run_dir("r1") / table / "s00000004-0123abcd.parquet"
            stray.write_bytes(b"of an index between")
        for step in range(4, 6):
            writer.append_step(make_step_tables(step, seed=1))
        push(mirror)
        assert_same_answers(run_dir, url)


def test_a_webhook_s_address_stays_here(run_dir: Path, url: str, mirror: Mirror, record) -> None:
    (run_dir / "config.json").write_text('{"method": "grpo", "webhook": "https://chat.example/secret"}')
    record(0, 0)
    push(mirror)
    place = open_place(url)
    assert json.loads(place.read("runs/r1/config.json")) == {"method": "grpo"}
    assert b"secret" not in place.read("index/r1.json")


def test_a_copy_of_the_place_is_a_store(run_dir: Path, url: str, mirror: Mirror, record, tmp_path: Path) -> None:
    record(0, 3)
    push(mirror)
    place = open_place(url)
    place.fs.get(f"{place.root}/", str(tmp_path / "copy"), recursive=True)
    there = Store(tmp_path / "copy")
    assert there.run_ids() == ["r1"] and there.last_step("r1") == 3 and not there.damaged("r1")


def test_only_what_a_query_needs_is_fetched(run_dir: Path, url: str, mirror: Mirror, record) -> None:
    record(0, 9)
    push(mirror)
    there = Store(url)
    there.frame("r1", "select step from steps")
    assert whole(there) == {"steps": 10}
    there.frame("r1", "select length from rollouts", steps=(3, 4))
    assert whole(there) == {"steps": 10, "rollouts": 2}
    assert run_size(there, "r1") == sum(path.stat().st_size for path in run_dir.rglob("s0*.parquet")) + (run_dir / "vocabulary.parquet").stat().st_size


def whole(store: Store) -> dict[str, int]:
    """How many segments of each table are in the cache."""
    found: dict[str, int] = {}
    for path in (store.root / "runs").rglob("s0*.parquet"):
        if path.stat().st_mtime_ns:
            found[path.parent.name] = found.get(path.parent.name, 0) + 1
    return found


def test_the_cache_is_bounded_and_what_was_evicted_comes_again(run_dir: Path, url: str, mirror: Mirror, record, monkeypatch) -> None:
    record(0, 9)
    push(mirror)
    there = Store(url)
    remote = remote_of(there.root)
    size = max(path.stat().st_size for path in run_dir.glob("rollouts/s0*.parquet"))
    monkeypatch.setattr(remote, "_limit_bytes", 3.5 * size)
    monkeypatch.setattr("storage.remote.IN_USE_S", 0.0)
    for step in range(10):
        assert len(there.frame("r1", "select * from rollouts", steps=(step, step))) == 8
        assert whole(there)["rollouts"] <= 3
    monkeypatch.setattr("storage.remote.IN_USE_S", 600.0)
    there.frame("r1", "select * from rollouts")
    assert whole(there) == {"rollouts": 10}, "what a query has just asked for stays, whatever the limit"


def test_a_flipped_bit_and_a_cut_file_there_are_named_and_the_rest_is_used(run_dir: Path, url: str, mirror: Mirror, record) -> None:
    record(0, 4)
    push(mirror)
    place = open_place(url)
    flipped, cut = (f"runs/r1/{path}" for path in counted(run_dir) if path.startswith(("rollouts/s00000001", "rollouts/s00000003")))
    content = bytearray(place.read(flipped))
    content[len(content) // 2] ^= 1
    place.write(flipped, bytes(content))
    place.write(cut, place.read(cut)[:100])
    there = Store(url)
    assert there.frame("r1", "select distinct step from rollouts order by step", skip_damaged=True)["step"].tolist() == [0, 2, 4]
    assert len(there.frame("r1", "select * from rollouts", steps=(2, 2))) == 8
    with pytest.raises(SegmentDamaged) as refused:
        there.frame("r1", "select * from rollouts", steps=(3, 3))
    assert f"{url}/{cut} cannot be read (its bytes do not match its checksum)" in str(refused.value) and "mirror r1" in str(refused.value)
    assert [(d.table, d.first_step) for d in there.damaged("r1")] == [("rollouts", 1), ("rollouts", 3)]
    assert push(Mirror(run_dir, place)).files == 1, "the cut one has another size"
    Mirror(run_dir, place, again=True).push(0.0)
    remote_of(there.root)._bad.clear()  # a minute passes
    assert_same_answers(run_dir, url)


def test_a_file_that_is_gone_there_is_named(run_dir: Path, url: str, mirror: Mirror, record) -> None:
    record(0, 2)
    push(mirror)
    lost = next(path for path in counted(run_dir) if path.startswith("rollouts/s00000001"))
    open_place(url).remove(f"runs/r1/{lost}")
    with pytest.raises(SegmentDamaged, match="it is missing"):
        Store(url).frame("r1", "select * from rollouts")
    assert len(Store(url).frame("r1", "select * from rollouts", skip_damaged=True)) == 16
    assert push(Mirror(run_dir, open_place(url))).files == 1


def test_a_damaged_file_here_is_not_copied_and_what_is_lost_here_stays_there(run_dir: Path, url: str, mirror: Mirror, record) -> None:
    record(0, 2)
    push(mirror)
    record(3, 4)
    steps = list_segments(run_dir / "rollouts")
    steps[4].path.write_bytes(steps[4].path.read_bytes()[:-20])
    done = push(mirror)
    assert done.files == 5 and len(done.damaged) == 1 and str(steps[4].path) in done.damaged[0]
    for table in ("steps", "groups", "rollouts"):
        list_segments(run_dir / table)[0].path.unlink()
    push(mirror)
    assert [path for path in paths_there(url) if "s00000000" in path], "nobody but merging takes files away there"


def test_a_damaged_index_is_said_and_the_last_good_one_used(run_dir: Path, url: str, mirror: Mirror, record) -> None:
    record(0, 2)
    push(mirror)
    there, place = Store(url), open_place(url)
    assert there.last_step("r1") == 2 and not there.trouble
    index = place.read("index/r1.json")
    place.write("index/r1.json", index[:-10])
    assert there.last_step("r1") == 2
    assert "index/r1.json cannot be read" in there.trouble and "what was read there before is shown" in there.trouble
    record(3, 3)
    push(mirror)
    assert there.last_step("r1") == 3 and not there.trouble


@pytest.mark.parametrize("name", ["../../../evil.json", "steps/../../x", "/etc/passwd", "checkpoints/x.pt", "steps/s00000000-0000000.parquet"])
def test_an_index_writes_nowhere_but_in_its_cache(tmp_path: Path, name: str) -> None:
    place = open_place(f"file://{tmp_path}/there")
    for manifest in (Manifest({"config.json": "{}"}, {name: (5, "00000000")}), Manifest({name: "{}"}, {})):
        place.write("index/r1.json", manifest.encode())
        there = Store(place.url)
        assert there.run_ids() == [] and "no run has a" in there.trouble


def test_nothing_is_written_through_a_store_elsewhere(run_dir: Path, url: str, mirror: Mirror, record) -> None:
    record(0, 1)
    push(mirror)
    there = Store(url)
    for write in (RunWriter.open, seal):
        with pytest.raises(StoreError, match=f"runs in {url} are only read from here") as refused:
            write(there.run_dir("r1"))
        assert not isinstance(refused.value, RunLocked)
    with pytest.raises(RunNotFound, match=f"no run 'r2' in {url}"):
        there.frame("r2", "select 1")


@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_a_server_that_is_away_is_said_and_used_again(s3: S3, run_dir: Path, record, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    url = f"{s3.make_bucket(f'away-{how}-{os.getpid()}')}/runs"
    mirror = Mirror(run_dir, open_place(url))
    record(0, 1)
    push(mirror)
    there = Store(url)
    assert len(there.frame("r1", "select * from steps")) == 2 and not there.trouble
    record(2, 2)
    s3.away(how)
    monkeypatch.setattr("storage.places.ANSWER_S", 3.0)
    try:
        with pytest.raises(Unreachable, match=f"cannot .* {url}.*nothing is lost"):
            push(mirror)
        assert there.run_ids() == ["r1"] and len(there.frame("r1", "select * from steps")) == 2
        assert url in there.trouble and "shown" in there.trouble
        with pytest.raises(Unreachable):
            there.frame("r1", "select * from groups")
    finally:
        s3.back()
    monkeypatch.setattr("storage.places.ANSWER_S", 60.0)
    assert push(mirror).files == 3
    monkeypatch.setattr("storage.remote.WAIT_S", 30.0)
    there.run_ids()
    assert len(there.frame("r1", "select * from groups")) == 6 and not there.trouble


def test_a_bucket_that_is_not_there_is_one_sentence(s3: S3, run_dir: Path, record) -> None:
    record(0, 0)
    with pytest.raises(Unreachable, match="cannot write s3://no-such-bucket-anywhere/runs/.*bucket does not exist.*check network, address and credentials"):
        push(Mirror(run_dir, open_place("s3://no-such-bucket-anywhere")))
    assert Store("s3://no-such-bucket-anywhere").run_ids() == []


def test_a_place_that_cannot_be_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match="nosuch://.* give a URL that fsspec knows, like s3://bucket/runs"):
        Store("nosuch://bucket/runs")
    with pytest.raises(StoreError, match="gcsfs is not installed|pip install gcsfs|the package"):
        Store("gs://bucket/runs")
    monkeypatch.setenv("GROUPSCOPE_CACHE_GB", "little")
    with pytest.raises(StoreError, match="GROUPSCOPE_CACHE_GB=little is no size"):
        Store("memory://anything/at/all")


def upload(run_dir: Path, url: str, gap_s: float) -> None:
    place = open_place(url)
    send = Place.upload
    Place.upload = lambda self, source, path: (time.sleep(gap_s), send(self, source, path))[1]
    Mirror(run_dir, place).push(time.monotonic(), final=True)


def test_killing_the_uploader_anywhere_loses_nothing(run_dir: Path, url: str, record) -> None:
    """After each of 12 kills a reader sees a whole run, and the last pass brings everything."""
    chance, context = random.Random(3), multiprocessing.get_context("forkserver")
    seen, midway = -1, 0
    for kill in range(12):
        record(3 * kill, 3 * kill + 2)
        child = context.Process(target=upload, args=(run_dir, url, 0.2))
        child.start()
        time.sleep(chance.uniform(0.2, 1.5))
        child.kill()
        child.join()
        midway += child.exitcode == -signal.SIGKILL
        there = Store(url)
        if there.run_ids():
            last = there.last_step("r1")
            assert last is not None and last >= seen
            assert there.frame("r1", "select step, count(*) as n from rollouts group by step order by step")["n"].tolist() == [8] * (last + 1)
            seen = last
    upload(run_dir, url, 0.0)
    assert midway >= 3
    assert_same_answers(run_dir, url)

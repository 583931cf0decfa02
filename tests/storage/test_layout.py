import pytest

from storage.errors import NewerStore, SegmentDamaged
from storage.layout import check_segment, list_segments, merged_name, read_info, read_layout, step_name, visible
from storage.schema import SCHEMA_VERSION, TABLES
from storage.segments import RunWriter, seal
from tests.factories import make_step_tables

CRC = "00000000"


def names(tmp_path, *files):
    for file in files:
        (tmp_path / file).write_bytes(b"")
    return [(s.first, s.last, s.merged) for s in visible(list_segments(tmp_path))]


def test_names_are_read_back(tmp_path):
    (tmp_path / step_name(7)("deadbeef")).write_bytes(b"")
    (tmp_path / merged_name(8, 123456789, 1795346218645)("0badf00d")).write_bytes(b"")
    one, many = list_segments(tmp_path)
    assert (one.first, one.last, one.merged, one.since_ms, one.crc) == (7, 7, False, 0, "deadbeef")
    assert (many.first, many.last, many.merged, many.since_ms, many.crc) == (8, 123456789, True, 1795346218645, "0badf00d")


def test_other_files_are_no_segments(tmp_path):
    assert names(tmp_path, "empty.parquet", ".tmp-1-segment", "s00000001.parquet", "notes.txt", f"s00000001-{CRC}.parquet.bak") == []
    assert list_segments(tmp_path / "nowhere") == []


def test_a_merged_segment_hides_what_it_covers(tmp_path):
    # 0..3 merged, then 0..7 merged over it; 8 alone; 5 and 2 not yet removed; 9..10 merged with its 9 left
    files = [merged_name(0, 3), merged_name(0, 7), step_name(2), step_name(5), step_name(8), merged_name(9, 10), step_name(9)]
    assert names(tmp_path, *(name(CRC) for name in files)) == [(0, 7, True), (8, 8, False), (9, 10, True)]


def test_a_merged_segment_of_one_step_hides_the_step(tmp_path):
    assert names(tmp_path, step_name(4)(CRC), merged_name(4, 4)(CRC)) == [(4, 4, True)]


def test_a_gap_is_a_step_that_another_table_lacks(tmp_path):
    for table, files in {"steps": [step_name(1), step_name(2)], "groups": [merged_name(0, 3)], "rollouts": [step_name(2)]}.items():
        (tmp_path / table).mkdir()
        names(tmp_path / table, *(name(CRC) for name in files))
    layout = read_layout(tmp_path)
    assert layout.gaps("steps") == layout.gaps("groups") == []
    assert [gap.first for gap in layout.gaps("rollouts")] == [1]
    assert layout.last_step == 2


def test_a_segment_that_changed_is_damaged(run_dir):
    with RunWriter.open(run_dir) as writer:
        writer.append_step(make_step_tables(0))
    (segment,) = list_segments(run_dir / "rollouts")
    check_segment(segment)
    data = bytearray(segment.path.read_bytes())
    data[len(data) // 2] ^= 1
    segment.path.write_bytes(data)
    with pytest.raises(SegmentDamaged, match="s00000000-.*checksum"):
        check_segment(segment)


@pytest.mark.parametrize("marker", [None, "", "{", "[1]", '{"precision": 3}', "null"])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_lost_or_torn_marker_is_made_up_for_by_the_data(run_dir, marker, sealed):
    with RunWriter.open(run_dir, precision="half") as writer:
        writer.append_step(make_step_tables(0))
    if sealed:
        seal(run_dir)
    (run_dir / "store.json").unlink() if marker is None else (run_dir / "store.json").write_text(marker)
    info = read_info(run_dir)
    assert (info.schema_version, info.precision, info.sealed) == (SCHEMA_VERSION, "half", sealed)
    with RunWriter.open(run_dir) as writer:  # must not take the sealed tables for views and write over them
        assert writer.last_step == 0


def test_nothing_recorded_has_no_marker(tmp_path):
    assert read_info(tmp_path) is None
    assert read_layout(tmp_path).segments == {name: () for name in TABLES}


def test_a_newer_marker_may_have_fields_we_do_not_know(tmp_path):
    (tmp_path / "store.json").write_text('{"schema_version": 99, "precision": {"rounded": 8}, "shards": 4}')
    with pytest.raises(NewerStore, match="version 99.*update Groupscope"):
        read_info(tmp_path)

"""A disk that fills up in the middle of a merge or of the catalogue; tests of steps, sealing, exports and imports have their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from storage.catalog import Catalog
from storage.layout import list_segments
from storage.reader import Store
from storage.segments import RunWriter, seal
from tests.factories import make_step_tables

ROOT = Path(__file__).parents[2]
LIMITED = """
import resource, sys
from pathlib import Path
from storage import compaction
from storage.errors import DiskFull
from storage.segments import RunWriter
compaction.BLOCK = 8
writer = RunWriter.open(Path(sys.argv[1]))
for limit in map(int, sys.argv[2:]):  # the kernel's own limit (EFBIG), as a full disk fails
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        writer.compact()
        print("merged")
    except DiskFull as error:
        print(error)
"""


def test_no_room_for_a_merge_leaves_every_step_and_it_is_made_later(run_dir, store, plain, monkeypatch):
    with RunWriter.open(run_dir) as writer:
        for step in range(8):
            writer.append_step(make_step_tables(step, groups=4, group_size=8, tokens=200))
    files = sorted(run_dir.rglob("*.parquet"))
    size = sum(segment.path.stat().st_size for segment in list_segments(run_dir / "rollouts"))
    done = subprocess.run([sys.executable, "-c", LIMITED, str(run_dir), "4000", str(size // 3), str(size // 2)], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.count("no room to write in") == 3 and done.stdout.count("everything recorded before is safe") == 3, done
    assert sorted(run_dir.rglob("*.parquet")) == files and not list(run_dir.rglob(".tmp-*"))
    counts = "select step, count(*) from rollouts group by step order by step"
    for _ in range(2):
        want = [[step, 32] for step in range(8)]
        assert store.damaged("r1") == [] and store.frame("r1", counts).values.tolist() == [list(row) for row in plain(counts)] == want
        monkeypatch.setattr("storage.compaction.BLOCK", 8)
        with RunWriter.open(run_dir) as writer:
            writer.compact()
        assert [(s.first, s.last) for s in list_segments(run_dir / "steps") if s.merged] == [(0, 7)]
    seal(run_dir)
    assert plain(counts) == [(step, 32) for step in range(8)]


@pytest.mark.parametrize("small_disk", ["512k"], indirect=True)
def test_a_catalogue_on_a_full_disk_keeps_what_it_took_and_says_so(small_disk):
    catalog = Catalog(small_disk)
    kept = 0
    with pytest.raises(ValueError, match="the catalogue .* cannot be used .*full.* has room") as told:
        for kept in range(10_000):
            catalog.set_note(f"run-{kept}", "n" * 4000)
    assert "\n" not in str(told.value) and kept > 3
    for opened in (catalog, Catalog(small_disk)):
        notes = opened.annotations()
        assert len(notes) == kept and set(notes.note.str.len()) == {4000}
    assert Store(small_disk).run_ids() == []
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    catalog.set_note("run-later", "there is room again")
    assert len(catalog.annotations()) == kept + 1

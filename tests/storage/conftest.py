import subprocess
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from storage.reader import Store
from storage.segments import RunWriter
from tests.factories import make_step_tables


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "r1"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def store(run_dir: Path) -> Store:
    return Store(run_dir.parent.parent)


@pytest.fixture
def writer(run_dir: Path):
    with RunWriter.open(run_dir) as writer:
        yield writer


@pytest.fixture
def record(writer: RunWriter):
    """record(first, last) appends the factory's steps from first to last, both included."""

    def record(first: int, last: int, **shape) -> None:
        for step in range(first, last + 1):
            writer.append_step(make_step_tables(step, **shape))

    return record


@pytest.fixture
def plain(run_dir: Path):
    """plain(sql) runs on run.duckdb as anyone with DuckDB would, and gives the rows."""

    def plain(sql: str) -> list[tuple]:
        with duckdb.connect(str(run_dir / "run.duckdb"), read_only=True) as database:
            return database.execute(sql).fetchall()

    return plain


@pytest.fixture
def small_disk(tmp_path: Path, request) -> Iterator[Path]:
    """A file system of the size that `@pytest.mark.parametrize("small_disk", ["2m"], indirect=True)` names."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)

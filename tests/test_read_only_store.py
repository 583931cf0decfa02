"""A store on a read-only mount: everything reads it, and what would write says so in one sentence."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from streamlit.testing.v1 import AppTest

from grpo_core.cli import main
from storage.catalog import Catalog
from storage.errors import StoreError
from storage.reader import Store
from storage.segments import RunWriter, seal
from tests.pages.seeded import make_run

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[tuple[Path, str, str]]:
    """A store that cannot be written, with a live and a sealed run."""
    root = tmp_path / "read only"
    root.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(root)], capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        live, sealed = (make_run(root, {"name": name, "steps": 20}, recorded=6, state="stopped") for name in ("live", "sealed"))
        Catalog(root).set_note(live, "as it was")
        seal(root / "runs" / sealed)
        subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
        yield root, live, sealed
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


def files(root: Path) -> list[tuple[str, int]]:
    return sorted((str(path.relative_to(root)), path.stat().st_mtime_ns) for path in root.rglob("*"))


@pytest.mark.xdist_group("processes")
def test_a_store_that_cannot_be_written_is_read(mounted, tmp_path: Path, capsys, monkeypatch) -> None:
    root, live, sealed = mounted
    before = files(root)
    store = Store(root)
    for run_id in (live, sealed):
        assert store.frame(run_id, "select count(*) as n from steps").n.tolist() == [6] and store.damaged(run_id) == []
        with duckdb.connect(str(root / "runs" / run_id / "run.duckdb"), read_only=True) as plain:
            assert plain.execute("select count(*) from steps").fetchone() == (6,)
        for command in (
            ["runs"], ["show", run_id], ["diagnose", run_id], ["stop", run_id], ["sql", "select count(*) from steps", "--run", run_id],
            ["export", run_id, "--to", str(tmp_path / f"{run_id}.duckdb")],
        ):  # fmt: skip
            code = main([*command, "--store", str(root)])
            said = capsys.readouterr()
            assert code in (0, 1 if command[0] == "stop" else 0) and "error:" not in said.err and "Read-only" not in said.err, (command, said)
    assert Catalog(root).annotations().set_index("run_id").note[live] == "as it was"
    assert main(["import", str(tmp_path / f"{live}.duckdb"), "--store", str(tmp_path / "elsewhere")]) == 0
    monkeypatch.setenv("GROUPSCOPE_STORE", str(root))
    for page in ("runs", "run", "diagnosis", "variance"):
        app = AppTest.from_file(str(ROOT / "pages" / "frame.py"), default_timeout=60)
        app.switch_page(f"{page}.py")
        app.query_params["run"] = live
        app.run()
        assert not app.exception and not app.error and ("live" in str(app.main) or "live" in str(app.sidebar)), page
    assert files(root) == before


def test_what_writes_says_that_it_cannot(mounted, tmp_path: Path, capsys) -> None:
    root, live, sealed = mounted
    for refused in (lambda: RunWriter.open(root / "runs" / live), lambda: RunWriter.open(root / "runs" / sealed), lambda: seal(root / "runs" / live)):
        with pytest.raises(StoreError, match="can only be read .* make it writable, or copy the run to a store that is"):
            refused()
    for refused in (lambda: Catalog(root).set_note(live, "x"), lambda: Catalog(root).claim("x"), lambda: Catalog(root).rename(live, "x")):
        with pytest.raises(StoreError, match="the catalogue .* cannot be written, only read"):
            refused()
    assert main(["export", live, "--to", str(tmp_path / "out"), "--format", "parquet", "--store", str(root)]) == 0
    capsys.readouterr()
    for command in (
        ["seal", live], ["resume", live], ["fork", live, "--step", "0", "--lr", "1e-5"], ["import", str(tmp_path / "out"), "--as", "new"],
        ["train", "--steps", "3"], ["launch", "--steps", "3"], ["export", live, "--to", str(root / "here.duckdb")],
    ):  # fmt: skip
        assert main([*command, "--store", str(root)]) == 1, command
        said = capsys.readouterr().err.strip().splitlines()
        assert len(said) == 1 and said[0].startswith("error: "), (command, said)
        assert any(words in said[0] for words in ("Read-only", "only be read", "only read")), (command, said)


def test_a_store_without_a_catalogue_that_cannot_be_written_is_listed(mounted, tmp_path: Path) -> None:
    root, live, _ = mounted
    copied = shutil.copytree(root, tmp_path / "copy")
    for file in copied.glob("catalog.sqlite*"):
        file.unlink()
    subprocess.run(["mount", "--bind", "-o", "ro", str(copied), str(copied)], check=True)
    try:
        assert Catalog(copied).annotations().empty and main(["runs", "--store", str(copied)]) == 0 and main(["show", live, "--store", str(copied)]) == 0
    finally:
        subprocess.run(["umount", "-l", str(copied)], check=True)

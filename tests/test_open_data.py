"""docs/open-data.md, word for word: plain DuckDB and pandas in one process, a run being written in another, and the app reading it here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from grpo_core.beside import PROJECT_ROOT
from grpo_core.launch.folder import RunFolder
from grpo_core.trace.tables import to_tables
from storage.reader import Store
from storage.segments import RunWriter, seal
from tests.collapsing import STEPS, recorded, traces

TEXT = (PROJECT_ROOT / "docs" / "open-data.md").read_text(encoding="utf-8")
PACE_S = 0.2
"""Between two steps."""
HELD = 9
"""A step that is not there before the notebook has ended, so that all of it runs on a run that is being written."""


def blocks(section: str) -> list[tuple[str, str]]:
    """(language, code) of the code blocks under a heading, in order."""
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    return re.findall(r"```(\w+)\n(.*?)```", body, re.DOTALL)


def python(section: str) -> str:
    return "\n".join(code for language, code in blocks(section) if language == "python")


def run_code(code: str, folder: Path) -> str:
    """In a Python that has DuckDB and pandas and nothing of ours; what it printed."""
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_shell(code: str, folder: Path) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(PROJECT_ROOT)}
    environment.pop("GROUPSCOPE_STORE")
    done = subprocess.run(["bash", "-ec", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path, store_root: Path, model_cache: Path) -> RunFolder:
    """A run with its first steps, in the store that is meant where none is named."""
    return recorded(tmp_path / "groupscope-data", model_cache, steps=2)


@contextmanager
def training(folder: RunFolder, model_cache: Path, notebook: Notebook) -> Iterator[threading.Thread]:
    """Its further steps come one by one, with merging, as from a trainer: up to HELD once the notebook has seen step 1, the rest when it has ended."""

    def write() -> None:
        with RunWriter.open(folder.path) as writer:
            writer.write_vocabulary([f"<{token}>" for token in range(64)])
            notebook.saw(1).wait()
            for step, trace in enumerate(traces(model_cache)[2:], 2):
                if step == HELD:
                    notebook.ended.wait()
                writer.append_step(to_tables(trace))
                writer.compact()
                time.sleep(PACE_S)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield thread
    finally:
        notebook.close()
        thread.join()


class Notebook:
    """The Python code of the first section, running in `folder`, and what it has printed."""

    def __init__(self, folder: Path) -> None:
        code = python("A notebook on a live run")
        self.process = subprocess.Popen([sys.executable, "-I", "-u", "-c", code], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.printed, self.ended = "", threading.Event()
        self._waiting: dict[int, threading.Event] = {}
        threading.Thread(target=self._read, daemon=True).start()

    def saw(self, step: int) -> threading.Event:
        return self._waiting.setdefault(step, threading.Event())

    def close(self) -> None:
        self.process.kill()
        for event in (*self._waiting.values(), self.ended):
            event.set()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.printed += line
            if found := re.match(r"step (\d+): reward", line):
                self.saw(int(found[1])).set()
        self.ended.set()


def open_app(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> AppTest:
    """The page Run on this run."""
    monkeypatch.setenv("GROUPSCOPE_STORE", str(folder.store_root))
    app = AppTest.from_file(str(PROJECT_ROOT / "pages" / "frame.py"), default_timeout=60)
    app.switch_page("run.py")
    app.query_params["run"] = folder.run_id
    return app


def test_a_notebook_reads_a_run_while_it_trains_and_the_app_is_up(folder: RunFolder, model_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app, notebook = open_app(folder, monkeypatch), Notebook(folder.store_root.parent)
    with training(folder, model_cache, notebook) as trainer:
        looks = 0
        while not notebook.ended.is_set():
            assert not app.run().exception
            looks += 1
        assert notebook.process.wait(60) == 0, notebook.printed
        assert looks and trainer.is_alive(), "the run was still being written"
        trainer.join(60)
    assert [int(step) for step in re.findall(r"^step (\d+): reward", notebook.printed, re.MULTILINE)][:7] == list(range(7))
    assert all(word in notebook.printed for word in ("logp_correct", "moved", "surest", "best"))
    assert Store(folder.store_root).last_step(folder.run_id) == STEPS - 1, "the notebook kept nobody from writing"


def test_a_notebook_that_asks_anew_outlives_the_run(folder: RunFolder) -> None:
    first, *_, last = [code for language, code in blocks("A notebook on a live run") if language == "python"]
    seal(folder.path)
    assert "best" in run_code(f"{first}\n{last}", folder.store_root.parent)


def test_export_and_import_as_on_the_page(folder: RunFolder) -> None:
    place = folder.store_root.parent
    ((_, export), _), ((_, import_),) = blocks("Export"), blocks("Import")
    assert run_shell(export, place).count("\nvocabulary ") == 3
    printed = run_code(f"import duckdb\n{python('Export')}", place)
    assert f"{folder.run_id}  too fast   grpo" in printed and "text" in printed
    assert folder.run_id in run_shell(import_, place).split("RUN", 1)[1]
    assert Store(place / "elsewhere").run_ids() == [folder.run_id]
    assert "same 2 steps" in run_shell("python -m grpo_core import run --store elsewhere", place)

"""Shared by all tests: one thread per process (two workers share two cores), and no store but the test's own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from tests.servers import S3, Postgres, postgres_programs, postgres_server, s3_server

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Warmed-up tiny models, shared by all tests and workers of this session."""
    base = tmp_path_factory.getbasetemp()
    cache = (base if worker_id == "master" else base.parent) / "cache"
    cache.mkdir(exist_ok=True)
    return cache


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Children that tests kill, forked from a process that has torch loaded. There is one such process for all tests of a worker: what
    the first test has it load is what the children of every test need not load again."""
    context = multiprocessing.get_context("forkserver")
    loaded = ["tests.test_killed_trainer", "tests.storage.victims", "grpo_core.running", "grpo_core.trainer.loop", "grpo_core.trace.recorder"]
    context.set_forkserver_preload(loaded)
    return context


@pytest.fixture
def store_root(tmp_path: Path, model_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store without runs; also where the CLI and the app look when no store is named."""
    root = tmp_path / "store"
    root.mkdir()
    (root / "cache").symlink_to(model_cache)
    monkeypatch.setenv("GROUPSCOPE_STORE", str(root))
    return root


@pytest.fixture(autouse=True)
def _no_place_but_the_tests_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GROUPSCOPE_CATALOG", "GROUPSCOPE_MIRROR", "GROUPSCOPE_CACHE_GB"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server of this worker's own."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed; on Debian: apt-get install postgresql")
    with postgres_server(programs) as server:
        yield server


@pytest.fixture(scope="session")
def s3_process() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(s3_process: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """A server that speaks S3, this worker's own, to which s3fs in this process and those it starts talks."""
    for name, value in s3_process.environment.items():
        monkeypatch.setenv(name, value)
    return s3_process

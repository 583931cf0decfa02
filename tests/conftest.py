"""Shared by all tests: one thread per process (two workers share two cores), and no store but the test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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


@pytest.fixture
def store_root(tmp_path: Path, model_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store without runs; also where the CLI and the app look when no store is named."""
    root = tmp_path / "store"
    root.mkdir()
    (root / "cache").symlink_to(model_cache)
    monkeypatch.setenv("GROUPSCOPE_STORE", str(root))
    return root

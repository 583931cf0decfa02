"""Shared by all tests: one thread per process (two workers share two cores), and no store but the test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture
def store_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store; also where the CLI and the app look when no store is named."""
    root = tmp_path / "store"
    root.mkdir()
    monkeypatch.setenv("GROUPSCOPE_STORE", str(root))
    return root

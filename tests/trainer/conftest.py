from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One warmed-up tiny model for all workers; the loader's own lock keeps them from making it twice."""
    return tmp_path_factory.getbasetemp().parent / "groupscope-test-models"

from pathlib import Path

import pytest

from pages.components.data import SeriesCache
from storage.queries.steps import step_series
from storage.queries.variance import outcome_counts
from storage.reader import Store
from storage.segments import RunWriter
from tests.factories import make_step_tables


@pytest.mark.parametrize("question", [step_series, outcome_counts])
def test_each_look_reads_only_the_steps_since_the_last(store_root: Path, question) -> None:
    asked = []
    cache, store = SeriesCache(lambda *asking: asked.append(asking[2]) or question(*asking)), Store(store_root)
    with RunWriter.open(store_root / "runs" / "r1") as writer:
        for step, known in ((0, 1), (1, 2), (5, 3)):
            writer.append_step(make_step_tables(step, groups=2))
            for _ in range(2):
                assert cache.rows(store, "r1", attempt=0)["step"].nunique() == known
    assert asked == [-1, 0, 1]
    assert cache.rows(store, "r1", attempt=0).equals(question(store, "r1"))
    cache.rows(store, "r1", attempt=1)
    assert asked[-1] == -1  # a resume may have taken steps back

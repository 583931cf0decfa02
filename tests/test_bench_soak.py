"""`bench soak` over 300 steps: every step counted, live and sealed, memory and descriptors flat, files bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.layout import list_segments
from tests.benchmarks import soak


@pytest.mark.xdist_group("processes")
def test_three_hundred_steps_end_with_exact_counts(store_root: Path, capsys) -> None:
    figures = soak.main(steps=300, every=50)
    assert figures["wrong"] == {} and figures["want"]["rollouts"] == 2400 and "'missing': 0" in capsys.readouterr().out
    looks = figures["looks"]
    assert [look.steps for look in looks] == [50, 100, 150, 200, 250, 300]
    assert looks[-1].descriptors <= looks[1].descriptors + 2 and looks[-1].beside_descriptors == looks[2].beside_descriptors > 0
    assert looks[-1].rss_mib < looks[2].rss_mib + 20 and looks[-1].beside_mib < looks[2].beside_mib + 20
    assert figures["settled_files"] <= figures["bound"] < 300
    assert sorted(path.name for path in store_root.iterdir()) == ["cache"]


def test_a_lost_step_is_told(store_root: Path, monkeypatch) -> None:
    """One step's files vanish before the steps are counted."""

    def lose(recorder: soak.Recorder, *, seal: bool) -> None:
        close(recorder, seal=seal)
        for table in ("steps", "groups", "rollouts"):
            segment = list_segments(recorder._run_dir / table)[-1]
            segment.path.unlink()

    close = soak.Recorder.close
    monkeypatch.setattr(soak.Recorder, "close", lose)
    monkeypatch.setattr(soak, "GRACE_S", -soak.SINCE_DELAY_S)
    with pytest.raises(SystemExit):
        soak.main(steps=6, every=3)


def test_the_bound_grows_with_the_logarithm() -> None:
    assert [soak.bound(steps) for steps in (10, 1_000, 10_000, 1_000_000)] == [142, 142, 157, 187]


def test_odd_numbers_are_named(store_root: Path) -> None:
    with pytest.raises(ValueError, match="steps: input should be a whole number of at least 1, got 0"):
        soak.main(steps=0)

"""`bench store` at a tiny size: every part runs, measures something, and leaves nothing behind."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks import store
from tests.benchmarks.store_parts import opening
from tests.benchmarks.store_parts.steps import Maker, Shape, tokens_of

TINY = dict(
    tokens="1e3,2e3", completion=16, groups=2, group_size=4, repeats=2, rounds=1, helper_starts_s=0.0, writers=2, readers=1, fresh_steps=2, fresh_every_s=0.1,
    loop_steps=7, precision_steps=6, loop_every_s=0.05, training_steps=0,
)  # fmt: skip


@pytest.mark.parametrize("part", store.PARTS)
def test_a_part_gives_finite_figures_and_leaves_nothing(part: str, store_root: Path, capsys) -> None:
    figures = store.main(parts=part, **TINY)[part]
    found = list(numbers(figures))
    assert len(found) > 5 and all(map(math.isfinite, found))
    assert part in capsys.readouterr().out
    assert sorted(path.name for path in store_root.iterdir()) == ["cache"]
    PROMISED[part](figures)


def every_way(figures: dict) -> None:
    assert len(figures["ways"]) == 9 and all(way["write"] > 0 for way in figures["ways"].values())


def every_precision(figures: dict) -> None:
    assert set(figures["runs"]) == {"rounded", "half", "exact"}
    assert all(size > 0 for run in figures["runs"].values() for size in run.values())


def every_signal(figures: dict) -> None:
    """Signals are made before anything is rounded; token traces are rounded, `half` more."""
    rounded, half = figures["precisions"]["rounded"], figures["precisions"]["half"]
    assert figures["signals"] > 20 and (rounded["signals"], half["signals"], rounded["verdict"], half["verdict"]) == (0, 0, True, True)
    assert rounded["questions"]["steps.step_series"]["differ"] == 0 < rounded["questions"]["lab.rollouts_of_step"]["differ"]
    assert 0 < rounded["columns"]["entropy"]["share"] < half["columns"]["entropy"]["share"] < 2**-7


def every_size(figures: dict) -> None:
    sizes = figures["sizes"]
    assert all(f["tokens"] >= size for size, f in sizes.items()) and list(sizes) == [1000, 2000]
    assert set(figures["ratios"]) == set(sizes[1000]["ms"])


def every_sight(figures: dict) -> None:
    assert (figures["steps"], figures["seen"]) == (4, 4)


def no_step_missing(figures: dict) -> None:
    assert figures["handing_over"]["missing"] == 0


PROMISED = {"ingest": every_way, "bytes": every_precision, "precision": every_signal, "growth": every_size, "fresh": every_sight, "loop": no_step_missing}


def test_a_sealed_run_is_asked_the_same_and_its_pages_open(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "PAGES", ("run", "variance"))
    monkeypatch.setattr(opening, "TIMES", 1)
    figures = store.main(parts="growth", **TINY | {"tokens": 1000, "sealed": True, "open_pages": True})["growth"]
    assert figures["sealed"] and len(figures["sizes"][1000]["ms"]) > 20 and figures["ratios"] == {}
    assert all(found["first"] > 0 < found["again"] for found in figures["pages"][1000].values()) and len(figures["pages"][1000]) == 2


def test_an_unknown_part_and_odd_sizes_are_named(store_root: Path) -> None:
    with pytest.raises(ValueError, match="parts: unknown part 'tea'; known: ingest, bytes, precision, growth, fresh, loop"):
        store.main(parts="ingest,tea")
    with pytest.raises(ValueError, match="tokens: input should be numbers of at least 1 like 1e6,1e7, got 'tea'"):
        store.main(tokens="tea")


def test_a_step_is_the_same_again_and_of_its_shape() -> None:
    shape = Shape(groups=2, group_size=3, tokens=20, every_trace=True)
    one, again = (Maker(shape, seed=5).step(7) for _ in range(2))
    assert [r.completion.text for g in one.groups for r in g.rollouts] == [r.completion.text for g in again.groups for r in g.rollouts]
    assert [len(g.rollouts) for g in one.groups] == [3, 3]
    assert 6 <= tokens_of(one.groups) <= 6 * 40
    assert all(r.logp_ref is not None and (r.completion.logp <= 0).all() for g in one.groups for r in g.rollouts)


def numbers(figures: object) -> Iterator[float]:
    """Every number in nested dicts and lists."""
    if isinstance(figures, dict):
        figures = list(figures.values())
    if isinstance(figures, list):
        for figure in figures:
            yield from numbers(figure)
    elif not isinstance(figures, str):
        yield float(figures)

"""Where to look, in a recorded run that loses likelihood and in rows made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from grpo_core.diagnosis.levels import Evidence, Level, Signal
from grpo_core.diagnosis.panel import examine
from grpo_core.diagnosis.places import RANKINGS, Recorded, places_of
from grpo_core.diagnosis.thresholds import THRESHOLDS
from grpo_core.watch.reading import report_on
from storage.queries.evidence import GROUP_FIGURES, ROLLOUT_FIGURES
from storage.queries.groups import groups_of_step
from storage.queries.likelihood import worst_tokens
from storage.reader import Store
from tests.diagnosis.made import made
from tests.pages.seeded import make_run


def off(name: str, level: Level = Level.WATCH, step: int | None = 5) -> Signal:
    return Signal(name=name, title=name, level=level, value=0.0, unit="", since_step=None, sentence="", levels=[],
                  evidence=(Evidence(label="now", value=0.0, unit=""), Evidence(label="lately", value=0.0, unit="", step=step)))  # fmt: skip


def answering(groups: list[tuple[int, float]], pushed: dict | None = None) -> Recorded:
    rows = {"group_index": [group for group, _ in groups], "value": [value for _, value in groups]}
    return Recorded(
        worst_groups=lambda step, figure, *, lowest: rows,
        pushed_rollouts_of_group=lambda step, group: pushed or {"length": [], "advantage": [], "token_ids": []},
        lost_token=lambda step: {"group_index": [4], "rollout_index": [1], "token_id": [9], "value": [-2.5]},
        piece=lambda token: f"<{token}>",
    )


def test_every_ranking_is_of_a_signal_and_a_figure_that_exist() -> None:
    assert set(RANKINGS) <= {signal.name for signal in examine(made())} <= set(THRESHOLDS)
    assert {ranking.figure for ranking in RANKINGS.values()} == {*GROUP_FIGURES, *ROLLOUT_FIGURES}


def test_only_groups_that_show_the_trouble_are_named() -> None:
    found = places_of(off("displacement"), answering([(2, -0.5), (0, 0.0), (1, 0.1)]))
    assert [(e.step, e.group, e.rollout, e.token, e.value) for e in found] == [(5, 2, None, None, -0.5), (5, 4, 1, "<9>", -2.5)]
    assert [e.group for e in places_of(off("failures"), answering([(2, 0.5), (0, 0.0)]))] == [2]
    assert [e.group for e in places_of(off("length"), answering([(2, 24.0), (0, 18.0)]))] == [2, 0]


@pytest.mark.parametrize("signal", [off("displacement", Level.HEALTHY), off("displacement", step=None), off("probe")], ids=["healthy", "no step", "no groups"])
def test_nowhere_to_look(signal: Signal) -> None:
    assert places_of(signal, answering([(0, -1.0)])) == ()


def test_the_contested_token_is_the_one_pushed_down_most() -> None:
    """Token 7 opens all three rollouts (+1 −2 −2 = −3); token 8 follows in one of each sign (+1 −2 = −1)."""
    pushed = {"length": [2, 2, 2], "advantage": [1.0, -2.0, -2.0], "token_ids": [[7, 8], [7, 8], [7, 9]]}
    token = places_of(off("conflicts"), answering([(3, -1.5)], pushed))[-1]
    assert (token.group, token.token, token.value) == (3, "<7>", -3.0)
    assert len(places_of(off("conflicts"), answering([(3, -1.5)], None))) == 1  # its rollouts are gone


def test_a_recorded_run_names_its_groups_and_token(store_root: Path) -> None:
    run_id = make_run(store_root, {"name": "sinking", "steps": 30, "epochs": 4}, recorded=20, state="finished", sinking=True)
    store = Store(store_root)
    signal = report_on(store, run_id, checked=True).signal("displacement")
    groups, token = [e for e in signal.evidence if e.group is not None and e.token is None], signal.evidence[-1]
    step = groups[0].step
    recorded_groups = groups_of_step(store, run_id, step).set_index("group_index")["delta_correct"]
    assert [(e.group, e.value) for e in groups] == list(recorded_groups[recorded_groups < 0].nsmallest(3).items())
    worst = worst_tokens(store, run_id, step, 1).iloc[0]
    assert (token.group, token.value) == (worst["group_index"], worst["logp_delta"]) and token.token
    assert not any(e.group is not None for e in report_on(store, run_id).signal("displacement").evidence)  # a live diagnosis opens no rollouts

    for path in (store.run_dir(run_id) / "rollouts").glob("*.parquet"):
        path.unlink()
    found = report_on(store, run_id, checked=True).signal("displacement").evidence
    assert [e.group for e in found if e.group is not None] == [e.group for e in groups]

import base64
import json
import math

import numpy as np
import pandas as pd
import pytest

from grpo_core.config import make_config
from pages.components import charts, series
from pages.components.cards import CARDS, missing_columns, why_missing
from pages.components.charts import Options
from storage.schema import STEPS

DERIVED = {"share_all_fail", "share_all_pass", "share_other_tied", "share_dropped"}


def steps_frame(n: int, **columns) -> pd.DataFrame:
    known = {"step": np.arange(n), "attempt": 0, "missing_before": 0, "elapsed_s": np.arange(n) * 30.0, "finished_at": 1.8e9 + np.arange(n) * 30.0}
    return pd.DataFrame(known | columns)


def line_named(figure: dict, name: str) -> dict:
    return next(trace for trace in figure["data"] if trace.get("name") == name)


def test_every_line_is_a_column_with_a_meaning() -> None:
    columns = {column.name for column in STEPS.columns} | DERIVED
    assert {name for card in CARDS.values() for name in card.columns} <= columns


def test_raw_line_stays_behind_the_smoothed_one() -> None:
    figure = charts.figure(CARDS["entropy"], steps_frame(3, entropy=[1.0, 3.0, 2.0]), Options(smoothing=0.5))
    behind, front = figure["data"]
    np.testing.assert_allclose(behind["y"], [1, 3, 2])
    assert behind["line"]["color"] == "@c2/0.32" and behind["hoverinfo"] == "skip"
    np.testing.assert_allclose(front["y"], series.ema(np.array([1.0, 3, 2]), 0.5), rtol=1e-6)
    np.testing.assert_array_equal(front["customdata"], [[0, 1], [1, 3], [2, 2]])


def test_without_smoothing_there_is_one_line() -> None:
    figure = charts.figure(CARDS["entropy"], steps_frame(3, entropy=[1.0, 3.0, 2.0]), Options(smoothing=0.0))
    assert len(figure["data"]) == 1


@pytest.mark.parametrize(("n", "axis", "dtick"), [(4, "Step", 1), (9, "Step", None), (4, "Training time", None), (0, "Step", None)])
def test_few_steps_are_labelled_whole(n: int, axis: str, dtick: int | None) -> None:
    figure = charts.figure(CARDS["entropy"], steps_frame(n, entropy=np.ones(n)), Options(smoothing=0.0, axis=axis))
    assert figure["layout"]["xaxis"].get("dtick") == dtick


def test_a_long_run_shows_its_spike_and_says_how() -> None:
    entropy = np.ones(5000)
    entropy[3210] = 50.0
    figure = charts.figure(CARDS["entropy"], steps_frame(5000, entropy=entropy), Options(smoothing=0.9))
    envelope, line = figure["data"]
    assert envelope["fill"] == "toself" and np.nanmax(envelope["y"]) == 50.0
    assert len(line["x"]) == charts.POINTS
    assert any("1 point = 10 steps, shade = lowest to highest" in note["text"] for note in figure["layout"]["annotations"])


def test_unrecorded_steps_are_a_gap() -> None:
    frame = steps_frame(4, entropy=[1.0, 1, 2, 2]).assign(step=[0, 1, 5, 6], missing_before=[0, 0, 3, 0])
    figure = charts.figure(CARDS["entropy"], frame, Options(smoothing=0.0))
    line = line_named(figure, "Entropy")
    assert math.isnan(line["y"][2]) and line["x"][2] == 3.0
    shade = figure["layout"]["shapes"][0]
    assert (shade["x0"], shade["x1"], shade["type"]) == (1.0, 5.0, "rect")


def test_a_line_passes_over_a_few_steps_without_a_figure_but_not_over_many() -> None:
    correct = np.ones(40)
    correct[5:8] = np.nan  # no rollout was correct in three steps
    correct[20:32] = np.nan
    line = line_named(charts.figure(CARDS["likelihood"], steps_frame(40, logp_correct=correct), Options(smoothing=0.0)), "Correct")
    assert 6 not in line["x"] and np.isnan(line["y"]).sum() == 12


def test_resumes_and_the_chosen_step_are_marked() -> None:
    frame = steps_frame(4, entropy=[1.0, 1, 2, 2]).assign(attempt=[0, 0, 1, 1])
    shapes = charts.figure(CARDS["entropy"], frame, Options(marked=3))["layout"]["shapes"]
    assert [(shape["x0"], shape["line"].get("dash")) for shape in shapes] == [(2.0, "dot"), (3.0, None)]


@pytest.mark.parametrize(("axis", "expected"), [("Step", [0, 1, 2]), ("Training time", [0, 0.5, 1.0])])
def test_axes(axis: str, expected: list[float]) -> None:
    np.testing.assert_allclose(charts.x_values(steps_frame(3), axis), expected)


def test_the_clock_axis_is_milliseconds() -> None:
    ticks = charts.x_values(steps_frame(3), "Clock")
    np.testing.assert_allclose(np.diff(ticks), 30_000)


def test_stacked_shares_by_hand() -> None:
    frame = steps_frame(2, share_all_fail=[0.5, 0.25], share_all_pass=[0.25, 0.25], share_other_tied=[0.0, 0.5])
    figure = charts.figure(CARDS["groups"], frame, Options(smoothing=0.0))
    np.testing.assert_allclose(line_named(figure, "All wrong")["y"], [0.5, 0.25])
    np.testing.assert_allclose(line_named(figure, "All correct")["y"], [0.75, 0.5])
    np.testing.assert_allclose(line_named(figure, "Tied")["y"], [0.75, 1.0])
    np.testing.assert_array_equal(line_named(figure, "Tied")["customdata"][:, 1], [0.0, 0.5])


def test_a_panel_without_figures_gives_its_room_to_the_others() -> None:
    frame = steps_frame(2, logp_correct=[-1.0, -1.0], logp_wrong=[-2.0, -2.0])
    layout = charts.figure(CARDS["likelihood"], frame, Options())["layout"]
    assert layout["yaxis"]["domain"] == [0.0, 1.0] and "yaxis2" not in layout and layout["xaxis"]["anchor"] == "y"


def test_evaluation_points_stand_only_where_measured() -> None:
    frame = steps_frame(4, correct_rate=[0.1, 0.2, 0.3, 0.4], eval_correct=[0.1, np.nan, np.nan, 0.5])
    points = line_named(charts.figure(CARDS["reward"], frame, Options()), "Held-out")
    np.testing.assert_array_equal(points["x"], [0, 3])
    np.testing.assert_allclose(points["y"], [0.1, 0.5])


def test_polygons_are_split_at_missing_values() -> None:
    x = np.arange(4.0)
    xs, ys = charts.polygons(x, np.array([0.0, np.nan, 1, 1]), np.array([2.0, 2, 3, 3]))
    np.testing.assert_array_equal(xs, [0, 0, np.nan, 2, 3, 3, 2, np.nan])
    np.testing.assert_array_equal(ys, [2, 0, np.nan, 3, 3, 1, 1, np.nan])


def test_figure_json_reads_back() -> None:
    figure = charts.figure(CARDS["entropy"], steps_frame(3, entropy=[1.0, 3.0, 2.0]), Options(smoothing=0.0))
    trace = json.loads(charts.figure_json(figure))["data"][0]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(trace["y"]["bdata"]), trace["y"]["dtype"]), [1, 3, 2])
    assert trace["customdata"]["shape"] == "3,2"


def test_missing_is_said_with_its_reason() -> None:
    frame = steps_frame(2, kl_step=[0.1, 0.1], kl_sampler=[0.0, 0.0])
    assert missing_columns(CARDS["kl"], frame) == ["kl_ref"]
    config = make_config({"epochs": 1, "eval_every": 0})
    assert why_missing("kl_ref", config) == "no reference model is kept while kl_coef is 0"
    assert why_missing("clip_low", config) == "with one update per rollout batch it is zero by construction"
    assert why_missing("eval_correct", config) == "evaluation is off (eval_every is 0)"
    assert why_missing("delta_correct", make_config({"rescore": 0.0})) == "rescoring is off (rescore is 0)"
    assert why_missing("logp_correct", config) == "no rollout has been correct yet"


def test_one_step_is_enough_for_every_card() -> None:
    frame = steps_frame(1, **{name: [0.5] for card in CARDS.values() for name in card.columns}, reward_group_std=[0.1])
    for card in CARDS.values():
        for axis in charts.AXES:
            assert charts.figure_json(charts.figure(card, frame, Options(axis=axis, log=True)))

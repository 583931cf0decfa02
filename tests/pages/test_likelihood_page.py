import json

import numpy as np
import pandas as pd
import pytest

from grpo_core.config import make_config
from grpo_core.diagnosis.phases import Phase, Phases
from pages.components import spiral
from pages.components.cards import missing_columns
from storage.queries.steps import QUANTILES
from storage.schema import STEPS
from tests.pages.looking import rows_of, words_of
from tests.pages.seeded import PAYLOADS

DERIVED = {*QUANTILES, "delta_correct_total", "delta_wrong_total"}
SINKING = Phases(
    (Phase(1, 0, 10, 0.001, 0, 0), Phase(2, 10, 25, -0.02, 8, 12), Phase(3, 25, 29, -0.2, 24, 27)),
    "delta_correct", "nats/token", "", np.arange(30.0), np.linspace(0, -1, 30),
)  # fmt: skip


def frame(n: int = 30, **columns) -> pd.DataFrame:
    return spiral.with_changes(pd.DataFrame({"step": np.arange(n), "attempt": 0, "missing_before": 0} | columns))


def test_every_line_is_a_column_with_a_meaning() -> None:
    known = {column.name for column in STEPS.columns} | DERIVED
    assert {name for card in (spiral.SPIRAL, spiral.CHANGE) for name in card.columns} <= known


def test_changes_add_up_over_the_measured_steps() -> None:
    steps = frame(4, delta_correct=[0.5, np.nan, -1.0, -0.25])
    np.testing.assert_allclose(steps["delta_correct_total"], [0.5, np.nan, -0.5, -0.75])
    assert missing_columns(spiral.SPIRAL, steps) == ["probe_logp", "delta_wrong_total", "reward_mean", "entropy"]


def test_phases_are_shaded_named_and_bounded() -> None:
    figure = spiral.spiral(frame(delta_correct=[-0.03] * 30, entropy=[1.0] * 30), SINKING, marked=None)
    shapes, notes = figure["layout"]["shapes"], figure["layout"]["annotations"]
    assert [(s["x0"], s["x1"]) for s in shapes if s["type"] == "rect"] == [(0, 10), (10, 25), (25, 29)]
    assert [(s["x0"], s["x1"]) for s in shapes if s.get("line", {}).get("width") == 5] == [(8, 12), (24, 27)]
    names = [note["text"] for note in notes if note.get("yshift") == 24]
    assert names == ["<b>I</b> early stagnation", "<b>II</b> steady decay", "<b>III</b>"]  # the last is too narrow for its name
    fit = next(trace for trace in figure["data"] if trace.get("name") == "Fit")
    assert fit["yaxis"] == "y"  # the panel of the probe set is empty, so the summed changes come first


def test_the_phases_in_words() -> None:
    config = make_config({})
    first, second, third, source = spiral.in_words(SINKING, config)
    assert "from step 10 \\(with 90 % confidence between 8 and 12\\) to step 25\\: −0\\.020 nats/token per step" in second
    assert "confidence" not in first and ":red-badge[III" in third and "paired changes" in source
    assert spiral.headline(SINKING) == "Phase III, accelerated collapse: correct answers have been losing likelihood since about step 10."


def test_missing_answers_say_how_to_get_them() -> None:
    nothing = Phases((), "delta_correct", "nats/token", "not measured", np.empty(0), np.empty(0))
    told = spiral.in_words(nothing, make_config({"probe_every": 0, "rescore": 0}))[0].replace("\\", "")
    assert "probe_every is 0; with 5" in told and "set rescore above 0" in told
    few = Phases((), "delta_correct", "nats/token", "not enough data: 3 of 8 measurements", np.empty(0), np.empty(0))
    assert "fewer than 8" in spiral.in_words(few, make_config({}))[0]
    assert "rescore 1" in spiral.how_to_get("delta_correct", make_config({"rescore": 0}))
    assert "gold_column" in spiral.how_to_get("probe_logp", make_config({"task": "dataset", "data": "a.jsonl"}))


def test_a_sinking_run_shows_both_charts_and_the_worst_of_a_step(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "likelihood", run=runs["collapsing"], step=22)
    said = words_of(app)
    assert "losing likelihood since about step" in said and "with 90 % confidence between" in said
    plots = {key: json.loads(rows_of(app, f"plot.{key}")["figure"]) for key in ("spiral", "change")}
    assert any(trace.get("name") == "Fit" for trace in plots["spiral"]["data"])
    groups, tokens = rows_of(app, "likelihood.groups"), rows_of(app, "likelihood.tokens")
    assert groups["label"] == "Groups of step 22 that lost most"
    lost = [row["cells"][2]["sort"] for row in groups["rows"]]
    assert lost == sorted(lost) and lost[0] < 0
    assert groups["rows"][0]["href"].startswith(f"group?run={runs['collapsing']}&step=22&group=")
    assert tokens["rows"] and all("rollout=" in row["href"] for row in tokens["rows"])
    moved = [row["cells"][1]["sort"] for row in tokens["rows"]]
    assert moved == sorted(moved) and moved[-1] < 0


def test_a_run_without_rescoring_says_so(seeded, open_page) -> None:
    root, runs = seeded
    said = words_of(open_page(root, "likelihood", run=runs["stopped"]))
    assert "was not measured" in said and "no such rollout has been rescored yet" in said
    assert "No step recorded yet" in words_of(open_page(root, "likelihood", run=runs["starting"]))


@pytest.mark.parametrize("step", [20, 4000])
def test_a_step_that_was_not_recorded(seeded, open_page, step: int) -> None:
    root, runs = seeded
    assert f"Step {step} is not recorded" in words_of(open_page(root, "likelihood", run=runs["healthy"], step=step))


def test_hostile_tokens_reach_the_page_as_data_only(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "likelihood", run=runs["hostile"], step=1)
    assert not any(payload in element.value for payload in PAYLOADS[:4] for element in app.markdown)
    shown = [cell["text"] for key in ("likelihood.groups", "likelihood.tokens") for row in rows_of(app, key)["rows"] for cell in row["cells"] if "text" in cell]
    assert " ".join(PAYLOADS) in shown and any(payload in shown for payload in PAYLOADS)

import base64

import numpy as np
import pandas as pd
import pytest

from pages.components.group_view import hint_notes
from pages.components.token_strip import GWHES, QUANTITIES, limit, measured, strip_data, token_traces

PIECES = ["<eos>", "a", " b", "<script>"]


def rollouts() -> pd.DataFrame:
    common = {"reward_parts": {"exact": 1.0}, "failure": None, "finish": "stop", "logp_ref": None, "nthr": None, "gwhes": np.nan}
    common |= {"source": "policy", "age": 0, "thinned": None, "rescored": True, "delta_sum": np.nan, "text": "a"}
    first = common | {
        "rollout_index": 0, "correct": True, "reward": 1.0, "advantage": 1.5, "length": 2, "token_ids": np.array([1, 0]),
        "logp_sampling": np.array([-1.0, -2.0]), "logp_gap": np.array([0.25, 0.0]), "logp_delta": np.array([0.1, -0.1]),
        "entropy": np.array([0.5, 0.0]), "advantages": np.array([1.5, 1.5]), "weights": np.array([1.0, 0.0]), "clipped": np.array([1, 0]),
    }  # fmt: skip
    second = common | {
        "rollout_index": 1, "correct": None, "reward": np.nan, "advantage": 0.0, "length": 1, "token_ids": np.array([9]), "failure": "boom", "finish": "length",
        "logp_sampling": np.array([-3.0]), "logp_gap": np.array([0.0]), "logp_delta": None,
        "entropy": np.array([2.0]), "advantages": np.array([0.0]), "weights": np.array([1.0]), "clipped": np.array([0]),
    }  # fmt: skip
    return pd.DataFrame([first, second])


def decoded(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


def test_traces_run_over_all_rollouts_and_stay_missing() -> None:
    traces = token_traces(rollouts())
    np.testing.assert_allclose(traces["logp_before"], [-0.75, -2.0, -3.0])  # sampling plus gap
    np.testing.assert_allclose(traces["logp_delta"], [0.1, -0.1, np.nan])
    assert np.isnan(traces["logp_ref"]).all()


def test_the_browser_gets_text_ids_and_floats() -> None:
    data = strip_data(rollouts(), PIECES, "delta", identity="x", chosen=1, stacked=False)
    assert data["rollouts"][0]["pieces"] == ["a", "<eos>"] and data["rollouts"][1]["pieces"] == ["⟨9⟩"]
    np.testing.assert_array_equal(decoded(data["ids"], "<i4"), [1, 0, 9])
    np.testing.assert_allclose(decoded(data["traces"]["logp_delta"], "<f4"), [0.1, -0.1, np.nan], rtol=1e-6)
    assert [one["key"] for one in data["quantities"]] == [key for key in QUANTITIES if key != "nthr"]
    assert data["traces"]["logp_ref"] is None and "nthr" not in data["traces"]


def test_heads_of_the_cards() -> None:
    first, second = strip_data(rollouts(), PIECES, "delta", identity="x", chosen=None, stacked=False)["rollouts"]
    assert first["chip"]["text"] == "correct" and ("1.00", "reward") in first["facts"] and ("+1.50", "advantage") in first["facts"]
    assert second["chip"]["text"] == "not scored" and ("–", "reward") in second["facts"] and ("", "cut at the token limit") in second["facts"]
    assert [note["text"] for note in second["notes"]] == [
        "Scoring failed: boom",
        "Δ log-prob and ratio not available: this group was not rescored after the update.",
    ]


def test_nthr_and_gwhes_where_they_were_measured() -> None:
    frame = rollouts().assign(nthr=[None, np.array([-0.4])], gwhes=[1.25, np.nan])  # correct and wrong: each has the one it can have
    data = strip_data(frame, PIECES, "nthr", identity="x", chosen=None, stacked=False)
    np.testing.assert_allclose(decoded(data["traces"]["nthr"], "<f4"), [np.nan, np.nan, -0.4], rtol=1e-6)
    scale = data["quantities"][-1]
    assert (scale["key"], scale["low"], scale["high"], scale["hue"]) == ("nthr", "−0.5", "+0.5", "down")
    assert ("+1.25", "GWHES", GWHES) in data["rollouts"][0]["facts"] and "GWHES" not in str(data["rollouts"][1]["facts"])
    assert measured(frame)[-1] == "nthr" and "nthr" not in measured(rollouts())


def test_an_empty_filter_gives_an_empty_strip() -> None:
    data = strip_data(rollouts().iloc[:0], PIECES, "advantage", identity="x", chosen=None, stacked=True)
    assert data["rollouts"] == [] and data["ids"] == ""


@pytest.mark.parametrize(("values", "end"), [([0.04, -0.13], 0.15), ([1.0], 1.0), ([], 1.0), ([0.0], 1.0), ([np.nan, 37.0], 50.0)])
def test_scales_end_at_round_numbers(values: list[float], end: float) -> None:
    assert limit(np.array(values)) == pytest.approx(end)


def test_the_ratio_scale_is_the_delta_scale() -> None:
    ratio = next(one for one in strip_data(rollouts(), PIECES, "ratio", identity="x", chosen=None, stacked=False)["quantities"] if one["key"] == "ratio")
    assert ratio["scale"] == pytest.approx(np.exp(0.1), rel=1e-3) and ratio["middle"] == "1"


def test_a_rollout_behind_a_hint_says_so_in_its_head() -> None:
    hinted, plain = strip_data(rollouts().assign(source=["hinted", "policy"]), PIECES, "delta", identity="x", chosen=None, stacked=False)["rollouts"]
    assert "behind a hint" in [fact[1] for fact in hinted["facts"]] and "hint" not in str(plain)


@pytest.mark.parametrize(
    ("tokens", "says"),
    [(0, []), (float("nan"), []), (1, ["The last 1 token of the prompt is a hint"]), (5, ["The last 5 tokens of the prompt are a hint"])],
)
def test_what_of_a_prompt_is_a_hint_is_said(tokens: float, says: list[str]) -> None:
    assert [note.partition(",")[0] for note in hint_notes(tokens)] == says


def test_a_replayed_rollout_says_so_in_its_head() -> None:
    rows = rollouts().assign(source=["replay", None], age=[3, np.nan])  # None as in runs recorded before there were replays
    replayed, plain = strip_data(rows, PIECES, "delta", identity="x", chosen=None, stacked=False)["rollouts"]
    assert ("3", "steps old, replayed") in [fact[:2] for fact in replayed["facts"]] and "no sample of this step's policy" in replayed["notes"][0]["text"]
    assert "replayed" not in str(plain)


def test_the_end_of_a_scale_is_told_as_it_is() -> None:
    ends = {}
    for entropy in (1.5, 0.3):
        undecided = rollouts().assign(entropy=[[entropy] * n for n in rollouts()["length"]])
        drawn = strip_data(undecided, PIECES, "entropy", identity="x", chosen=None, stacked=False)
        ends[entropy] = next(one["high"] for one in drawn["quantities"] if one["key"] == "entropy")
    assert ends == {1.5: "1.5", 0.3: "0.3"}

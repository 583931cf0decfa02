import math

import numpy as np
import pyarrow as pa
import pytest

from storage.queries.groups import groups_of_step, prompt_history, rollouts_of_group, vocabulary
from storage.queries.runs import last_step, reward_curve, run_size
from storage.queries.steps import QUANTILES, position_profile, step_series
from storage.reader import Store
from storage.schema import GROUPS, POSITION, ROLLOUTS, STEPS, UPDATE
from storage.segments import RunWriter, seal
from tests.factories import make_step_tables


@pytest.fixture(scope="module", params=["live", "sealed"])
def store(request, tmp_path_factory) -> Store:
    root = tmp_path_factory.mktemp(request.param)
    with RunWriter.open(root / "runs" / "r1") as writer:
        for step in (0, 1, 2, 4):
            writer.append_step(make_step_tables(step))
        writer.write_vocabulary(["<pad>", "a", "<b>"])
    if request.param == "sealed":
        seal(root / "runs" / "r1")
    return Store(root)


def test_step_series_has_every_plain_column_in_order(store):
    series = step_series(store, "r1")
    assert list(series.columns) == [c.name for c in STEPS.columns if not pa.types.is_nested(c.type)] + [*QUANTILES, "reward_parts.exact", "reward_parts.format"]
    assert series["step"].tolist() == [0, 1, 2, 4]
    assert series["entropy"].tolist() == [1.0, 1 / 2, 1 / 3, 1 / 5]
    assert series["reward_parts.exact"].tolist() == [0.5] * 4 and series["reward_parts.format"].tolist() == [0.25] * 4
    assert np.isnan(series["eval_correct"]).all()


def test_the_cursor_gives_only_what_is_new(store):
    assert step_series(store, "r1", after=1)["step"].tolist() == [2, 4]
    assert step_series(store, "r1", after=4).empty
    assert list(step_series(store, "r1", after=4).columns) == [name for name in step_series(store, "r1").columns if "." not in name]


def test_updates_are_a_row_each(store):
    updates = store.frame("r1", "select * from updates where step > 1 order by step, update")
    assert list(updates.columns) == ["step", *(field.name for field in UPDATE)]
    assert updates[["step", "update"]].values.tolist() == [[2, 0], [2, 1], [4, 0], [4, 1]]
    assert updates["terms"][1] == {"policy": 0.1}


def test_position_profile(store):
    profile = position_profile(store, "r1", 2)
    assert list(profile.columns) == [field.name for field in POSITION]
    assert profile["bin"].tolist() == [0, 1, 2] and position_profile(store, "r1", 3).empty


def test_groups_of_step(store):
    groups = groups_of_step(store, "r1", 1)
    want = make_step_tables(1)["groups"]
    assert list(groups.columns) == [c.name for c in GROUPS.columns]
    assert groups["group_id"].tolist() == ["s1.g0", "s1.g1"]
    assert groups["reward_mean"].tolist() == want["reward_mean"].to_pylist()
    assert groups["prompt_ids"][1].tolist() == want["prompt_ids"][1].as_py()
    assert groups["kept"].tolist() == want["kept"].to_pylist()
    assert groups_of_step(store, "r1", 3).empty


def test_rollouts_of_group(store):
    rollouts = rollouts_of_group(store, "r1", 4, 1)
    want = make_step_tables(4)["rollouts"].slice(4).to_pylist()
    assert list(rollouts.columns) == [c.name for c in ROLLOUTS.columns]
    assert rollouts["text"].tolist() == [row["text"] for row in want]
    assert [ids.tolist() for ids in rollouts["token_ids"]] == [row["token_ids"] for row in want]
    assert [trace is None for trace in rollouts["logp_delta"]] == [False, True, False, True]
    assert rollouts["entropy"][2].dtype == np.float32 and len(rollouts["entropy"][2]) == rollouts["length"][2] == 14
    assert rollouts_of_group(store, "r1", 4, 2).empty


def test_vocabulary(store):
    assert vocabulary(store, "r1") == ["<pad>", "a", "<b>"]


def test_prompt_history(store):
    history = prompt_history(store, "r1", f"{1:016x}")
    assert list(history.columns) == ["step", "group_index", "reward_mean", "correct", "size"]
    assert history["step"].tolist() == [0, 1, 2, 4] and set(history["group_index"]) == {1}
    assert history["correct"].tolist() == [make_step_tables(step)["groups"]["correct"][1].as_py() for step in (0, 1, 2, 4)]
    assert prompt_history(store, "r1", "x' or true --").empty


def test_last_step_and_size(store):
    assert last_step(store, "r1") == 4
    assert run_size(store, "r1") == sum(p.stat().st_size for p in store.run_dir("r1").rglob("*") if p.suffix in (".parquet", ".duckdb"))


def test_reward_curve_by_hand(tmp_path):
    rewards = [1.0, 3.0, None, 5.0, float("nan"), 7.0, 8.0]
    with RunWriter.open(tmp_path / "runs" / "r1") as writer:
        for step, reward in enumerate(rewards):
            tables = make_step_tables(step)
            at = tables["steps"].schema.get_field_index("reward_mean")
            writer.append_step({**tables, "steps": tables["steps"].set_column(at, "reward_mean", pa.array([reward], pa.float64()))})
    store = Store(tmp_path)
    whole = reward_curve(store, "r1", points=60)
    assert whole[:2] == [1.0, 3.0] and math.isnan(whole[2]) and whole[3] == 5.0 and math.isnan(whole[4]) and whole[5:] == [7.0, 8.0]
    assert reward_curve(store, "r1", points=2) == [3.0, 7.5]  # 1, 3, none, 5 | none, 7, 8
    assert reward_curve(store, "r1", points=1) == [24 / 5]


def test_quantiles_are_columns_and_missing_where_a_step_had_none(tmp_path):
    with RunWriter.open(tmp_path / "runs" / "r1") as writer:
        for step, quantiles in enumerate(([1.0, 2.0, 3.0, 4.0, 5.0], None, [0.0] * 5)):
            tables = make_step_tables(step)
            at = tables["steps"].schema.get_field_index("delta_sum_quantiles")
            column = pa.array([quantiles], tables["steps"].schema.field(at).type)
            writer.append_step({**tables, "steps": tables["steps"].set_column(at, tables["steps"].schema.field(at), column)})
    series = step_series(Store(tmp_path), "r1")
    np.testing.assert_array_equal(series["delta_q50"], [3, np.nan, 0])
    np.testing.assert_array_equal(series["delta_q95"], [5, np.nan, 0])

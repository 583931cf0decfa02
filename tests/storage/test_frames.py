"""One meaning per type on the way from DuckDB to pandas."""

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from storage.frames import frame_of, pivoted


def asked(sql: str) -> pa.Table:
    return duckdb.connect().sql(sql).to_arrow_table()


def test_missing_numbers_are_nan_and_all_else_that_misses_is_none() -> None:
    frame = frame_of(asked("from (values (1, 1, 0.5::float, true, 'a', [1], null), (2, null, null, null, null, null, null)) as t(a, b, c, d, e, f, g)"))
    assert frame["a"].dtype == "int32" and frame["b"].dtype == "float64" and frame["c"].dtype == "float32"
    assert frame["a"].tolist() == [1, 2] and frame["b"][0] == 1.0 and frame[["b", "c", "g"]].iloc[1].isna().all()
    assert frame["d"].tolist() == [True, None] and frame["e"].tolist() == ["a", None] and frame["f"][1] is None
    assert frame_of(asked("select true as a"))["a"].dtype == bool
    assert frame_of(asked("select sum(n) as a, 1.5::decimal(4, 2) as b from range(4) as t(n)")).iloc[0].tolist() == [6.0, 1.5]
    assert frame_of(asked("select 'x'::enum('x', 'y') as a, timestamp '2026-01-02' as b")).iloc[0].tolist() == ["x", pd.Timestamp("2026-01-02")]


def test_lists_are_arrays_that_may_be_written_to_and_maps_are_dicts() -> None:
    table = asked("""select [1, 2]::int[] as whole, [1, null]::int[] as some, [0.5, null]::float[] as floats, ['a', null] as texts, []::float[] as none,
                            map{'x': 1.5, 'y': null} as map, [{'a': 1, 'b': 'c'}] as rows, [[1], [2, 3]] as nested""")
    row = frame_of(table).iloc[0]
    assert row["whole"].dtype == "int32" and row["whole"].tolist() == [1, 2] and len(row["none"]) == 0
    np.testing.assert_array_equal(row["some"], [1, np.nan])
    np.testing.assert_array_equal(row["floats"], [0.5, np.nan])
    row["floats"][1] = 2.0
    assert row["texts"].tolist() == ["a", None] and row["map"] == {"x": 1.5, "y": None} and row["rows"].tolist() == [{"a": 1, "b": "c"}]
    assert [inner.tolist() for inner in row["nested"]] == [[1], [2, 3]]


@pytest.mark.parametrize("cut", [slice(0, 4), slice(1, 4), slice(2, 2)])
def test_a_part_of_a_table_is_its_rows_alone(cut: slice) -> None:
    """Arrow's slices share the buffers of the whole."""
    rows = [([1.0], {"a": 1.0}), ([2.0, 3.0], {"b": 2.0, "a": 3.0}), (None, None), ([], {"b": 4.0})]
    maps = [None if entries is None else list(entries.items()) for _, entries in rows]
    table = pa.table({"list": pa.array([values for values, _ in rows], pa.list_(pa.float32())), "map": pa.array(maps, pa.map_("string", "double"))})
    part = table.slice(cut.start, cut.stop - cut.start)
    frame = frame_of(part)
    assert [None if x is None else x.tolist() for x in frame["list"]] == [r[0] for r in rows[cut]] and frame["map"].tolist() == [r[1] for r in rows[cut]]
    for key, values in pivoted(part["map"]).items():
        np.testing.assert_array_equal(values, [np.nan if r[1] is None else r[1].get(key, np.nan) for r in rows[cut]])
    assert set(pivoted(part["map"])) == {key for r in rows[cut] for key in r[1] or {}}

"""Arrow → pandas with one meaning per type: missing numbers NaN, missing text, lists and flags None, lists numpy arrays, maps dicts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa


def frame_of(table: pa.Table) -> pd.DataFrame:
    """The table as a DataFrame.

    Whole numbers with missing ones among them and decimals become float64, times what pandas makes of them. What lies in lists and maps follows
    the same rules; numbers of a list come as a numpy array.
    """
    return pd.DataFrame({name: _series(column) for name, column in zip(table.column_names, table.columns)}, index=pd.RangeIndex(table.num_rows))


def pivoted(column: pa.ChunkedArray) -> dict[str, np.ndarray]:
    """A column of maps from text to numbers as one float64 array per key (N,), NaN in rows without it."""
    maps = _whole(column)
    sizes = np.diff(maps.offsets.to_numpy())
    first, last = maps.offsets[0].as_py(), maps.offsets[-1].as_py()
    row = np.repeat(np.arange(len(maps)), sizes)
    keys, values = (entries.slice(first, last - first) for entries in (maps.keys, maps.items))
    coded = keys.dictionary_encode()
    code, value = coded.indices.to_numpy(), values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    found = {}
    for n, key in enumerate(coded.dictionary.to_pylist()):
        found[key] = np.full(len(maps), np.nan)
        found[key][row[code == n]] = value[code == n]
    return found


def _series(column: pa.ChunkedArray) -> pd.Series:
    array, kind = _whole(column), column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return pd.Series(_numbers(array))
    if pa.types.is_boolean(kind) and not array.null_count:
        return pd.Series(array.to_numpy(zero_copy_only=False))
    if pa.types.is_temporal(kind):
        return array.to_pandas()
    return pd.Series(_objects(array), dtype=object)


def _objects(array: pa.Array) -> Sequence[object]:
    kind = array.type
    if pa.types.is_map(kind):
        return _maps(array)
    if pa.types.is_list(kind):
        return _lists(array)
    if pa.types.is_string(kind):
        return array.to_numpy(zero_copy_only=False)
    return array.to_pylist()


def _numbers(array: pa.Array) -> np.ndarray:
    whole = pa.types.is_integer(array.type) and not array.null_count
    if not (whole or pa.types.is_floating(array.type)):
        array = array.cast(pa.float64())
    return np.array(array.to_numpy(zero_copy_only=False))  # a copy, which may be written to


def _lists(array: pa.ListArray) -> list[np.ndarray | None]:
    kind, values = array.type.value_type, array.values
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        flat = _numbers(values)
    else:
        flat = np.empty(len(values), object)
        flat[:] = list(_objects(values))
    return [flat[first:last] if there else None for first, last, there in _bounds(array)]


def _maps(array: pa.MapArray) -> list[dict[str, object] | None]:
    keys, items = array.keys.to_pylist(), list(_objects(array.items)) if pa.types.is_nested(array.type.item_type) else array.items.to_pylist()
    return [dict(zip(keys[first:last], items[first:last])) if there else None for first, last, there in _bounds(array)]


def _bounds(array: pa.ListArray | pa.MapArray) -> zip[tuple[int, int, bool]]:
    """Where the values of each row begin and end, and whether the row is there."""
    offsets = array.offsets.to_pylist()
    return zip(offsets, offsets[1:], array.is_valid().to_pylist())


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """One array without seams; of text as `string`."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)

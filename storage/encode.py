"""Arrow tables to Parquet segments: rounded mantissas, encodings per column, row groups small enough to read one group fast."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.layout import PRECISION_KEY, VERSION_KEY
from storage.publish import publish
from storage.schema import SCHEMA_VERSION, Table

MANTISSA_BITS = {"rounded": 10, "half": 7, "exact": 23}
"""Bits of float32's 23 that each precision keeps: 10 is float16's resolution, 7 is bfloat16's; both keep float32's range."""

ROW_GROUP_BYTES = 8 << 20
"""Uncompressed. One group's tokens are read from one such row group, not from the whole file; smaller ones compress less and make long footers."""

FEW_ROWS = 16
"""Fewer rows in a new segment are compressed by snappy: zstd sets itself up anew for every column, which so few values never earn back. Merging uses zstd."""

PRUNED_BY = ("step", "group_index", "prompt_hash")
"""Columns with min and max per row group, by which readers skip row groups."""


def round_mantissa(values: np.ndarray, bits: int) -> np.ndarray:
    """float32 rounded to `bits` of mantissa, half to even; NaN, infinities and zeros stay, and nothing finite becomes infinite."""
    drop = 23 - bits
    if not drop:
        return values
    pattern = np.ascontiguousarray(values, "f4").view("u4")
    odd = (pattern >> drop) & 1
    keep = np.uint32(0xFFFFFFFF << drop & 0xFFFFFFFF)
    rounded = ((pattern + np.uint32((1 << (drop - 1)) - 1) + odd) & keep).view("f4")
    cut = (pattern & keep).view("f4")
    safe = np.where(np.isinf(rounded), cut, rounded)
    return np.where(np.isfinite(values), safe, values).astype("f4", copy=False)


def rounded(table: pa.Table, schema: Table, precision: str) -> pa.Table:
    """The table with its `rounded` columns (lists of float32) shortened to `precision`."""
    bits = MANTISSA_BITS[precision]
    for column in schema.columns:
        if column.rounded and bits < 23:
            chunks = [_round_lists(chunk, bits) for chunk in table[column.name].chunks]
            table = table.set_column(table.schema.get_field_index(column.name), column.name, pa.chunked_array(chunks, column.type))
    return table


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of one schema as one without seams: rounding and writing cost as much per chunk as per table."""
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables).combine_chunks()


def parquet_bytes(table: pa.Table, schema: Table, precision: str) -> bytes:
    """The table as the bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    write_parquet(sink, [table], schema, precision, codec="zstd" if table.num_rows >= FEW_ROWS else "snappy")
    return sink.getvalue().to_pybytes()


def write_parquet(where: Path | pa.NativeFile, tables: Iterable[pa.Table], schema: Table, precision: str, codec: str = "zstd") -> None:
    """Writes tables of one schema one after another into one file."""
    metadata = {VERSION_KEY: str(SCHEMA_VERSION), PRECISION_KEY: precision}
    arrow = schema.arrow
    split = [f"{c.name}.list.element" for c in schema.columns if c.rounded]
    with pq.ParquetWriter(
        where,
        arrow,
        compression=codec,
        write_page_checksum=True,
        use_dictionary=_repetitive(arrow) or False,
        use_byte_stream_split=split or False,
        write_statistics=[c.name for c in schema.columns if c.name in PRUNED_BY],
        store_schema=False,
    ) as writer:
        writer.add_key_value_metadata(metadata)
        for table, size in _packed(fitted(table, arrow) for table in tables):
            writer.write_table(table, row_group_size=max(1, table.num_rows * ROW_GROUP_BYTES // max(size, 1)))


def fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table in this schema's order and types; columns that an older schema did not have become empty."""
    if table.schema.equals(schema):
        return table
    columns = [table[f.name].cast(f.type) if f.name in table.schema.names else pa.nulls(table.num_rows, f.type) for f in schema]
    return pa.table(columns, schema=schema)


def publish_tables(folder: Path, name: str | Callable[[str], str], tables: Iterable[pa.Table], schema: Table, precision: str) -> Path:
    """A whole Parquet file or none; see `publish`. Raises DiskFull."""
    return publish(folder, name, lambda path: write_parquet(path, tables, schema, precision))


def _round_lists(lists: pa.ListArray, bits: int) -> pa.ListArray:
    values = lists.values
    validity, data = values.buffers()
    if data is None:
        return lists
    numbers = np.frombuffer(data, "f4", values.offset + len(values))
    shorter = pa.Array.from_buffers(pa.float32(), len(values), [validity, pa.py_buffer(round_mantissa(numbers, bits))], -1, values.offset)
    return pa.Array.from_buffers(lists.type, len(lists), lists.buffers()[:2], lists.null_count, lists.offset, [shorter])


def _packed(tables: Iterable[pa.Table]) -> Iterator[tuple[pa.Table, int]]:
    """Neighbours joined until they fill a row group, and their bytes."""
    waiting: list[pa.Table] = []
    filled = 0
    for table in tables:
        waiting.append(table)
        filled += table.get_total_buffer_size()  # `nbytes` looks into every column: a fifth of a merge's time
        if filled >= ROW_GROUP_BYTES:
            yield joined(waiting), filled
            waiting, filled = [], 0
    if waiting:
        yield joined(waiting), filled


@cache
def _repetitive(schema: pa.Schema) -> list[str]:
    """Parquet's names of the leaf columns worth a dictionary: text, and lists of integers such as token ids."""
    buffer = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), buffer)
    parquet = pq.ParquetFile(pa.BufferReader(buffer.getvalue())).schema
    leaves = [parquet.column(i) for i in range(len(parquet))]
    return [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" or (leaf.physical_type == "INT32" and "." in leaf.path)]

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.encode import FEW_ROWS, parquet_bytes, round_mantissa, rounded, write_parquet
from storage.schema import ROLLOUTS, SCHEMA_VERSION, STEPS
from tests.factories import make_step_tables

F32_MAX = np.finfo("f4").max


def test_rounding_by_hand():
    # between 1 and 2 a 10-bit mantissa has steps of 2**-10; a tie goes to the even neighbour
    step = 2.0**-10
    values = np.array([1 + 0.4 * step, 1 + 0.6 * step, 1 + 0.5 * step, 1 + 1.5 * step, -(1 + 0.6 * step), 1000.3], "f4")
    assert round_mantissa(values, 10).tolist() == [1.0, 1 + step, 1.0, 1 + 2 * step, -(1 + step), 1000.5]  # at 512..1024 a step is 0.5
    assert round_mantissa(np.array([1 + 2.0**-7 * 0.6], "f4"), 7).tolist() == [1 + 2.0**-7]


@pytest.mark.parametrize("bits", [7, 10, 23])
def test_rounding_keeps_special_values(bits):
    values = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, F32_MAX, -F32_MAX, 1e-45, 1.0], "f4")
    got = round_mantissa(values, bits)
    assert np.array_equal(np.isnan(got), np.isnan(values))
    assert got[2] == np.inf and got[3] == -np.inf
    assert np.isfinite(got[5:7]).all() and abs(got[5]) > 0.99 * F32_MAX
    assert np.signbit(got[1]) and got[1] == 0 == got[0] and got[8] == 1
    assert got.dtype == np.float32


def test_a_nan_of_any_pattern_stays_nan():
    patterns = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], "u4").view("f4")
    assert np.isnan(round_mantissa(patterns, 10)).all()


@pytest.mark.parametrize("bits", [7, 10])
def test_rounding_error_is_at_most_half_a_step(bits):
    values = np.random.default_rng(0).normal(0, 5, 10_000).astype("f4")
    assert np.max(np.abs(round_mantissa(values, bits) / values - 1)) <= 2.0 ** -(bits + 1)


def test_only_rounded_columns_change_and_missing_lists_stay_missing():
    table = make_step_tables(3)["rollouts"].slice(3)  # a slice has offsets into shared buffers
    short = rounded(table, ROLLOUTS, "half")
    for column in ROLLOUTS.columns:
        if not column.rounded:
            assert short[column.name].equals(table[column.name])
    before, after = table["entropy"].to_pylist(), short["entropy"].to_pylist()
    assert [len(row) for row in after] == [len(row) for row in before]
    assert np.allclose(np.concatenate(after), np.concatenate(before), rtol=2.0**-8) and after != before
    assert [row is None for row in short["logp_delta"].to_pylist()] == [row is None for row in table["logp_delta"].to_pylist()]
    assert rounded(table, ROLLOUTS, "exact").equals(table)


def test_a_list_with_missing_entries_keeps_them():
    lists = pa.array([[1.0001, None], None, [], [None, 2.0]], pa.list_(pa.float32()))
    table = make_step_tables(0, groups=1)["rollouts"]
    table = table.set_column(table.schema.get_field_index("entropy"), "entropy", lists)
    assert rounded(table, ROLLOUTS, "half")["entropy"].to_pylist() == [[1.0, None], None, [], [None, 2.0]]


def test_files_name_their_version_and_split_bytes_of_traces_only(tmp_path):
    write_parquet(tmp_path / "x.parquet", [make_step_tables(0)["rollouts"]], ROLLOUTS, "rounded")
    metadata = pq.read_metadata(tmp_path / "x.parquet")
    assert metadata.metadata[b"groupscope.schema_version"] == str(SCHEMA_VERSION).encode()
    assert metadata.metadata[b"groupscope.precision"] == b"rounded"
    columns = {metadata.row_group(0).column(i).path_in_schema: metadata.row_group(0).column(i) for i in range(metadata.num_columns)}
    split = {path.split(".")[0] for path, column in columns.items() if "BYTE_STREAM_SPLIT" in column.encodings}
    assert split == {c.name for c in ROLLOUTS.columns if c.rounded}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert columns["step"].statistics.max == 0


@pytest.mark.parametrize(("rows", "codec"), [(1, "SNAPPY"), (FEW_ROWS, "ZSTD")])
def test_a_segment_of_few_rows_is_compressed_fast_and_reads_the_same(rows, codec):
    table = pa.concat_tables([make_step_tables(step)["steps"] for step in range(rows)])
    file = pq.ParquetFile(pa.BufferReader(parquet_bytes(table, STEPS, "rounded")))
    assert file.metadata.row_group(0).column(0).compression == codec
    columns = ["step", "tokens", "reward_mean", "position_rows"]
    assert file.read(columns).to_pylist() == table.select(columns).to_pylist()


def test_row_groups_are_small_enough_to_read_one_group_of_a_merged_file(tmp_path):
    tables = [make_step_tables(step, groups=8, group_size=8, tokens=512)["rollouts"] for step in range(24)]  # about 1.1 MB of traces each
    write_parquet(tmp_path / "x.parquet", tables, ROLLOUTS, "rounded")
    metadata = pq.read_metadata(tmp_path / "x.parquet")
    assert metadata.num_rows == 24 * 64 and metadata.num_row_groups >= 3

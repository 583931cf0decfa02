"""docs/schema.md, made from schema.py: `python -m storage.docs` rewrites it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from storage.schema import BOOL, F32, F64, I8, I16, I32, I64, SCHEMA_VERSION, TABLES, TEXT, VIEWS, VOCABULARY, Table, View

PATH = Path(__file__).parents[1] / "docs" / "schema.md"

_SQL_TYPES = {F32: "FLOAT", F64: "DOUBLE", I8: "TINYINT", I16: "SMALLINT", I32: "INTEGER", I64: "BIGINT", TEXT: "VARCHAR", BOOL: "BOOLEAN"}

_OPENING = f"""# What a run records

Made from `storage/schema.py` (store version {SCHEMA_VERSION}) by `python -m storage.docs`; edit there, not here.

Every run has a `run.duckdb` that plain DuckDB opens from the first second, while the run trains as well as afterwards:

```python
import duckdb
run = duckdb.connect("groupscope-data/runs/<run>/run.duckdb", read_only=True)
run.sql("select step, reward_mean, entropy from steps order by step")
run.sql("select position, avg(entropy) from tokens where step = 42 group by position order by position")
```

Its tables are views on Parquet files by absolute path. A store that was moved is read by Groupscope as before; plain DuckDB finds
the files again once the run is resumed or `seal`ed (again). One file that stands alone is an export: `export RUN --format duckdb`.
Open it with `read_only=True`: a program that holds it for writing locks others out. [open-data.md](open-data.md) shows a notebook on a
live run, exports, and runs of another machine.

Empty (NULL) means not measured or not defined, never 0. `NaN` is stored as it was computed. Token traces are float32, shortened to
10 mantissa bits (`precision` rounded: relative error at most 2⁻¹¹), 7 bits (half: 2⁻⁸), or untouched (exact).
"""

_FILES = """## Files

`steps/`, `groups/` and `rollouts/` hold Parquet files of one step, `s<step>-<crc>.parquet`, or of several,
`c<first step>-<last step>-<since>-<crc>.parquet`: short steps are written together, and small files are later merged. Each is written
beside, flushed and renamed, `steps` last, so a step whose `steps` row is visible is whole. `<crc>` is the CRC-32
of the file. A merged file replaces the files it covers, which disappear some seconds after `<since>` (ms since 1970). A sealed run has
the same folders in `sealed/`, each with as few files as there can be of 256 MB. Steps that a
resume from an older checkpoint trained again, and what a killed writer left half done, are kept in `superseded/<n>/` in the same
form. `store.json` says which schema version wrote the run and whether it is sealed; `run.lock`
belongs to the one process that writes, `merging.lock` to the one beside it while that merges.

The files are plain Parquet: `select * from read_parquet('superseded/0/rollouts/*.parquet')`.
"""


def schema_markdown() -> str:
    """The whole of docs/schema.md."""
    sections = [_section(f"`{table.name}`", table) for table in (*TABLES.values(), VOCABULARY)]
    sections += [_section(f"`{view.name}` (view)", view) for view in VIEWS]
    return "\n".join([_OPENING, *sections, _FILES])


def _section(title: str, table: Table | View) -> str:
    rows = [(f"`{c.name}`", sql_type(c.type), c.unit, c.means + (" (rounded)" if c.rounded else "")) for c in table.columns]
    lines = ["| column | type | unit | meaning |", "|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    return f"## {title}\n\n{table.means}.\n\n" + "\n".join(lines) + "\n"


def sql_type(kind: pa.DataType) -> str:
    """The type's name in DuckDB; the nested rows of `steps` are too long to spell out."""
    if pa.types.is_list(kind):
        return "STRUCT[]" if pa.types.is_struct(kind.value_type) else f"{sql_type(kind.value_type)}[]"
    if pa.types.is_map(kind):
        return f"MAP({sql_type(kind.key_type)}, {sql_type(kind.item_type)})"
    return _SQL_TYPES[kind]


if __name__ == "__main__":
    PATH.write_text(schema_markdown(), encoding="utf-8")
    print(f"wrote {PATH}")

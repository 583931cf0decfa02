"""Adopts Parquet files into a DuckLake catalogue; run by an interpreter of its own, whose duckdb the extension fits, so it imports nothing of ours.

python ducklake_script.py      a request as JSON on stdin, which lakehouse.py makes; on stdout {"already": …} or {"error": …}
"""

from __future__ import annotations

import json
import re
import sys

NEEDED = {"postgres": "postgres_scanner", "sqlite": "sqlite_scanner"}


def main() -> None:
    request = json.load(sys.stdin)
    try:
        said = adopt(request)
    except ImportError as error:
        said = {"error": f"{error}", "missing": True}
    except Exception as error:  # told by whoever asked, in one sentence
        said = {"error": " ".join(str(error).split())[:500]}
    if "error" in said:
        said["error"] = re.sub(r"(?<=://)[^@\s]*(?=@)|(?<=password=)\S+", "***", said["error"])
    print(json.dumps(said))


def adopt(request: dict) -> dict:
    """Everything in one transaction: other users of the lake see the run whole or not at all."""
    import duckdb
    from duckdb_extensions import import_extension

    lake = duckdb.connect()
    kind = request["catalogue"].split(":")[0]
    for extension in ("ducklake", *([NEEDED[kind]] if kind in NEEDED else [])):
        import_extension(extension, con=lake)
        lake.execute(f"load {extension}")
    attach(lake, request["catalogue"], request["data_path"])
    lake.execute("use lake")
    schema, tables = request["schema"], request["tables"]
    if known(lake, schema) and all(listed(lake, schema, name) == sorted(table["files"]) for name, table in tables.items()):
        return {"already": True}
    lake.execute("begin")
    try:
        for name in tables if known(lake, schema) else ():
            lake.execute(f"drop table if exists {quoted(schema)}.{name}")
        lake.execute(f"create schema if not exists {quoted(schema)}")
        for name, table in tables.items():
            lake.execute(f"create table {quoted(schema)}.{name} ({table['columns']})")
            for path in table["files"]:
                lake.execute("call ducklake_add_data_files('lake', ?, ?, schema => ?, allow_missing => true)", [name, path, schema])
            found = list(lake.execute(f"select count(*)::bigint, sum({table['summed']})::bigint from {quoted(schema)}.{name}").fetchone())
            if found != table["figures"]:
                raise ValueError(f"table {name} in the lake has {found} rows and sum of {table['summed']}, and {table['figures']} in the run")
        for name in tables:
            runs = [
                row[0] for row in lake.execute("select schema_name from duckdb_tables() where database_name = 'lake' and table_name = ?", [name]).fetchall()
            ]
            each = [f"select {text(run)} as run_id, * from {quoted(run)}.{name}" for run in sorted(runs)]
            lake.execute(f"create or replace view main.{name} as {' union all by name '.join(each)}")
        lake.execute("commit")
    except BaseException:
        lake.execute("rollback")
        raise
    return {"already": False}


def attach(lake, catalogue: str, data_path: str) -> None:
    """The lake as it is, or a new one whose own files go to `data_path`."""
    try:
        lake.execute(f"attach {text('ducklake:' + catalogue)} as lake (create_if_not_exists false)")
    except Exception:
        lake.execute(f"attach {text('ducklake:' + catalogue)} as lake (data_path {text(data_path)})")


def known(lake, schema: str) -> bool:
    return lake.execute("select count(*) from duckdb_schemas() where database_name = 'lake' and schema_name = ?", [schema]).fetchone()[0] > 0


def listed(lake, schema: str, table: str) -> list[str]:
    return sorted(row[0] for row in lake.execute("select data_file from ducklake_list_files('lake', ?, schema => ?)", [table, schema]).fetchall())


def text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


if __name__ == "__main__":
    main()

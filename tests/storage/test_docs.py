import re

import duckdb
import pytest

from storage.docs import PATH, schema_markdown, sql_type
from storage.schema import TABLES, VIEWS, VOCABULARY
from storage.segments import RunWriter, seal
from tests.factories import make_step_tables


def test_the_page_is_current():
    assert PATH.read_text(encoding="utf-8") == schema_markdown(), "run `python -m storage.docs`"


def test_every_column_has_a_sentence_and_no_cell_breaks_the_grid():
    for table in (*TABLES.values(), VOCABULARY, *VIEWS):
        assert table.means and not table.means.endswith(".")
        for column in table.columns:
            assert column.means and not column.means.endswith(".") and "|" not in column.means + column.unit, column
            assert column.unit == column.unit.strip()
    rows = [line for line in schema_markdown().splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}


@pytest.mark.parametrize("sealed", [False, True])
def test_the_types_on_the_page_are_those_duckdb_reports(tmp_path, sealed):
    run_dir = tmp_path / "runs" / "r1"
    with RunWriter.open(run_dir) as writer:
        writer.append_step(make_step_tables(0))
    if sealed:
        seal(run_dir)
    with duckdb.connect(str(run_dir / "run.duckdb"), read_only=True) as database:
        for table in (*TABLES.values(), VOCABULARY, *VIEWS):
            described = [(name, kind) for name, kind, *_ in database.execute(f"describe {table.name}").fetchall()]
            told = [(c.name, sql_type(c.type)) for c in table.columns]
            assert [(name, "STRUCT[]" if kind.startswith("STRUCT") else kind) for name, kind in described] == told


def test_the_examples_on_the_page_run(tmp_path):
    run_dir = tmp_path / "groupscope-data" / "runs" / "r1"
    with RunWriter.open(run_dir) as writer:
        writer.append_step(make_step_tables(42))
    (code,) = re.findall(r"```python\n(.*?)```", schema_markdown(), re.DOTALL)
    lines = code.replace("groupscope-data/runs/<run>", str(run_dir)).splitlines()
    scope: dict = {}
    exec("\n".join(lines[:2]), scope)
    assert [len(eval(line, scope).df()) for line in lines[2:]] == [1, 16]

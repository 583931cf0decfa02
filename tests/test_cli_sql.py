"""`python -m grpo_core sql`: text, CSV and JSON, limits, and errors on one line with their exit codes."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from grpo_core.cli import main
from storage.reader import Store
from tests.pages.seeded import make_run


@pytest.fixture
def run_id(store_root: Path) -> str:
    make_run(store_root, {"name": "first", "steps": 4}, recorded=2, state="finished")
    make_run(store_root, {"name": "second", "steps": 4, "seed": 3}, recorded=3, state="running")
    return Store(store_root).run_ids()[-1]


def test_a_table_over_the_newest_run(run_id: str, capsys) -> None:
    assert main(["sql", "select step, 'a\x1b[31m' || chr(10) as odd, null as none, 0.1::float as share from steps order by step", "--limit", "1"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0].split() == ["step", "odd", "none", "share"]
    assert said.out.splitlines()[1].split() == ["0", r"a\x1b[31m\n", "0.1"]
    assert f"over the newest run, {run_id}" in said.err and "there are more, --limit 10 shows more of them" in said.err


def test_json_and_csv_over_named_runs(run_id: str, capsys) -> None:
    query = "select run_id, count(*) as n, max(reward_parts) as parts, 'nan'::double as gone from steps group by run_id order by n"
    assert main(["sql", query, "--run", "first", "--run", "second", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["n"] for row in said["rows"]] == [2, 3] and said["run_ids"] == [row["run_id"] for row in said["rows"]]
    assert said["cut"] == "" and said["rows"][0]["gone"] is None and "exact" in said["rows"][0]["parts"]
    assert main(["sql", query, "--run", "second", "--csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["run_id"] == said["run_ids"][1] and "exact" in json.loads(row["parts"])


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["select foo from steps"], 2, 'error: Binder Error: Referenced column "foo" not found'),
        (["copy steps to '/tmp/out.csv'"], 2, "error: COPY is not allowed"),
        (["from read_text('/etc/passwd')"], 2, "error: read_text() is not allowed"),
        (["select 1", "--run", "third"], 1, "error: no run 'third'"),
        (["select 1", "--csv", "--json"], 2, "error: --json and --csv exclude each other"),
        (["select 1", "--limit", "0"], 2, "error: Invalid value for '--limit'"),
        (["select sleep_ms(60_000)", "--timeout", "0.2"], 1, "error: the query took longer than its 0.2 s"),
    ],
)
def test_errors_are_one_line(run_id: str, capsys, arguments: list[str], code: int, sentence: str) -> None:
    assert main(["sql", *arguments]) == code
    assert capsys.readouterr().err.splitlines()[-1].startswith(sentence)


def test_an_empty_store_says_how_to_start(store_root: Path, capsys) -> None:
    assert main(["sql", "select 1"]) == 1
    assert "start one with" in capsys.readouterr().err

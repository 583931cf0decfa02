"""The page SQL: asking, cutting, cancelling, saving, and that nothing runs or renders by itself."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from storage.catalog import Catalog
from storage.queries.examples import EXAMPLES
from storage.reader import Store
from storage.sql import answer
from tests.pages.looking import words_of
from tests.pages.seeded import PAYLOADS, make_run

ENDLESS = "select sum(a.range * b.range) from range(1_000_000) a, range(1_000_000) b"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_run(tmp_path, {"name": "short", "steps": 4, "group_size": len(PAYLOADS)}, recorded=3, state="finished", payloads=True)
    return tmp_path


@pytest.fixture
def run_id(root: Path) -> str:
    return Store(root).run_ids()[0]


def press(app: AppTest) -> AppTest:
    """Presses Run and looks until the answer is there."""
    app.button(key="sql.run").click().run()
    until = time.monotonic() + 120
    while "sql.running" in app.session_state and time.monotonic() < until:
        time.sleep(0.2)
        app.run()
    assert not app.exception
    return app


def test_a_query_from_an_address_waits_for_run(root: Path, run_id: str, open_page) -> None:
    app = open_page(root, "sql", run=run_id, q="select step, reward_mean from steps order by step")
    assert app.text_area(key="sql.text").value.startswith("select step") and not app.dataframe[1:]
    assert "No answer yet" in words_of(app) and "sql.running" not in app.session_state
    press(app)
    rows = app.dataframe[-1].value
    assert list(rows.columns) == ["step", "reward_mean"] and rows["step"].tolist() == [0, 1, 2]
    assert "3 rows** in" in words_of(app) and "cut" not in words_of(app)


def test_rows_beyond_the_limit_are_cut_and_said(root: Path, run_id: str, open_page) -> None:
    app = open_page(root, "sql", run=run_id, q="from range(101)")
    app.selectbox(key="sql.limit").select(100).run()
    assert "100 rows** in" in words_of(press(app)) and "cut at 100, there are more" in words_of(app)
    app.text_area(key="sql.text").set_value("from range(100)").run()
    assert "it has changed since" in words_of(app) and app.query_params["q"] == "from range(100)"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("select foo from steps", 'Referenced column "foo" not found'),
        ("from read_text('/etc/passwd')", "read_text() is not allowed"),
        ("delete from steps", "DELETE is not allowed"),
        ("", "the query is empty"),
    ],
)
def test_what_is_wrong_is_one_sentence(root: Path, run_id: str, open_page, text: str, sentence: str) -> None:
    app = press(open_page(root, "sql", run=run_id, q=text))
    assert sentence in app.error[0].value.replace("\\", "")
    assert not text.startswith("select foo") or "LINE 1" in app.code[0].value


def test_a_running_query_can_be_cancelled(root: Path, run_id: str, open_page) -> None:
    app = open_page(root, "sql", run=run_id, q=ENDLESS)
    assert app.button(key="sql.cancel").disabled
    app.button(key="sql.run").click().run()
    assert app.info[0].value.startswith("Running for ") and app.button(key="sql.run").disabled
    app.button(key="sql.cancel").click().run()
    app.run()
    assert app.error[0].value == "the query was cancelled" and not app.button(key="sql.run").disabled


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title)
def test_every_example_answers(seeded, example) -> None:
    root, runs = seeded
    assert answer(Store(root), [runs["healthy"]], example.text, limit=100).table.num_rows > 0


def test_an_example_is_put_into_the_field(root: Path, run_id: str, open_page) -> None:
    app = open_page(root, "sql", run=run_id)
    app.selectbox(key="sql.example").select(2).run()
    assert app.text_area(key="sql.text").value == EXAMPLES[2].text and EXAMPLES[2].means in words_of(app)
    assert "sql.running" not in app.session_state


def test_queries_are_saved_replaced_and_deleted(root: Path, run_id: str, open_page) -> None:
    app = open_page(root, "sql", run=run_id, q="select 1")
    app.text_input(key="sql.name").set_value(PAYLOADS[0]).run()
    app.button(key="sql.save").click().run()
    assert Catalog(root).queries() == {PAYLOADS[0]: "select 1"}
    app.text_area(key="sql.text").set_value("select 2").run()
    assert app.button(key="sql.save").label == "Replace" and "saving replaces that" in words_of(app)
    app.button(key="sql.open.0").click().run()
    assert app.text_area(key="sql.text").value == "select 1"
    app.button(key="sql.forget.0").click().run()
    assert Catalog(root).queries() and "for good?" in words_of(app)
    app.button(key="sql.forget").click().run()
    assert Catalog(root).queries() == {} and not app.exception


def test_several_runs_are_asked_together(root: Path, run_id: str, open_page) -> None:
    other = make_run(root, {"name": "other", "steps": 4}, recorded=2, state="running")
    app = press(open_page(root, "sql", run=run_id, also=other, q="select run_id, count(*) as n from steps group by run_id"))
    assert dict(app.dataframe[-1].value.itertuples(index=False)) == {run_id: 3, other: 2}


def test_model_text_stays_text(root: Path, run_id: str, open_page) -> None:
    app = press(open_page(root, "sql", run=run_id, q="select text, reward_parts from rollouts"))
    assert PAYLOADS[0] in app.dataframe[-1].value["text"].tolist()
    assert not any("pwned" in element.value for kind in ("markdown", "caption") for element in app.get(kind))


def test_columns_are_found_by_their_meaning(root: Path, run_id: str, open_page) -> None:
    app = open_page(root, "sql", run=run_id)
    app.text_input(key="sql.words").set_value("completion TOKEN id").run()
    found = app.dataframe[0].value
    assert "token_ids" in found["column"].tolist() and len(found) < 20
    app.text_input(key="sql.words").set_value("nosuchthing").run()
    assert "No column fits" in words_of(app)

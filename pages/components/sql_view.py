"""The parts of the page SQL: the query with its examples and saved ones, what there is to ask for, and the answer."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import streamlit as st

from pages.components import data, empty, url
from pages.components.data import Run
from pages.components.text import counted, escape
from storage.docs import sql_type
from storage.errors import QueryRefused, QueryStopped, StoreError
from storage.queries.examples import EXAMPLES
from storage.schema import TABLES, VIEWS, VOCABULARY
from storage.sql import EXAMPLE, LONGEST, Answer, csv_bytes, flat, parquet_bytes, plan
from storage.sql_process import RunningQuery

MEANS = "One SELECT in DuckDB's dialect over what runs recorded. It can read these tables and do nothing else: no files, no writes, no settings."
LOOK_S = 0.5
TIMEOUT_S = 30.0
LIMITS = (100, 1000, 10_000)
TEXT, RUNS, LIMIT, RUNNING, DONE = "sql.text", "sql.runs", "sql.limit", "sql.running", "sql.done"


@dataclass(frozen=True, slots=True)
class Asked:
    """A query as it was run."""

    text: str
    run_ids: tuple[str, ...]
    limit: int


@dataclass(frozen=True, slots=True)
class Done:
    """What became of it: its rows, or the error."""

    asked: Asked
    answer: Answer | None
    error: StoreError | None


def runs_picker(run: Run) -> list[str]:
    """The runs to ask: the one in the address and those beside it."""
    known = data.run_ids()
    names = data.catalog().annotations().set_index("run_id")["name"]
    chosen = [run.run_id, *(one for one in url.words("also", known) if one != run.run_id)]
    url.show(RUNS, chosen)

    def write() -> None:
        picked = st.session_state[RUNS] or [run.run_id]
        url.put(run=picked[0], also=picked[1:])

    st.multiselect(
        "Runs",
        known,
        key=RUNS,
        on_change=write,
        format_func=lambda run_id: f"{names[run_id]} · {run_id}" if names.get(run_id) else run_id,
        help="Each table has the rows of all of them; the column run_id tells them apart.",
    )
    return chosen


def editor(run_ids: list[str]) -> None:
    """The query, what starts and stops it, and where to get one from."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.selectbox(
            "Examples",
            range(len(EXAMPLES)),
            index=None,
            key="sql.example",
            format_func=lambda n: EXAMPLES[n].title,
            on_change=_take_example,
            placeholder="Begin with an example",
            width=340,
        )
        _saved()
    changed = url.sync("q", TEXT, st.query_params.get("q", ""), default="")
    if (text := st.session_state[TEXT]) and (example := next((one for one in EXAMPLES if one.text == text), None)):
        st.caption(f"{escape(example.title)}\\: {escape(example.means)}.")
    st.text_area("Query", key=TEXT, on_change=changed, height=190, max_chars=LONGEST, placeholder=EXAMPLE)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        running = is_running()
        st.button("Run", type="primary", icon=":material/play_arrow:", key="sql.run", on_click=_run, args=(run_ids,), disabled=running)
        st.button("Cancel", icon=":material/stop:", key="sql.cancel", on_click=_cancel, disabled=not running)
        st.selectbox(
            "Rows at most", LIMITS, index=1, key=LIMIT, width=150, label_visibility="collapsed", format_func=lambda n: f"up to {n:,} rows",
            help=f"More are cut off, and the answer says so. A query has {TIMEOUT_S:.0f} seconds.",
        )  # fmt: skip


def _take_example() -> None:
    if (n := st.session_state["sql.example"]) is not None:
        url.put(q=EXAMPLES[n].text)


def _saved() -> None:
    """Queries that people kept in this store: open, keep, replace, forget."""
    kept = data.catalog().queries()
    with st.popover("Saved", icon=":material/bookmark:", help="Queries kept in this store, for everyone who uses it."):
        for n, (name, text) in enumerate(kept.items()):
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                st.button(escape(name), key=f"sql.open.{n}", type="tertiary", on_click=lambda text=text: url.put(q=text), width="stretch")
                st.button("", key=f"sql.forget.{n}", icon=":material/delete:", type="tertiary", help="Delete", on_click=_ask_to_forget, args=(name,))
        if (doomed := st.session_state.get("sql.doomed")) in kept:
            st.warning(f"Delete {escape(doomed)} for good?", icon=":material/delete:")
            st.button("Delete", key="sql.forget", on_click=lambda: data.catalog().delete_query(doomed))
        if not kept:
            st.caption("Nothing is saved yet. Write a query, name it here, and it is kept for everyone who uses this store.")
        name = st.text_input("Name", key="sql.name", max_chars=80, placeholder="Name of the query above").strip()
        text = st.session_state.get(TEXT, "").strip()
        taken = name in kept and kept[name] != text
        if taken:
            st.warning(f"{escape(name)} is kept with another text; saving replaces that.", icon=":material/edit_note:")
        st.button(
            "Replace" if taken else "Save",
            key="sql.save",
            icon=":material/bookmark_add:",
            disabled=not name or not text,
            on_click=lambda: data.catalog().save_query(name, text),
        )


def _ask_to_forget(name: str) -> None:
    st.session_state["sql.doomed"] = name


@st.cache_data(show_spinner=False)
def _columns() -> pd.DataFrame:
    rows = [("every table", "run_id", "VARCHAR", "", "the run; join tables with using (run_id, …) when several are chosen")]
    for table in (*TABLES.values(), VOCABULARY, *VIEWS):
        rows += [(table.name, column.name, sql_type(column.type), column.unit, column.means) for column in table.columns]
    return pd.DataFrame(rows, columns=["table", "column", "type", "unit", "meaning"])


def schema() -> None:
    """Every table and column one can ask for, folded away."""
    with st.expander("Tables and columns", icon=":material/schema:"):
        columns = _columns()
        typed = st.text_input("Search", key="sql.words", type="search", live=True, placeholder="Column, unit or meaning, e.g. entropy", width=360)
        words = typed.lower().split()
        lines = columns.agg(" ".join, axis=1).str.lower()
        found = columns[[all(word in line for word in words) for line in lines]]
        if found.empty:
            st.caption("No column fits; try one word, such as reward.")
            return
        widths = {
            "table": st.column_config.TextColumn("Table", width=100),
            "column": st.column_config.TextColumn("Column", width=170),
            "type": st.column_config.TextColumn("Type", width=130),
            "unit": st.column_config.TextColumn("Unit", width=110),
            "meaning": st.column_config.TextColumn("Meaning", width="large"),
        }
        st.dataframe(found, hide_index=True, height=320, column_config=widths, alt="Tables and columns")


def is_running() -> bool:
    """Whether a query of this session is on its way, or its answer not taken yet."""
    return RUNNING in st.session_state


def waiting() -> bool:
    """Says how long a query runs; takes its answer once it is there."""
    if not is_running():
        return False
    asked, query = st.session_state[RUNNING]
    if not query.done():
        st.info(f"Running for {query.seconds:.0f} s of at most {TIMEOUT_S:.0f}. Cancel ends it at once.", icon=":material/hourglass_top:")
        return True
    del st.session_state[RUNNING]
    try:
        st.session_state[DONE] = Done(asked, query.answer(), None)
    except StoreError as error:
        st.session_state[DONE] = Done(asked, None, error)
    st.rerun()


def _run(run_ids: list[str]) -> None:
    """Starts what is in the field. The page never does by itself: an address may come from anyone."""
    asked = Asked(st.session_state[TEXT], tuple(run_ids), st.session_state[LIMIT])
    st.session_state.pop(DONE, None)
    try:
        query = RunningQuery(data.root(), asked.run_ids, asked.text, limit=asked.limit, timeout_s=TIMEOUT_S)
        st.session_state[RUNNING] = (asked, query)
    except StoreError as error:
        st.session_state[DONE] = Done(asked, None, error)


def _cancel() -> None:
    if is_running():
        st.session_state[RUNNING][1].cancel()


def result() -> None:
    """The answer to the last query, or what will be here."""
    done: Done | None = st.session_state.get(DONE)
    if done is None:
        asked = "Press Run to see the rows of the query above." if st.session_state.get(TEXT) else "Write a query or begin with an example, then press Run."
        empty.nothing("No answer yet", f"{asked} A query that comes with an address waits for that, too.")
        return
    if done.error is not None:
        stopped = isinstance(done.error, QueryStopped)
        st.error(escape(str(done.error)), icon=":material/timer_off:" if stopped else ":material/error:")
        if isinstance(done.error, QueryRefused) and done.error.place:
            st.code(done.error.place, language=None)
        return
    table, asked = done.answer.table, done.asked
    if (explained := plan(table)) is not None:
        st.code(explained, language=None)
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**{counted(table.num_rows, 'row')}** in {done.answer.seconds:.2f} s{_cut(done)}", width="stretch")
        if table.num_columns and table.num_rows:
            st.download_button("CSV", lambda: csv_bytes(table), "query.csv", "text/csv", icon=":material/download:", key="sql.csv", on_click="ignore")
            st.download_button(
                "Parquet", lambda: parquet_bytes(table), "query.parquet", "application/vnd.apache.parquet", icon=":material/download:",
                key="sql.parquet", on_click="ignore",
            )  # fmt: skip
    if asked.text != st.session_state.get(TEXT) or list(asked.run_ids) != st.session_state.get(RUNS):
        st.caption("This answers the query as it was when you pressed Run; it has changed since.")
    if not table.num_rows:
        empty.nothing("The query found no rows", "It ran without an error; nothing that was recorded fits it.")
        return
    st.dataframe(flat(table).to_pandas(), hide_index=True, alt="The rows of the query", height="content" if table.num_rows <= 12 else 460)


def _cut(done: Done) -> str:
    if done.answer.cut == "rows":
        return f" · cut at {done.asked.limit:,}, there are more"
    return " · cut, because the answer grew too large: name fewer columns" if done.answer.cut else ""

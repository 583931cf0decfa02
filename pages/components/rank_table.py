"""A table of rows to compare and open: headings that say what they mean, bars in cells, sorting in the browser. Text enters as text only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from pages.components.assets import script
from pages.components.text import UNKNOWN, fixed, number, percent

SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column. `kind`: code (text as it is), phrase (our own words), chip ({text, tone, icon} cells), whole, number, signed, share (a bar from 0 to 1),
    balance (a bar left or right of 0). A column with `leaves` (440, 560 or 800) is left out of a table narrower than so many pixels."""

    name: str
    title: str
    means: str
    kind: str = "number"
    decimals: int = 2
    leaves: int = 0


_HTML = """
<div class="frame" tabindex="0" role="region"></div>
"""
_mount = st.components.v2.component("rank_table", html=_HTML, css=script("base.css") + script("rank_table.css"), js=script("dom.js") + script("rank_table.js"))


def rank_table(
    rows: pd.DataFrame,
    columns: Sequence[Column],
    *,
    key: str,
    label: str,
    ids: Sequence[object],
    hrefs: Sequence[str] = (),
    chosen: object = None,
    height: int = 420,
    on_row: Callable[[str], None] = lambda row: None,
) -> str | None:
    """Draw the first `SHOWN` rows; returns the id of the row just clicked, which `on_row` is given before the page runs.

    Rows with `hrefs` also open in a new tab.
    """
    scales = {column.name: _scale(rows, column) for column in columns}
    shown = rows.head(SHOWN)
    cells = [
        [_cell(value, column, scales[column.name]) for value, column in zip(row, columns)] for row in shown[[c.name for c in columns]].itertuples(index=False)
    ]
    data = {
        "label": label,
        "height": height,
        "columns": [{"title": column.title, "means": column.means, "kind": column.kind, "leaves": column.leaves} for column in columns],
        "rows": [
            {"id": str(ids[n]), "href": hrefs[n] if len(hrefs) else "", "chosen": str(ids[n]) == str(chosen), "cells": row} for n, row in enumerate(cells)
        ],
    }
    return _mount(key=key, data=data, on_row_change=lambda: on_row(st.session_state[key].row)).row


def _scale(rows: pd.DataFrame, column: Column) -> float:
    """The largest |value| of a column drawn as a balance bar."""
    if column.kind != "balance":
        return 1.0
    known = rows[column.name].abs().max()
    return float(known) if known > 0 else 1.0


def _cell(value: object, column: Column, scale: float) -> dict:
    """What the browser draws: text, what to sort by, and where a bar ends in [−1, 1]."""
    if column.kind == "chip":
        return {"chip": value, "sort": value["text"]}
    if column.kind in ("code", "phrase"):
        return {"text": str(value), "sort": str(value)}
    if value is None or pd.isna(value):
        return {"text": UNKNOWN if column.kind != "whole" else "–", "sort": None, "missing": True}
    value = round(float(value), column.decimals) + 0.0 if column.kind in ("signed", "balance") else float(value)
    text = {
        "whole": lambda: f"{value:.0f}",
        "number": lambda: fixed(value, column.decimals),
        "signed": lambda: fixed(value, column.decimals, sign=value != 0),
        "balance": lambda: fixed(value, column.decimals, sign=value != 0),
        "share": lambda: percent(value) if column.decimals == 0 else f"{number(100 * value, 2)}\u00a0%",
    }[column.kind]()
    return {"text": text, "sort": value, "bar": value / scale} if column.kind in ("share", "balance") else {"text": text, "sort": value}

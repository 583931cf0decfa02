"""What each signal said at every step: one row per signal, one cell per step, coloured by level."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from grpo_core.diagnosis.levels import Level, Signal
from grpo_core.diagnosis.report import Report
from pages.components import charts, nav, series
from pages.components.data import Run
from pages.components.levels import FILLS
from pages.components.live_plot import live_plot
from pages.components.text import counted, escape

Array = np.ndarray

CELLS = 400
"""More steps than this share cells; a cell then shows the worst level among its steps."""
FEW = 60
"""Up to so many columns are set apart; more would turn into stripes on a narrow screen."""
LABELS = 12
ROW, TOP, BOTTOM = 21, 34, 34
MEANS = "The level of each signal as it was known at that step. Read from left to right: what turned first, and what followed. Click a cell to open its step."


def timeline(run: Run, report: Report, steps: pd.DataFrame) -> None:
    """Draw the strip; a click on a cell opens the run at that step."""
    rows = ordered(report.signals)
    st.markdown("**When it began**" if report.level >= Level.WATCH else "**Signals over the run**", help=MEANS)
    if not rows:
        st.caption("No signal has an answer yet.")
        return
    recorded = steps["step"].to_numpy()[: len(rows[0].levels)]
    drawn = charts.figure_json(figure(rows, recorded, report.since_step))
    alt = f"Levels of {counted(len(rows), 'signal')} over {counted(len(recorded), 'step')}"
    height = TOP + BOTTOM + ROW * len(rows)
    step = live_plot(drawn, key="diagnosis.timeline", height=height, alt=alt, link=f"{run.run_id} levels", on_step=lambda: None)
    if step is not None:
        nav.goto(nav.RUN, run=run.run_id, step=step)
    told = [] if report.since_step is None else [f"Dotted line: step {report.since_step}, where the present trouble began."]
    width = series.buckets(np.zeros(len(recorded)), CELLS).width
    told += [f"One cell stands for {width} steps and shows the worst of them."] if width > 1 else []
    if told:
        st.caption(escape(" ".join(told)))


def ordered(signals: tuple[Signal, ...]) -> list[Signal]:
    """The signals that ever had an answer: those now off first, in the order in which they turned, then the rest as they are."""
    known = [signal for signal in signals if len(signal.levels) and signal.levels.max() > Level.NOT_AVAILABLE]
    return sorted(
        known, key=lambda signal: (signal.level < Level.WATCH, signal.since_step if signal.level >= Level.WATCH and signal.since_step is not None else 0)
    )


def figure(rows: list[Signal], recorded: Array, since: int | None) -> dict:
    """The strip as a Plotly figure in the manner of charts.figure; `recorded` (S,) are the steps of the levels."""
    edges, cells = _cells(np.stack([row.levels for row in rows]).astype(int), recorded)
    words = {int(level): level.word for level in Level}
    return {
        "data": [
            {
                "type": "heatmap",
                "x": edges,
                "y": [row.title for row in rows],
                "z": [[None if cell is None else cell[1] for cell in row] for row in cells],
                "customdata": [[None if cell is None else [cell[0], words[cell[1]]] for cell in row] for row in cells],
                "hovertemplate": "<b>%{y}</b><br>step %{customdata[0]}: %{customdata[1]}<extra></extra>",
                "hoverongaps": False,
                "ygap": 2,
                "xgap": 1 if len(edges) <= FEW else 0,
                "zmin": -1.5,
                "zmax": 3.5,
                "colorscale": _colourscale(),
                "colorbar": _legend(words),
            }
        ],
        "layout": {
            "height": TOP + BOTTOM + ROW * len(rows),
            "margin": {"l": 8, "r": 12, "t": TOP, "b": BOTTOM},
            "uirevision": "levels",
            "showlegend": False,
            "hovermode": "closest",
            "dragmode": "zoom",
            "xaxis": _few(edges) | {"showgrid": False, "nticks": LABELS, "range": [edges[0], edges[-1]], "tickformat": "d", "anchor": "y"},
            "yaxis": {"autorange": "reversed", "automargin": True, "showgrid": False, "fixedrange": True, "ticks": "", "tickfont": {"size": 12}},
            "shapes": [] if since is None else [_since(since)],
        },
    }


def _cells(levels: Array, recorded: Array) -> tuple[list[float], list[list]]:
    """Edges of the columns (C + 1,), and for every signal C cells: None over unrecorded steps, else (step, level), the worst of the cell's steps."""
    gaps = np.diff(recorded, prepend=recorded[:1] - 1) - 1
    drawn = series.buckets(gaps, CELLS)
    edges, columns = [], []
    for first, end in zip(drawn.starts, drawn.ends, strict=True):
        left = float(recorded[first]) - 0.5
        if edges and left > edges[-1]:
            columns.append([None] * len(levels))
        if not edges or left > edges[-1]:
            edges.append(left)
        edges.append(float(recorded[end - 1]) + 0.5)
        worst = levels[:, first:end].argmax(axis=1)
        columns.append([(int(recorded[first + at]), int(levels[row, first + at])) for row, at in enumerate(worst)])
    return edges, [list(row) for row in zip(*columns, strict=True)]


def _few(edges: list[float]) -> dict:
    """The axis of few steps labels whole steps; by itself Plotly would label halves, rounded to the steps beside them."""
    return {"dtick": 1} if edges[-1] - edges[0] < LABELS else {}


def _colourscale() -> list[list]:
    """Plotly's way to say five plain colours."""
    return [[edge, f"@{FILLS[level]}"] for level in sorted(FILLS) for edge in ((level + 1) / len(FILLS), (level + 2) / len(FILLS))]


def _legend(words: dict[int, str]) -> dict:
    return {
        "orientation": "h", "x": 0, "xanchor": "left", "xpad": 0, "y": 1, "yanchor": "bottom", "ypad": 4, "thickness": 9, "lenmode": "pixels", "len": 360,
        "outlinewidth": 0, "ticks": "", "tickvals": sorted(words), "ticktext": [words[level] for level in sorted(words)], "tickfont": {"size": 11.5},
    }  # fmt: skip


def _since(step: int) -> dict:
    edge = step - 0.5
    return {"type": "line", "xref": "x", "yref": "paper", "x0": edge, "x1": edge, "y0": 0, "y1": 1, "line": {"width": 1.5, "dash": "dot", "color": "@text/0.8"}}

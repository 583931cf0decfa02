"""Charts that are not curves over steps: bars over token positions, a matrix of rollouts, prompts as bubbles. Plain Plotly dictionaries.

Colours are names that live_plot.js resolves in the reader's theme; see charts.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pages.components.charts import figure_json
from pages.components.live_plot import live_plot
from pages.components.text import fixed

Array = np.ndarray
DIVERGING = [[0, "@c1/0.55"], [0.5, "@background"], [1, "@c0/0.55"]]
RISING = [[0, "@gray/0.25"], [1, "@c3"]]


def draw(figure: dict, *, key: str, alt: str) -> None:
    """Draw a figure in place; nothing happens on a click."""
    live_plot(figure_json(figure), key=key, height=figure["layout"]["height"], alt=alt, link=key, on_step=lambda: None)


def position_bars(first: Array, last: Array, share: Array, shown: Sequence[str]) -> dict:
    """A share of tokens per bin of token position; `shown` is what each bar says under the pointer."""
    bars = {
        "type": "bar",
        "x": (first + last).astype("f8") / 2,
        "y": share.astype("f4"),
        "width": (last - first + 1).astype("f8"),
        "text": list(shown),
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": "@c3/0.75", "line": {"width": 1, "color": "@background"}},
    }
    return {
        "data": [bars],
        "layout": _layout(200, "Token position in the completion, from 0", "")
        | {"yaxis": {"tickformat": ".0%", "rangemode": "tozero", "automargin": True, "nticks": 5}},
    }


def matrix(values: Array, labels: Sequence[str]) -> dict:
    """Values from −1 to 1 of every two rows (R, R), written into the cells while there is room."""
    rounded = values.round(1) + 0.0
    size = min(90 + 34 * len(labels), 640)
    cells = {
        "type": "heatmap",
        "z": values.astype("f8"),
        "x": list(labels),
        "y": list(labels),
        "zmin": -1,
        "zmax": 1,
        "colorscale": DIVERGING,
        "xgap": 2,
        "ygap": 2,
        "hoverongaps": False,
        "hovertemplate": "%{y} and %{x}: cosine %{z:+.2f}<extra></extra>",
        "colorbar": {"thickness": 10, "len": 0.9, "tickvals": [-1, 0, 1], "ticktext": ["−1 opposite", "0", "+1 the same"], "outlinewidth": 0},
        **(
            {
                "text": [[fixed(value, 1, sign=abs(value) >= 0.05) for value in row] for row in rounded],
                "texttemplate": "%{text}",
                "textfont": {"size": 11, "color": "@text"},
            }
            if len(labels) <= 16
            else {}
        ),
    }
    layout = _layout(size, "", "") | {"xaxis": {"side": "top", "type": "category", "showgrid": False}}
    layout["yaxis"] = {"type": "category", "autorange": "reversed", "automargin": True, "showgrid": False}
    layout["margin"] = {"l": 8, "r": 8, "t": 40, "b": 8}
    return {"data": [cells], "layout": layout}


def bubbles(x: Array, y: Array, count: Array, score: Array, shown: Sequence[str], *, top: float) -> dict:
    """Bins of prompts: place (x, y), area by count, colour by score from 0 to `top`."""
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": x.astype("f8"),
        "y": y.astype("f8"),
        "text": list(shown),
        "hovertemplate": "%{text}<extra></extra>",
        "cliponaxis": False,
        "marker": {
            "size": (6 + 30 * np.sqrt(count / max(count.max(initial=1), 1))).astype("f8"),
            "color": score.astype("f8"),
            "cmin": 0,
            "cmax": top,
            "colorscale": RISING,
            "opacity": 0.9,
            "line": {"width": 1, "color": "@background"},
            "colorbar": {"title": {"text": "VPS", "side": "top"}, "thickness": 10, "len": 0.9, "outlinewidth": 0, "nticks": 5},
        },
    }
    layout = _layout(340, "Share of rollouts that were correct", "Diversity, 1 − self-BLEU")
    layout["xaxis"] |= {"range": [-0.06, 1.06], "tickformat": ".0%"}
    room = 0.07 * float(y.max(initial=0.05))
    layout["yaxis"] |= {"range": [-room, float(y.max(initial=0.05)) + room], "tickformat": ".2~f"}
    return {"data": [points], "layout": layout}


def history(step: Array, curves: dict[str, tuple[Array, str]], *, shares: bool = True) -> dict:
    """Points over training steps, one colour each: {name: (values, colour)}; a gap where a value is missing. `shares` lie from 0 to 1."""
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": step.astype("f8"),
            "y": values.astype("f8"),
            "name": name,
            "hovertemplate": "%{y:.3~g}",
            "cliponaxis": False,
            "line": {"width": 1.5, "color": f"@{colour}/0.6"},
            "marker": {"size": 7, "color": f"@{colour}"},
        }
        for name, (values, colour) in curves.items()
    ]
    layout = _layout(240, "Training step", "") | {"showlegend": True, "legend": {"orientation": "h", "y": 1.18, "x": 0}, "hovermode": "x unified"}
    layout["yaxis"] |= {"range": [-0.03, 1.03]} if shares else {"rangemode": "tozero"}
    layout["margin"]["t"] = 34
    return {"data": traces, "layout": layout}


def bands(lines: dict[str, tuple[pd.DataFrame, str, str]], x_title: str, y_title: str) -> dict:
    """A line with the range behind it per name: {name: (columns x, mean, low, high, seeds; colour; dash)}."""
    traces = []
    for name, (line, colour, dash) in lines.items():
        x = line["x"].to_numpy("f8")
        area = np.concatenate([x, x[::-1]]), np.concatenate([line["high"].to_numpy("f8"), line["low"].to_numpy("f8")[::-1]])
        shared = {"type": "scatter", "mode": "lines", "name": name, "legendgroup": name}
        fill = {"x": area[0], "y": area[1], "fill": "toself", "fillcolor": f"@{colour}/0.12", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
        drawn = {
            "x": x,
            "y": line["mean"].to_numpy("f8"),
            "customdata": line[["low", "high", "seeds"]].to_numpy("f8"),
            "hovertemplate": "%{y:.3~g} (%{customdata[0]:.3~g} to %{customdata[1]:.3~g}, %{customdata[2]} runs)",
            "line": {"width": 2, "color": f"@{colour}", "dash": dash},
            "cliponaxis": False,
        }
        traces += [shared | fill, shared | drawn]
    layout = _layout(320, x_title, y_title) | {"showlegend": True, "legend": {"orientation": "h", "y": 1.12, "x": 0}, "hovermode": "x unified"}
    layout["margin"]["t"] = 40
    return {"data": traces, "layout": layout}


def points_by_name(names: Sequence[str], values: Sequence[Sequence[float]], colours: Sequence[str], x_title: str) -> dict:
    """A row of points per name, and a bar at their mean."""
    points = [
        {
            "type": "scatter",
            "mode": "markers",
            "x": np.asarray(group, "f8"),
            "y": [name] * len(group),
            "hovertemplate": f"{name}: %{{x:.3~g}}<extra></extra>",
            "marker": {"size": 9, "color": f"@{colour}/0.6"},
            "cliponaxis": False,
        }
        for name, group, colour in zip(names, values, colours, strict=True)
    ]
    means = {
        "type": "scatter",
        "mode": "markers",
        "x": np.array([np.mean(group) for group in values], "f8"),
        "y": list(names),
        "hovertemplate": "%{y}: mean %{x:.3~g}<extra></extra>",
        "marker": {"symbol": "line-ns", "size": 20, "line": {"width": 3, "color": [f"@{colour}" for colour in colours]}},
        "cliponaxis": False,
    }
    layout = _layout(max(36 * len(names) + 60, 370), x_title, "")
    layout["yaxis"] = {"type": "category", "autorange": "reversed", "automargin": True, "showgrid": False, "ticks": ""}
    layout["xaxis"] |= {"showgrid": True}
    return {"data": [*points, means], "layout": layout}


def named_bars(names: Sequence[str], values: Sequence[float], shown: Sequence[str], colours: Sequence[str], *, least: float) -> dict:
    """One bar per name from 0 to the right, with what `shown` says written at its end; the scale reaches at least to `least`."""
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": list(names),
        "x": np.asarray(values, "f8"),
        "text": list(shown),
        "textposition": "outside",
        "textfont": {"size": 11, "color": "@text"},
        "cliponaxis": False,
        "hovertemplate": "%{y}: %{text}<extra></extra>",
        "marker": {"color": [f"@{colour}/0.75" for colour in colours]},
    }
    layout = _layout(28 * len(names) + 16, "", "")
    layout["xaxis"] |= {"visible": False, "range": [0, max([*values, least]) * 1.45]}
    layout["yaxis"] = {"type": "category", "autorange": "reversed", "automargin": True, "showgrid": False, "ticks": ""}
    layout["margin"] = {"l": 4, "r": 4, "t": 4, "b": 4}
    return {"data": [bars], "layout": layout}


def grouped_bars(labels: Sequence[str], values: dict[str, tuple[Array, str]], x_title: str) -> dict:
    """Bars side by side under each label, one colour per name: {name: (values, colour)}."""
    bars = [
        {
            "type": "bar",
            "x": list(labels),
            "y": heights.astype("f8"),
            "name": name,
            "hovertemplate": f"%{{y:+.3~g}}<extra>{name}</extra>",
            "marker": {"color": f"@{colour}/0.75"},
        }
        for name, (heights, colour) in values.items()
    ]
    layout = _layout(290, x_title, "") | {"showlegend": True, "legend": {"orientation": "h", "y": 1.16, "x": 0}, "barmode": "group", "hovermode": "x unified"}
    layout["xaxis"] |= {"type": "category"}
    layout["yaxis"] |= {"zeroline": True}
    layout["margin"]["t"] = 34
    return {"data": bars, "layout": layout}


def _layout(height: int, x_title: str, y_title: str) -> dict:
    title = lambda text: {"text": text, "font": {"size": 12, "color": "@gray"}, "standoff": 8}  # noqa: E731
    return {
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 10, "b": 40},
        "showlegend": False,
        "dragmode": False,
        "xaxis": {"showgrid": False, "title": title(x_title), "automargin": True},
        "yaxis": {"showgrid": True, "title": title(y_title), "automargin": True},
    }

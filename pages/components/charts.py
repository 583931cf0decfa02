"""A card of the run page as a plain Plotly dictionary.

Colours are names that live_plot.js resolves in the reader's theme: `@c0` to `@c4` of the palette, `@gray`, `@text`, each with
an optional opacity (`@c0/0.2`).
"""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from pages.components import series
from pages.components.cards import Card, Line, Panel
from pages.components.text import number, percent

Array = np.ndarray
POINTS = 500
PASSED_OVER = 8
"""A line passes over at most so many neighbouring points without a figure."""
FEW_POINTS = 60
"""Up to so many evaluations are marked one by one."""
TOP, BOTTOM, BETWEEN, RIGHT = 26, 36, 36, 104
AXES = {"Step": "training step", "Training time": "time spent training, pauses left out", "Clock": "time of day"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the reader wants the charts: EMA weight in [0, 1), one of `AXES`, logarithmic axes where they make sense, a marked step."""

    smoothing: float = 0.6
    axis: str = "Step"
    log: bool = False
    marked: int | None = None


def figure(card: Card, steps: pd.DataFrame, options: Options) -> dict:
    """The card as a Plotly figure. `steps` has the columns of storage.schema.STEPS and the shares of series.with_shares."""
    card = filled(card, steps)
    drawn = series.buckets(series.column(steps, "missing_before"), POINTS)
    x = x_values(steps, options.axis)
    domains = _domains(card)
    traces, notes = [], []
    layout = _layout(card, steps, options, x)
    for index, (panel, (bottom, top)) in enumerate(zip(card.panels, domains, strict=True)):
        axis = "y" if index == 0 else f"y{index + 1}"
        layout[f"yaxis{'' if index == 0 else index + 1}"] = _y_axis(panel, (bottom, top), options)
        notes.append(_panel_title(panel, top, options, thinned=drawn.width if index == 0 else 1))
        curves = [_Curve(line, steps, drawn, options.smoothing, name=_name(line, panel)) for line in panel.lines]
        known = [curve for curve in curves if curve.known]
        step = series.column(steps, "step")
        traces += _stacked(known, x, step, axis) if panel.stacked else [trace for curve in known for trace in curve.traces(x, step, axis)]
        notes += _end_labels(panel, known, axis, height=(top - bottom) * (card.height - TOP - BOTTOM), log=options.log and panel.may_be_log)
    layout["annotations"] = notes
    layout["shapes"] = _marks(steps, x, drawn, options.marked)
    return {"data": traces, "layout": layout}


def figure_json(figure_: dict) -> str:
    """The figure as compact JSON, arrays as base64 the way plotly.js reads them."""
    return json.dumps(figure_, default=_encode, separators=(",", ":"))


def x_values(steps: pd.DataFrame, axis: str) -> Array:
    """The x coordinate of each row (N,): step, training minutes, or milliseconds of local time."""
    if axis == "Training time":
        return series.column(steps, "elapsed_s") / 60
    if axis == "Clock":
        return (series.column(steps, "finished_at") + time.localtime().tm_gmtoff) * 1000
    return series.column(steps, "step")


def polygons(x: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """The area between two curves as closed outlines, one per stretch without missing values, separated by NaN."""
    known = ~(np.isnan(low) | np.isnan(high))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(int)))
    xs, ys = [], []
    for first, end in zip(edges[::2], edges[1::2], strict=True):
        xs += [x[first:end], x[first:end][::-1], [np.nan]]
        ys += [high[first:end], low[first:end][::-1], [np.nan]]
    return (np.concatenate(xs), np.concatenate(ys)) if xs else (np.empty(0), np.empty(0))


class _Curve:
    """One line of a panel with its smoothed values, ready to be drawn."""

    def __init__(self, line: Line, steps: pd.DataFrame, drawn: series.Buckets, smoothing: float, *, name: str) -> None:
        self.line, self.drawn, self.name = line, drawn, name
        self.raw = series.column(steps, line.column)
        self.smoothed = smoothing > 0 and not line.sparse and not line.exact
        self.smooth = series.ema(self.raw, smoothing) if self.smoothed else self.raw
        self.half_width = series.ema(series.column(steps, line.band), smoothing) if line.band else None
        self.between = [(series.column(steps, low), series.column(steps, high)) for low, high in line.between]
        self.known = not np.isnan(self.raw).all()

    @property
    def last(self) -> float:
        """The last recorded value, unsmoothed."""
        return float(self.raw[~np.isnan(self.raw)][-1])

    @property
    def end(self) -> float:
        """Where the drawn line ends."""
        return float(self.smooth[~np.isnan(self.smooth)][-1])

    @property
    def edges(self) -> tuple[Array, ...]:
        """The lowest and highest values drawn."""
        band = () if self.half_width is None else (self.smooth - self.half_width, self.smooth + self.half_width)
        return band or (self.raw, *(edge for pair in self.between for edge in pair))

    def traces(self, x: Array, step: Array, axis: str) -> list[dict]:
        """Plotly traces, back to front: band, envelope or raw line, then the line itself."""
        if self.line.sparse:
            return [self._points(x, step, axis)]
        colour, drawn = f"@{self.line.colour}", self.drawn
        xs = drawn.x_with_gaps(drawn.last(x))
        behind = []
        if self.half_width is not None:
            low, high = drawn.last(self.smooth - self.half_width), drawn.last(self.smooth + self.half_width)
            behind.append(_fill(xs, drawn.with_gaps(low), drawn.with_gaps(high), axis, f"{colour}/0.13"))
        for low, high in self.between:
            behind.append(_fill(xs, drawn.with_gaps(drawn.last_known(low)), drawn.with_gaps(drawn.last_known(high)), axis, f"{colour}/0.15"))
        if drawn.thinned and not self.between:
            behind.append(_fill(xs, drawn.with_gaps(drawn.lowest(self.raw)), drawn.with_gaps(drawn.highest(self.raw)), axis, f"{colour}/0.22"))
        elif self.smoothed:
            behind.append(self._line(xs, self.raw, step, axis) | {"hoverinfo": "skip", "hovertemplate": None, "line": {"width": 1, "color": f"{colour}/0.32"}})
        return [*behind, self._line(xs, self.smooth, step, axis)]

    def step_and_raw(self, step: Array) -> Array:
        """What a hover and a click need of each drawn point: its step and its unsmoothed value (M + K, 2)."""
        return np.stack([self.drawn.with_gaps(self.drawn.last(step)), self.drawn.with_gaps(self.drawn.last_known(self.raw))], axis=1)

    def _line(self, xs: Array, values: Array, step: Array, axis: str) -> dict:
        """The curve, which passes over a few steps without a figure (no rollout was correct, say) but not over unrecorded ones."""
        y = self.drawn.with_gaps(self.drawn.last_known(values))
        drawn = ~series.short_gaps(y, PASSED_OVER, self.drawn.gap_places)
        shown = "%{customdata[1]:.3~g}" + ("  <i>smooth %{y:.3~g}</i>" if self.smoothed else "")
        return _scatter(
            xs[drawn],
            y[drawn],
            axis,
            mode="lines+markers" if drawn.sum() == 1 else "lines",
            name=self.name,
            customdata=self.step_and_raw(step)[drawn],
            hovertemplate=shown,
            line={"width": 2, "color": f"@{self.line.colour}", "dash": self.line.dash},
        )

    def _points(self, x: Array, step: Array, axis: str) -> dict:
        at = ~np.isnan(self.raw)
        few = at.sum() <= FEW_POINTS
        return _scatter(
            x[at],
            self.raw[at],
            axis,
            mode="lines+markers" if few else "lines",
            name=self.name,
            hovertemplate="%{y:.4~g}",
            cliponaxis=False,
            customdata=np.stack([step[at], self.raw[at]], axis=1),
            line={"width": 1, "color": f"@{self.line.colour}/0.5", "dash": "dot"} if few else {"width": 1.6, "color": f"@{self.line.colour}"},
            marker={"size": 6, "symbol": "diamond", "color": f"@{self.line.colour}"},
        )


def _stacked(curves: list[_Curve], x: Array, step: Array, axis: str) -> list[dict]:
    """The curves as areas on top of each other. Plotly's own stackgroup would pull every area to 0 across a gap."""
    traces, floor = [], 0.0
    for curve in curves:
        drawn = curve.drawn
        xs = drawn.x_with_gaps(drawn.last(x))
        low = drawn.with_gaps(floor + np.zeros(len(drawn.starts)))
        floor = floor + np.nan_to_num(drawn.last(curve.smooth))
        high = drawn.with_gaps(floor)
        traces.append(_fill(xs, low, high, axis, f"@{curve.line.colour}/0.38"))
        traces.append(
            _scatter(
                xs,
                high,
                axis,
                name=curve.name,
                customdata=curve.step_and_raw(step),
                hovertemplate="%{customdata[1]:.0%}",
                line={"width": 1.2, "color": f"@{curve.line.colour}"},
            )
        )
    return traces


def _scatter(x: Array, y: Array, axis: str, **more) -> dict:
    return {"type": "scatter", "mode": "lines", "x": x.astype("f8"), "y": y.astype("f4"), "yaxis": axis, "showlegend": False, **more}


def _fill(x: Array, low: Array, high: Array, axis: str, colour: str) -> dict:
    outline_x, outline_y = polygons(x, low, high)
    return _scatter(outline_x, outline_y, axis, fill="toself", fillcolor=colour, line={"width": 0}, hoverinfo="skip")


def filled(card: Card, steps: pd.DataFrame) -> Card:
    """The card with the panels that have something to show; the page says in words what the others lack."""
    known = tuple(panel for panel in card.panels if not all(np.isnan(series.column(steps, line.column)).all() for line in panel.lines))
    return replace(card, panels=known or card.panels)


def _layout(card: Card, steps: pd.DataFrame, options: Options, x: Array) -> dict:
    bottom_axis = "y" if len(card.panels) == 1 else f"y{len(card.panels)}"
    x_axis = {
        "anchor": bottom_axis,
        "showgrid": False,
        "showspikes": True,
        "spikemode": "across",
        "spikesnap": "cursor",
        "spikethickness": 1,
        "spikedash": "solid",
        "spikecolor": "@gray/0.6",
        "unifiedhovertitle": {"text": _hover_title(options.axis)},
        "nticks": 8,
        "type": "date" if options.axis == "Clock" else "linear",
    }
    if options.axis == "Training time":
        x_axis["ticksuffix"] = " min"
    if options.axis == "Step" and len(x) and x[-1] - x[0] < x_axis["nticks"]:
        x_axis["dtick"] = 1  # of few steps Plotly would label halves
    if len(x) > 1:  # by itself Plotly leaves room for half a marker, and cards with markers would not line up with the others
        x_axis["range"] = [float(x[0]), float(x[-1])]
    return {
        "height": card.height,
        "margin": {"l": 8, "r": RIGHT, "t": TOP, "b": BOTTOM},
        "uirevision": f"{card.key} {options.axis}",
        "showlegend": False,
        "hovermode": "x unified",
        "hoversubplots": "axis",
        "dragmode": "zoom",
        "xaxis": x_axis,
    }


def _hover_title(axis: str) -> str:
    return {"Step": "<b>Step %{x}</b>", "Training time": "<b>%{x:.1f} min of training</b>", "Clock": "<b>%{x|%d %b %H:%M:%S}</b>"}[axis]


def _domains(card: Card) -> list[tuple[float, float]]:
    """(bottom, top) of each panel in [0, 1], first panel on top, with room for a title between two."""
    inner = card.height - TOP - BOTTOM
    gap = BETWEEN / inner
    free = 1 - gap * (len(card.panels) - 1)
    total = sum(panel.share for panel in card.panels)
    domains, top = [], 1.0
    for panel in card.panels:
        bottom = max(top - free * panel.share / total, 0.0)
        domains.append((bottom, top))
        top = bottom - gap
    return domains


def _y_axis(panel: Panel, domain: tuple[float, float], options: Options) -> dict:
    axis = {"domain": list(domain), "automargin": True, "nticks": 5 if domain[1] - domain[0] > 0.4 else 4, "showgrid": True, "tickformat": ".3~g"}
    if panel.unit == "share":
        axis["tickformat"] = ".0~%" if panel.stacked else ".2~%"
    if options.log and panel.may_be_log:
        return axis | {"type": "log", "tickformat": ".1~g", "nticks": 4}
    if panel.bounds:
        return axis | {"range": list(panel.bounds), "fixedrange": True}
    if panel.zero:
        return axis | {"rangemode": "tozero"}
    return axis | {"zeroline": any(line.column.startswith("delta") for line in panel.lines), "zerolinecolor": "@gray/0.5", "zerolinewidth": 1}


def _name(line: Line, panel: Panel) -> str:
    """The curve's name in a hover box, which holds all panels of the card: `Correct`, then `Correct, change`."""
    return f"{line.label}, {panel.short}" if panel.short else line.label


def _panel_title(panel: Panel, top: float, options: Options, *, thinned: int) -> dict:
    detail = [panel.unit + (", log" if options.log and panel.may_be_log else "")]
    if thinned > 1:
        detail.append(f"1 point = {thinned} steps, shade = lowest to highest")
    return {
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "y": top,
        "yref": "paper",
        "yanchor": "bottom",
        "yshift": 4,
        "showarrow": False,
        "text": f"{panel.title} <span style='opacity:.7'>({'; '.join(detail)})</span>",
        "font": {"size": 12, "color": "@gray"},
    }


def _end_labels(panel: Panel, curves: list[_Curve], axis: str, *, height: float, log: bool) -> list[dict]:
    """The name and last value of each curve beside its end, pushed apart so that they stay readable."""
    if not curves:
        return []
    ends = np.array([curve.end for curve in curves])
    if panel.stacked:
        tops = np.cumsum(ends)
        positions, extent = tops - ends / 2, 1.0
    else:
        positions = np.log10(np.clip(ends, 1e-12, None)) if log else ends
        extent = _extent(curves, log=log, zero=panel.zero)
    places = series.spread(positions, 17 * extent / max(height, 1))
    return [
        {
            "x": 1,
            "xref": "paper",
            "xanchor": "left",
            "xshift": 6,
            "y": float(place),
            "yref": axis,
            "showarrow": False,
            "align": "left",
            "text": f"<b>{curve.line.label}</b> {_value(curve, panel)}",
            "font": {"size": 12, "color": f"@{curve.line.colour}"},
        }
        for curve, place in zip(curves, places, strict=True)
    ]


def _value(curve: _Curve, panel: Panel) -> str:
    if panel.unit != "share":
        return number(curve.last)
    return percent(curve.last) if panel.stacked or curve.last >= 0.1 else f"{number(100 * curve.last, 2)}\u00a0%"


def _extent(curves: list[_Curve], *, log: bool, zero: bool) -> float:
    """About how many units (decades on a log axis) the panel's y axis spans."""
    values = np.concatenate([edge for curve in curves for edge in curve.edges])
    values = values[~np.isnan(values)]
    if log:
        values = np.log10(values[values > 0])
    elif zero:
        values = np.append(values, 0.0)
    return float(np.ptp(values)) * 1.1 if len(values) and np.ptp(values) > 0 else 1.0


def _marks(steps: pd.DataFrame, x: Array, drawn: series.Buckets, marked: int | None) -> list[dict]:
    """Vertical marks: unrecorded stretches shaded, resumes dotted, the chosen step as a line."""
    shapes = []
    for row in drawn.starts[drawn.breaks]:
        shapes.append(_vertical(x[row - 1], x[row], kind="rect", layer="below", line={"width": 0}, fillcolor="@gray/0.14"))
    attempts = series.column(steps, "attempt")
    for row in np.flatnonzero(np.diff(attempts) > 0) + 1:
        shapes.append(_vertical(x[row], x[row], kind="line", line={"width": 1, "dash": "dot", "color": "@gray/0.7"}))
    chosen = np.flatnonzero(series.column(steps, "step") == marked) if marked is not None else []
    for row in chosen:
        shapes.append(_vertical(x[row], x[row], kind="line", line={"width": 1.5, "color": "@primary/0.75"}))
    return shapes


def _vertical(x0: float, x1: float, *, kind: str, **more) -> dict:
    return {"type": kind, "xref": "x", "yref": "paper", "x0": float(x0), "x1": float(x1), "y0": 0, "y1": 1, **more}


def _encode(value: object) -> object:
    if isinstance(value, np.ndarray):
        code = {"float64": "f8", "float32": "f4"}[value.dtype.name]
        coded = {"dtype": code, "bdata": base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()}
        return coded | {"shape": ",".join(map(str, value.shape))} if value.ndim > 1 else coded
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot put {type(value).__name__} into a figure")

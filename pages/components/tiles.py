"""The key figures of a run: the last steps' mean, how it changed, a sparkline, and what the figure means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from grpo_core.launch.status import RunStatus
from pages.components import series
from pages.components.summary import BACK, WINDOW
from pages.components.text import MINUS, about, duration, fixed, number, percent
from storage.schema import STEPS

SPARK = 48
BARS = 24


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure; `better` says which way is good: up, down, or neither."""

    label: str
    column: str
    better: str = ""
    decimals: int | None = None


TILES = (
    Tile("Reward", "reward_mean", "up", 3),
    Tile("Correct log-prob", "logp_correct", "up", 3),
    Tile("Entropy", "entropy", "", 3),
    Tile("Gradient norm", "grad_norm", "down"),
    Tile("KL of a step", "kl_step"),
)
_COLOURS = {"up": "normal", "down": "inverse", "": "off"}


def tiles(status: RunStatus, steps: pd.DataFrame) -> None:
    """Draw the step tile and `TILES`."""
    with st.grid(6, min_column_width=148, gap="small", row_height=166):
        _step_tile(status, steps)
        for tile in TILES:
            _tile(tile, series.column(steps, tile.column))


def meaning(column: str) -> str:
    """What a column of the steps table is, with its unit, and what the tile shows of it."""
    described = STEPS.column(column)
    shown = f"Shown: mean of the last {WINDOW} steps, and its change against {BACK} steps earlier."
    return f"{described.means[0].upper()}{described.means[1:]}, in {described.unit}. {shown}"


def _step_tile(status: RunStatus, steps: pd.DataFrame) -> None:
    left = f"{about(status.eta_s)} left" if status.alive and status.step and status.eta_s is not None else ""
    st.metric(
        "Step",
        f"{status.step} / {status.steps}",
        left or percent(status.step / status.steps),
        delta_color="off",
        delta_arrow="off",
        delta_description=f"{duration_of_step(status.seconds_per_step)} each" if status.seconds_per_step else "no step yet",
        border=True,
        height="stretch",
        chart_data=series.thin(series.column(steps, "duration_s"), BARS) or None,
        chart_type="bar",
        help="Finished and planned steps. The bars are the seconds each step took, recording not included.",
    )


def duration_of_step(seconds: float) -> str:
    return duration(seconds) if seconds >= 60 else f"{number(seconds, 2)} s"


def _tile(tile: Tile, values: np.ndarray) -> None:
    recent, change = series.window_means(values, WINDOW, BACK)
    st.metric(
        tile.label,
        _shown(tile, recent),
        _delta(tile, change),
        delta_color=_COLOURS[tile.better],
        delta_description=None if np.isnan(change) else f"{BACK} steps",
        border=True,
        height="stretch",
        chart_data=series.thin(values, SPARK) or None,
        help=meaning(tile.column),
    )


def _shown(tile: Tile, value: float, *, sign: bool = False) -> str:
    return number(value, 3, sign=sign) if tile.decimals is None else fixed(value, tile.decimals, sign=sign)


def _delta(tile: Tile, change: float) -> str | int | None:
    """Streamlit colours by a leading ASCII minus, and shows an exact 0 without an arrow."""
    if np.isnan(change):
        return None
    return _shown(tile, change, sign=True).replace(MINUS, "-") if change else 0

"""The key figures of a run: the last steps' mean, how it changed, a small curve, and what the figure means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from grpo_core.launch.status import RunStatus
from pages.components import series
from pages.components.assets import script
from pages.components.summary import BACK, WINDOW
from pages.components.text import UNKNOWN, about, duration, fixed, number, percent
from storage.schema import STEPS

POINTS, BARS = 48, 24
LITTLE = 0.05
"""A change of less than this share of the figure is no news, so it gets no colour."""


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
_HTML = """
<div class="tiles" role="group" aria-label="Key figures"></div>
"""
_mount = st.components.v2.component("tiles", html=_HTML, css=script("base.css") + script("tiles.css"), js=script("dom.js") + script("tiles.js"))


def tiles(status: RunStatus, steps: pd.DataFrame) -> None:
    """Draw the step tile and `TILES`."""
    _mount(key="run.tiles", data={"tiles": [_step_tile(status, steps), *(_tile(tile, series.column(steps, tile.column)) for tile in TILES)]})


def meaning(column: str) -> str:
    """What a column of the steps table is, with its unit, and what the tile shows of it."""
    described = STEPS.column(column)
    shown = f"Shown: mean of the last {WINDOW} steps, and its change against {BACK} steps earlier."
    return f"{described.means[0].upper()}{described.means[1:]}, in {described.unit}. {shown}"


def _step_tile(status: RunStatus, steps: pd.DataFrame) -> dict:
    left = f"{about(status.eta_s)} left" if status.alive and status.step and status.eta_s is not None else ""
    return {
        "label": "Step",
        "value": f"{status.step} / {status.steps}",
        "known": True,
        "change": {"text": left or percent(status.step / status.steps), "tone": "gray"},
        "note": _pace(status.seconds_per_step),
        "values": series.thin(series.column(steps, "duration_s"), BARS),
        "bars": True,
        "tone": "gray",
        "help": "Finished and planned steps. The bars are the seconds each step took, recording not included.",
    }


def _pace(seconds_per_step: float | None) -> str:
    if not seconds_per_step:
        return "no step yet"
    return f"{duration(seconds_per_step) if seconds_per_step >= 60 else f'{number(seconds_per_step, 2)} s'} each"


def _tile(tile: Tile, values: np.ndarray) -> dict:
    recent, change = series.window_means(values, WINDOW, BACK)
    tone = _tone(tile.better, recent, change)
    changed = {"text": _shown(tile, change, sign=True), "tone": tone, "icon": "▲" if change > 0 else "▼" if change < 0 else ""}
    return {
        "label": tile.label,
        "value": UNKNOWN if np.isnan(recent) else _shown(tile, recent),
        "known": not np.isnan(recent),
        "change": None if np.isnan(change) else changed,
        "note": "" if np.isnan(change) else f"{BACK} steps",
        "values": series.thin(values, POINTS),
        "bars": False,
        "tone": tone,
        "help": meaning(tile.column),
    }


def _tone(better: str, recent: float, change: float) -> str:
    """Green for a change for the better, red for the worse, grey for little change and where neither way is better."""
    if not better or np.isnan(change) or abs(change) < LITTLE * abs(recent):
        return "gray"
    return "green" if (change > 0) == (better == "up") else "red"


def _shown(tile: Tile, value: float, *, sign: bool = False) -> str:
    return number(value, 3, sign=sign) if tile.decimals is None else fixed(value, tile.decimals, sign=sign)

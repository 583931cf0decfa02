"""How the levels of a diagnosis look: chip, badge, colour. Colours also differ in lightness, so that they hold without hue, in light and dark."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from grpo_core.diagnosis.levels import Level
from pages.components.text import MINUS, number, percent


@dataclass(frozen=True, slots=True)
class Look:
    """`fill` is the colour of a cell, `light|dark`, as live_plot.js and levels.js read it; `sign` needs no colour."""

    tone: str
    sign: str
    icon: str
    fill: str


LOOKS = {
    Level.NOT_AVAILABLE: Look("gray", "–", ":material/help:", "#EEF1F5|#1A2334"),
    Level.HEALTHY: Look("green", "✓", ":material/check_circle:", "#A9D8CB|#1F5A4C"),
    Level.WATCH: Look("orange", "◐", ":material/visibility:", "#E9A93A|#A06F12"),
    Level.UNHEALTHY: Look("red", "!", ":material/warning:", "#C8391F|#FF7F68"),
    Level.COLLAPSED: Look("violet", "✕", ":material/dangerous:", "#4A1259|#DDB3FA"),
}
FILLS = {int(level): look.fill for level, look in LOOKS.items()}


def chip(level: Level, text: str = "") -> dict:
    """The level as a chip of the components, with its own word or another."""
    return {"text": text or level.word, "tone": LOOKS[level].tone, "icon": LOOKS[level].sign}


def badge(level: Level) -> None:
    """Draw the level as a badge."""
    st.badge(level.word, icon=LOOKS[level].icon, color=LOOKS[level].tone)


def measured(value: float | None, unit: str, digits: int = 3) -> tuple[str, str]:
    """A figure and its unit as people read them: shares as percentages, `0.4 share of groups` as `40 %` `of groups`; whole numbers without zeros."""
    if unit.startswith("share"):
        return percent(value).replace("-", MINUS), unit.removeprefix("share").strip()
    if value is None or not value.is_integer() or abs(value) >= 1e6:
        return number(value, digits), unit
    return f"{value:.0f}".replace("-", MINUS), unit.removesuffix("s") if value == 1 and unit in ("steps", "tokens") else unit

"""How the levels of a diagnosis look: chip, badge, colour. Colours also differ in lightness, so that they hold without hue, in light and dark."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from grpo_core.diagnosis.levels import Level
from pages.components.text import number, percent


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
    Level.COLLAPSED: Look("violet", "✕", ":material/dangerous:", "#4A1259|#F1D6FF"),
}
FILLS = {int(level): look.fill for level, look in LOOKS.items()}


def chip(level: Level, text: str = "") -> dict:
    """The level as a chip of the components, with its own word or another."""
    return {"text": text or level.word, "tone": LOOKS[level].tone, "icon": LOOKS[level].sign}


def badge(level: Level) -> None:
    """Draw the level as a badge."""
    st.badge(level.word, icon=LOOKS[level].icon, color=LOOKS[level].tone)


def measured(value: float | None, unit: str) -> tuple[str, str]:
    """A figure and its unit as people read them: shares as percentages, `0.4 share of groups` as `40 %` `of groups`."""
    if unit.startswith("share"):
        return percent(value), unit.removeprefix("share").strip()
    return number(value), unit

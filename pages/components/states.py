"""A run's state in words: its chip, what it is doing, how far it is."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from grpo_core.launch.status import RunStatus
from pages.components.text import about, counted, duration


@dataclass(frozen=True, slots=True)
class Look:
    """How a state looks: tone of the chip, a sign that does not need colour, and the icon of the badge."""

    tone: str
    sign: str
    icon: str


LOOKS = {
    "starting": Look("blue", "◌", ":material/hourglass_top:"),
    "running": Look("green", "●", ":material/play_circle:"),
    "stopping": Look("orange", "◐", ":material/pause_circle:"),
    "finished": Look("blue", "✓", ":material/check_circle:"),
    "stopped": Look("gray", "■", ":material/stop_circle:"),
    "failed": Look("red", "✕", ":material/error:"),
    "lost": Look("red", "?", ":material/help:"),
}
STATES = tuple(LOOKS)


def chip(status: RunStatus) -> dict:
    """The state as a chip of the components."""
    return {"text": status.state, "tone": LOOKS[status.state].tone, "icon": LOOKS[status.state].sign}


def badge(status: RunStatus) -> None:
    """Draw the state as a badge."""
    look = LOOKS[status.state]
    st.badge(status.state, icon=look.icon, color=look.tone)


def doing(status: RunStatus) -> str:
    """What the run is busy with beside training, or why it ended; empty if there is nothing to say."""
    if status.state in ("starting", "running") and status.phase not in ("training", "starting", ""):
        counter = f" {status.phase_done} / {status.phase_total}" if status.phase_total else ""
        return status.message or f"{status.phase}{counter}"
    return status.message


def share_done(status: RunStatus) -> float:
    """Finished steps over planned ones, from 0 to 1; before the first step, how far the phase is."""
    if not status.step and status.alive and status.phase_total and status.phase != "training":
        return 0.0
    return min(status.step / status.steps, 1.0) if status.steps else 0.0


def progress(status: RunStatus) -> str:
    """`84 of 150 · about 2 min left`, or how far an ended run came and how long it took."""
    done = f"{status.step} of {status.steps}"
    if status.alive:
        expected = status.eta_s is not None and status.step and not status.message  # a message means that it has fallen silent
        return f"{done} · {about(status.eta_s)} left" if expected else done
    if status.state == "finished" and status.started_at is not None and status.ended_at is not None:
        return f"{counted(status.step, 'step')} in {duration(status.ended_at - status.started_at)}"
    return done

"""The groups of one step as a table: prompt, rewards as dots, outcome, mean and std, kept or dropped and why."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import streamlit as st

from pages.components.assets import script
from pages.components.text import fixed

SHOWN = 200
OUTCOMES = {
    "mixed": {"text": "mixed", "tone": "green", "icon": "◐"},
    "all_fail": {"text": "all wrong", "tone": "orange", "icon": "✗"},
    "all_pass": {"text": "all correct", "tone": "blue", "icon": "✓"},
    "tied": {"text": "tied", "tone": "gray", "icon": "="},
    "failed": {"text": "not scored", "tone": "red", "icon": "!"},
    "replayed": {"text": "replayed", "tone": "gray", "icon": "↺"},
}
NOTES = {"hinted": ", behind a hint", "replay": ", replayed", "reference": ", worked answer"}
_HTML = """
<div class="frame" tabindex="0" role="region" aria-label="Groups of the step"></div>
"""
_mount = st.components.v2.component("group_list", html=_HTML, css=script("base.css") + script("group_list.css"), js=script("dom.js") + script("group_list.js"))


def group_list(groups: pd.DataFrame, verdicts: pd.DataFrame, *, key: str, label: str, href: Callable[[int], str], on_group: Callable[[int], None]) -> None:
    """Draw rows of storage.schema.GROUPS (the first `SHOWN`), with the verdicts of their rollouts; `on_group` is given a clicked one before the page runs."""
    dots = {index: _dots(rollouts) for index, rollouts in verdicts.groupby("group_index")}
    rows = [_row(group, dots.get(group.group_index, []), href) for group in groups.head(SHOWN).itertuples()]
    _mount(key=key, data={"groups": rows, "label": label}, on_group_change=lambda: on_group(int(st.session_state[key].group)))


def _row(group, dots: list[dict], href: Callable[[int], str]) -> dict:
    return {
        "index": int(group.group_index),
        "prompt": group.prompt,
        "href": href(int(group.group_index)),
        "rollouts": dots,
        "correct": int(group.correct),
        "outcome": OUTCOMES.get(group.outcome, {"text": group.outcome, "tone": "gray", "icon": ""}),
        "mean": fixed(group.reward_mean),
        "std": fixed(group.reward_std),
        "reason": "kept" if group.kept else f"dropped: {group.reason}",
    }


def _dots(rollouts: pd.DataFrame) -> list[dict]:
    """One dot per rollout: correct, wrong, or failed where scoring gave no number; `note` says which were not sampled in the step."""
    kinds = ["failed" if correct is None else "correct" if correct else "wrong" for correct in rollouts["correct"]]
    notes = [NOTES.get(source, "") for source in rollouts["source"]]
    return [{"kind": kind, "reward": fixed(reward), "note": note} for kind, reward, note in zip(kinds, rollouts["reward"], notes, strict=True)]

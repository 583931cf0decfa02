"""The runs as a table: state, progress, reward, what was trained, notes; a row opens its run."""

from __future__ import annotations

import math
from collections.abc import Mapping

import streamlit as st

from grpo_core.diagnosis.levels import Level
from grpo_core.diagnosis.report import Report
from grpo_core.methods import METHODS
from pages.components import levels, states, url
from pages.components.assets import script
from pages.components.data import Run
from pages.components.text import ago, clock, fixed
from storage.retention import size_text

_HTML = """
<div class="frame" tabindex="0" role="region" aria-label="Runs"></div>
"""
_mount = st.components.v2.component("run_table", html=_HTML, css=script("base.css") + script("run_table.css"), js=script("dom.js") + script("run_table.js"))


SIZE = "On disk: segments, run.duckdb and superseded steps; checkpoints and the log are not counted"


def run_table(runs: list[tuple[Run, list[float], int]], reports: Mapping[str, Report], *, key: str) -> dict | None:
    """Draw runs, each with its rewards so far, its bytes on disk, and its diagnosis where it is known.

    Returns what was just clicked: {"act": open, diagnose, stop or edit, "run_id": ...}. The row of a run in trouble leads to its diagnosis.
    """
    rows = [_row(run, rewards, size) | {"verdict": _verdict(run, reports.get(run.run_id))} for run, rewards, size in runs]
    return _mount(key=key, data={"runs": rows}, on_act_change=lambda: None).act


def matches(run: Run, words: str) -> bool:
    """Whether every word occurs in the run's name, id, method, model, task, tags or note."""
    text = " ".join([run.name, run.run_id, run.config.method, run.config.model, run.config.task, run.config.data, *run.tags, run.note]).lower()
    return all(word in text for word in words.lower().split())


def what(run: Run) -> str:
    """`tiny · arithmetic`: the model and the task."""
    return f"{run.config.model} · {run.config.data if run.config.task == 'dataset' else run.config.task}"


def _verdict(run: Run, report: Report | None) -> dict | None:
    """The level as a chip, the likeliest cause under it, and whether it comes before everything else."""
    if report is None or report.step is None:
        return None
    cause = report.causes[0] if report.causes and report.level >= Level.WATCH else None
    return {
        "chip": levels.chip(report.level),
        "cause": "" if cause is None else f"{cause.title}, since step {cause.since_step}",
        "sentence": report.sentence,
        "href": url.link("diagnosis", run=run.run_id),
        "first": report.alarming,
    }


def _row(run: Run, rewards: list[float], size: int) -> dict:
    status = run.status
    known = [reward for reward in rewards if not math.isnan(reward)]
    return {
        "run_id": run.run_id,
        "name": run.name,
        "href": url.link("run", run=run.run_id),
        "tags": list(run.tags),
        "chip": states.chip(status),
        "message": states.doing(status),
        "alive": status.alive,
        "share": states.share_done(status),
        "progress": states.progress(status),
        "progress_tone": "" if status.alive else "bad" if status.state in ("failed", "lost") else "over",
        "rewards": known,
        "reward": fixed(known[-1]) if known else "",
        "method": METHODS[run.config.method].title,
        "about": what(run),
        "note": run.note,
        "started": f"started {ago(status.started_at)}",
        "started_at": clock(status.started_at),
        "size": size_text(size),
        "size_means": SIZE,
    }

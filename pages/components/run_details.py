"""What a run was, and how it ended: settings in a line, the command, the last lines of its log."""

from __future__ import annotations

import shlex
import time

import streamlit as st

from grpo_core.config import RunConfig
from grpo_core.launch.fork import repeating_command
from grpo_core.methods import METHODS
from pages.components import data, retaining
from pages.components.data import Run
from pages.components.frames import plainly
from pages.components.run_table import what
from pages.components.text import clock, counted, escape
from storage.retention import size_text


def facts(run: Run) -> str:
    """Method, model, task, sizes, start and origin in one escaped line."""
    config = run.config
    parts = [
        METHODS[config.method].title,
        what(run),
        f"{config.prompts_per_step} prompts × {config.group_size} rollouts",
        f"{counted(config.updates_per_rollout, 'update')} per batch",
        f"lr {config.lr:g}",
        f"seed {config.seed}",
        f"started {clock(run.status.started_at)}",
        *([f"forked from {run.fork.parent} at step {run.fork.step}"] if run.fork else []),
    ]
    return escape(" · ".join(parts))


def ending(run: Run) -> None:
    """For a run that ended badly: why, and the last lines of its log."""
    if run.status.state not in ("failed", "lost"):
        return
    sentence = run.status.message or "It left no message; the log may have the reason."
    st.error(
        escape(f"{sentence[0].upper()}{sentence[1:]}"), title=f"This run {'failed' if run.status.state == 'failed' else 'is lost'}", icon=":material/error:"
    )
    log = data.log_lines(run.run_id)
    if log.strip():
        st.caption("Last lines of its log")
        st.code(log, language=None, wrap_lines=True, height=min(60 + 20 * log.count("\n"), 320))


def details(run: Run) -> None:
    """Note and tags, the command, settings, what the run takes on disk, and the log, read only when opened."""
    if run.note or run.tags:
        with st.container(border=True):
            if run.tags:
                st.text(f"Tags: {', '.join(run.tags)}")
            if run.note:
                st.text(run.note)
    settings = st.expander("Command and settings", icon=":material/terminal:", on_change="rerun", key="run.settings")
    if settings.open:
        with settings:
            st.code(shlex.join(repeating_command(run.fork, run.config)), language=None, wrap_lines=True)
            columns = {"setting": "Setting", "value": "Value", "default": "Default"}
            st.dataframe(_settings(run.config), hide_index=True, alt="Settings that differ from their defaults", column_config=columns)
    room = st.expander(f"Storage · {size_text(data.size(run))}", icon=":material/database:", on_change="rerun", key="run.storage")
    if room.open:
        with room, plainly():
            retaining.storage(run)
    log = st.expander("Log", icon=":material/article:", on_change="rerun", key="run.log_tail")
    if log.open:
        with log:
            st.code(data.log_lines(run.run_id, 200) or "The log is empty.", language=None, wrap_lines=True, height=360)
            st.caption(f"Read at {time.strftime('%H:%M:%S')}; close and open to read again.")


def _settings(config: RunConfig) -> list[dict[str, str]]:
    changed = {name: field.default for name, field in RunConfig.model_fields.items() if getattr(config, name) != field.default}
    return [{"setting": name, "value": str(getattr(config, name)), "default": str(default)} for name, default in changed.items()]

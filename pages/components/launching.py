"""Starting the run of the form, once however often the button is pressed, and what stands beside the form."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Mapping

import streamlit as st

from grpo_core.config import RunConfig
from grpo_core.errors import ConfigError, GroupscopeError
from grpo_core.launch.folder import RunFolder
from grpo_core.launch.fork import fork_command, fork_run, forked_config
from grpo_core.launch.start import command_line, launch
from grpo_core.method_row import Method
from pages.components import data
from pages.components.data import Run
from pages.components.guard import listens_on_loopback
from pages.components.launch_form import change_in_words, differing
from pages.components.text import escape
from storage.errors import StoreError

NONCE, STARTED, FAILURE = "launch.nonce", "launch.started", "launch.failure"


def method_card(method: Method) -> None:
    """What the picked method is, after whom, and where released code differs."""
    with st.container(border=True, gap="small"):
        st.markdown(f"**{method.title}** :gray[{method.paper}]")
        st.markdown(method.summary)
        if method.note:
            st.caption(method.note)


def origin(run: Run, changes: Mapping[str, object], step: int | None) -> None:
    """Where the form's settings come from: a run, what is changed of it, and the step it goes on from."""
    start = f"Goes on from step {step} of {run.name} with its settings" if step else f"Settings copied from {run.name}"
    changed = "; ".join(change_in_words(run.config, name, new) for name, new in changes.items())
    st.caption(f"{escape(start)}{f', but for **{escape(changed)}**' if changed else ''}.")


def command_card(config: RunConfig | None, wrong: dict[str, list[str]], *, parent: Run | None = None, step: int = 0) -> None:
    """The exact command of the form, and the button that runs it; or what has to be mended first. With a parent it is a fork from that step."""
    with st.container(border=True, gap="small"):
        st.markdown("**Command**", help="What the button starts, as its own process; typing it in a terminal does the same.")
        impossible = _no_fork(config, parent, step)
        if config is None:
            st.warning(f"Mend first: {escape(', '.join(name or 'the settings' for name in wrong))}.", icon=":material/build:")
            for sentence in wrong.get("", []):
                st.markdown(f":red[:small[{escape(sentence)}]]")
        elif impossible:
            st.warning(escape(impossible), icon=":material/build:")
        else:
            st.code(shlex.join(_command(config, parent, step)), language=None, wrap_lines=True)
        if failure := st.session_state.pop(FAILURE, ""):
            st.error(escape(failure), icon=":material/error:")
        if not listens_on_loopback():
            st.info("Launching is off: this app can be reached from other machines. Type the command in a terminal.", icon=":material/lock:")
        nonce = st.session_state.setdefault(NONCE, secrets.token_hex(16))
        ready = config is not None and not impossible and listens_on_loopback()
        st.button(
            "Fork and launch" if parent else "Launch",
            type="primary",
            icon=":material/rocket_launch:",
            key="launch.go",
            width="stretch",
            disabled=not ready,
            on_click=_launch,
            args=(nonce, config, parent, step),
        )
        st.caption("It runs in the background, without this page; closing the browser or the app does not stop it.")


def started() -> str | None:
    """The run that the last press of the button started, told once."""
    return st.session_state.pop(STARTED, None)


def _command(config: RunConfig, parent: Run | None, step: int) -> list[str]:
    return command_line(config) if parent is None else fork_command(parent.run_id, step, differing(parent.config, config))


def _no_fork(config: RunConfig | None, parent: Run | None, step: int) -> str:
    """Why the form cannot go on from that step of the parent, or nothing."""
    if config is None or parent is None:
        return ""
    there = RunFolder.open(data.root(), parent.run_id).checkpoint_steps()
    if step not in there:
        known = f"it has some at {', '.join(map(str, there))}" if there else "it has none"
        return f"{parent.name} has no checkpoint at step {step}; {known}."
    try:
        forked_config(parent.config, step, differing(parent.config, config))
    except ConfigError as error:
        return str(error)
    return ""


def _launch(nonce: str, config: RunConfig, parent: Run | None, step: int) -> None:
    """Runs before the page. A second press carries the same nonce and gets the same run."""
    if not listens_on_loopback():
        return
    try:
        if parent is None:
            st.session_state[STARTED] = launch(data.root(), config, nonce=nonce)
        else:
            st.session_state[STARTED] = fork_run(data.root(), parent.run_id, step=step, changes=differing(parent.config, config), nonce=nonce)
    except (GroupscopeError, StoreError) as error:
        st.session_state[FAILURE] = str(error)
    st.session_state.pop(NONCE, None)

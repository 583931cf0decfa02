"""Starting the run of the form, once however often the button is pressed, and what stands beside the form."""

from __future__ import annotations

import secrets
import shlex

import streamlit as st

from grpo_core.config import RunConfig
from grpo_core.errors import GroupscopeError
from grpo_core.launch.start import command_line, launch
from grpo_core.methods import Method
from pages.components import data
from pages.components.guard import listens_on_loopback
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


def command_card(config: RunConfig | None, wrong: dict[str, list[str]]) -> None:
    """The exact command of the form, and the button that runs it; or what has to be mended first."""
    with st.container(border=True, gap="small"):
        st.markdown("**Command**", help="What the button starts, as its own process; typing it in a terminal does the same.")
        if config is None:
            st.warning(f"Mend first: {escape(', '.join(name or 'the settings' for name in wrong))}.", icon=":material/build:")
            for sentence in wrong.get("", []):
                st.markdown(f":red[:small[{escape(sentence)}]]")
        else:
            st.code(shlex.join(command_line(config)), language=None, wrap_lines=True)
        if failure := st.session_state.pop(FAILURE, ""):
            st.error(escape(failure), icon=":material/error:")
        if not listens_on_loopback():
            st.info("Launching is off: this app can be reached from other machines. Type the command in a terminal.", icon=":material/lock:")
        nonce = st.session_state.setdefault(NONCE, secrets.token_hex(16))
        ready = config is not None and listens_on_loopback()
        st.button(
            "Launch",
            type="primary",
            icon=":material/rocket_launch:",
            key="launch.go",
            width="stretch",
            disabled=not ready,
            on_click=_launch,
            args=(nonce, config),
        )
        st.caption("It runs in the background, without this page; closing the browser or the app does not stop it.")


def started() -> str | None:
    """The run that the last press of the button started, told once."""
    return st.session_state.pop(STARTED, None)


def _launch(nonce: str, config: RunConfig) -> None:
    """Runs before the page. A second press carries the same nonce and gets the same run."""
    if not listens_on_loopback():
        return
    try:
        st.session_state[STARTED] = launch(data.root(), config, nonce=nonce)
        st.session_state.pop(NONCE, None)
    except (GroupscopeError, StoreError) as error:
        st.session_state[FAILURE] = str(error)
        st.session_state.pop(NONCE, None)

"""The prompt of a group and its expected answer as plain text, each with a copy button, and what else is known of them.

By hand rather than with st.code: its highlighter is half a second of script in the browser, for text that has no language.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from pages.components.assets import script

_HTML = """
<div class="card"></div>
"""
_mount = st.components.v2.component(
    "prompt_card", html=_HTML, css=script("base.css") + script("prompt_card.css"), js=script("dom.js") + script("prompt_card.js")
)


def prompt_card(prompt: str, answer: str | None, notes: Sequence[str], *, key: str) -> None:
    """Draw both texts as they are, and the notes as sentences below."""
    _mount(key=key, data={"prompt": prompt, "answer": answer, "notes": list(notes)})

"""Parts of a page that refresh by themselves, and the promise that a page shows a sentence where something is wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import streamlit as st

from grpo_core.errors import GroupscopeError
from pages.components.assets import script
from pages.components.text import escape
from storage.errors import StoreError

LIVE_S = 2.0

_mount_ticker = st.components.v2.component("ticker", html="<span></span>\n<!-- shows nothing -->\n", js=script("ticker.js"), isolate_styles=False)


@contextmanager
def plainly() -> Iterator[None]:
    """Show an expected error as its sentence instead of a traceback."""
    try:
        yield
    except (StoreError, GroupscopeError) as error:
        st.error(escape(str(error)), icon=":material/error:")


def part(*, key: str, every_s: float | None = None) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A part of a page that reruns alone, every `every_s` seconds if given; its expected errors show as sentences."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def with_sentences(*arguments: object) -> None:
            with plainly():
                function(*arguments)
            if every_s is not None:
                _mount_ticker(key=f"tick.{key}", data={"every_ms": round(1000 * every_s)}, on_tick_change=lambda: None)

        return st.fragment(with_sentences, key=key)

    return decorate

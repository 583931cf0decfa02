"""Parts of a page that refresh by themselves, and the promise that a page shows a sentence where something is wrong."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import streamlit as st

from grpo_core.errors import GroupscopeError
from pages.components.text import escape
from storage.errors import StoreError

LIVE_S = 2.0


@contextmanager
def plainly() -> Iterator[None]:
    """Show an expected error as its sentence instead of a traceback."""
    try:
        yield
    except (StoreError, GroupscopeError) as error:
        st.error(escape(str(error)), icon=":material/error:")


def part(*, key: str, live: bool = False) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """A part of a page that reruns alone, every 2 s while `live`; its expected errors show as sentences."""

    def decorate(function: Callable[[], None]) -> Callable[[], None]:
        @functools.wraps(function)
        def with_sentences() -> None:
            with plainly():
                function()

        return st.fragment(with_sentences, run_every=LIVE_S if live else None, key=key)

    return decorate

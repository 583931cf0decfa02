"""View state in the address, so that every view opens again from it.

By hand rather than with bind="query-params": a bound value stays in the address on every other page and wins over a link.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from urllib.parse import urlencode

import streamlit as st


def choice(name: str, options: Collection[str], default: str) -> str:
    """The value of a parameter that must be one of `options`; anything else is the default."""
    value = st.query_params.get(name, default)
    return value if value in options else default


def whole(name: str) -> int | None:
    """A parameter as a whole number, or None."""
    value = st.query_params.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None


def decimal(name: str, default: float, low: float, high: float) -> float:
    """A parameter as a number between `low` and `high`; anything else is the default."""
    try:
        value = float(st.query_params.get(name, default))
    except ValueError:
        return default
    return value if low <= value <= high else default


def words(name: str, options: Collection[str]) -> list[str]:
    """A parameter as a list of `options`, comma-separated in the address."""
    return [word for word in st.query_params.get(name, "").split(",") if word in options]


def put(**values: object) -> None:
    """Set parameters; None and empty ones are removed."""
    for name, value in values.items():
        if value is None or value == "" or value == []:
            st.query_params.pop(name, None)
        else:
            st.query_params[name] = ",".join(value) if isinstance(value, list) else str(value)


def show(key: str, value: object) -> None:
    """Give the widget `key` a value. Only a new one, because setting it wipes what a person is typing there."""
    if key not in st.session_state or st.session_state[key] != value:
        st.session_state[key] = value


def sync(name: str, key: str, value: object, default: object = None) -> Callable[[], None]:
    """Show `value` in the widget `key`, and return the callback that writes what a person picks there to the address."""
    show(key, value)

    def write() -> None:
        picked = st.session_state[key]
        put(**{name: None if picked == default else picked})

    return write


def link(page: str, **values: object) -> str:
    """A relative address of a page, for a link that opens in a new tab."""
    return f"{page}?{urlencode({name: value for name, value in values.items() if value is not None})}"

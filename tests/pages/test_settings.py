import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st

SETTINGS = tomllib.loads((Path(__file__).resolve().parents[2] / ".streamlit" / "config.toml").read_text())


def named(table: dict, prefix: str = "") -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from named(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


@pytest.mark.parametrize("option", list(named(SETTINGS)))
def test_streamlit_knows_the_option(option: str) -> None:
    """Two of them are hidden options that a new version may drop without a word."""
    st.get_option(option)


def test_the_app_is_closed_to_others_by_default() -> None:
    assert SETTINGS["server"]["address"] == "127.0.0.1" and SETTINGS["server"]["allowedHosts"] == ["127.0.0.1", "localhost"]
    assert SETTINGS["client"]["showErrorDetails"] == "type" and SETTINGS["browser"]["gatherUsageStats"] is False

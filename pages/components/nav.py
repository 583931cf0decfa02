"""The pages by path, and moving between them."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import streamlit as st

PAGES = Path(__file__).resolve().parents[1]
RUNS, RUN, GROUP, LAUNCH = (PAGES / f"{name}.py" for name in ("runs", "run", "group", "launch"))


def goto(page: Path, **parameters: object) -> NoReturn:
    """Open a page with these parameters in its address; None ones are left out."""
    st.switch_page(page, query_params={name: str(value) for name, value in parameters.items() if value is not None})

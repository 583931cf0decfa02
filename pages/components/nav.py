"""The pages by path, and moving between them."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn
from urllib.parse import parse_qsl

import streamlit as st

PAGES = Path(__file__).resolve().parents[1]
RUNS, RUN, GROUP, LAUNCH = (PAGES / f"{name}.py" for name in ("runs", "run", "group", "launch"))
CONFLICTS, VARIANCE = (PAGES / f"{name}.py" for name in ("conflicts", "variance"))
DIAGNOSIS, LIKELIHOOD = (PAGES / f"{name}.py" for name in ("diagnosis", "likelihood"))
METHODS_PAGE, LAB, STUDY, SQL = (PAGES / f"{name}.py" for name in ("methods", "lab", "study", "sql"))


def goto(page: Path, /, **parameters: object) -> NoReturn:
    """Open a page with these parameters in its address; None ones are left out."""
    st.switch_page(page, query_params={name: str(value) for name, value in parameters.items() if value is not None})


def follow(href: str | None) -> None:
    """Open the page of a relative address such as `run?run=a&step=3` (url.link), as a component hands it back; None and others do nothing."""
    name, _, query = (href or "").partition("?")
    if PAGES / f"{name}.py" in (RUN, GROUP, LAUNCH, DIAGNOSIS, LIKELIHOOD, CONFLICTS, VARIANCE, LAB):
        goto(PAGES / f"{name}.py", **dict(parse_qsl(query)))

"""What a page shows, for tests: its words, and the data given to a component."""

from __future__ import annotations

import json

from streamlit.testing.v1 import AppTest


def words_of(app: AppTest) -> str:
    """Every text on the page and in the sidebar, Markdown's backslashes taken out."""
    kinds = ("title", "header", "subheader", "markdown", "caption", "text", "code", "error", "warning", "info", "success")
    return "\n".join(element.value for kind in kinds for element in app.get(kind)).replace("\\", "")


def components_of(app: AppTest) -> list[dict]:
    """The data of every mounted component, in order."""
    return [json.loads(element.proto.json) for element in app.get("bidi_component")]


def rows_of(app: AppTest, key: str) -> dict:
    """The data of the component with this key."""
    return next(json.loads(element.proto.json) for element in app.get("bidi_component") if element.proto.id.endswith(f"-{key}"))

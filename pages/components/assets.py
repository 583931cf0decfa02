"""Files the browser loads: Plotly's bundle from the installed wheel, and the components' own scripts and styles."""

from __future__ import annotations

from pathlib import Path

import plotly

HERE = Path(__file__).parent
PLOTLY_FILE = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
PLOTLY_PATH = f"/assets/plotly-{plotly.__version__}.min.js"
ICON = HERE / "icon.png"
LOGO = HERE / "logo.svg"
STYLE = HERE / "page.css"


def script(name: str) -> str:
    """The text of `name` beside this file, e.g. "live_plot.js"."""
    return (HERE / name).read_text(encoding="utf-8")

"""A chart that is updated in place: zoom, hover and the shared cursor survive a live refresh.

Streamlit 1.67's own st.plotly_chart is mounted anew at every change of data, which loses all three.
"""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from pages.components.assets import PLOTLY_PATH, script

_HTML = """
<div class="live-plot"><div class="canvas"></div><div class="hairline"></div></div>
"""
_CSS = """
.live-plot { position: relative; width: 100%; }
.live-plot .canvas { width: 100%; height: 100%; }
.live-plot:not([data-drawn])::after {
  content: "drawing…"; position: absolute; inset: 0; display: grid; place-items: center; font-size: 13px; color: var(--st-gray-color);
  opacity: 0; animation: live-plot-wait .3s .7s forwards;
}
@keyframes live-plot-wait { to { opacity: .8; } }
.live-plot .hairline {
  position: absolute; top: 26px; bottom: 36px; width: 1px; background: var(--st-gray-color); opacity: .55; pointer-events: none; display: none;
}
"""
_mount = st.components.v2.component("live_plot", html=_HTML, css=_CSS, js=script("live_plot.js"), isolate_styles=False)


def live_plot(figure: str, *, key: str, height: int, alt: str, link: str, reveal: str = "", on_step: Callable[[], None]) -> int | None:
    """Draw `figure` (JSON of charts.figure); returns the step whose point was just clicked, if any.

    Plots with the same `link` zoom together; a click scrolls to the element that the CSS selector `reveal` finds.
    `on_step` runs before the page does, with the step in `st.session_state[key].step`.
    """
    base = (st.get_option("server.baseUrlPath") or "").strip("/")
    source = f"/{base}{PLOTLY_PATH}" if base else PLOTLY_PATH
    data = {"figure": figure, "plotly": source, "height": height, "alt": alt, "link": link, "reveal": reveal}
    clicked = _mount(key=key, data=data, height=height, on_step_change=on_step).step
    return None if clicked is None else int(clicked)

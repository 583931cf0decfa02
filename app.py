"""The launcher: `streamlit run app.py`.

No page code here. Streamlit would serve a folder `pages/` beside its main script around that script; here the main script
is pages/frame.py, which has no such folder beside it, so every request passes the guard and every page passes the frame.
"""

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

from pages.components.assets import PLOTLY_FILE, PLOTLY_PATH
from pages.components.guard import Guard, settings


async def plotly_js(request: Request) -> FileResponse:
    """Plotly's own bundle; the version is in the path, so a browser may keep it for ever."""
    return FileResponse(PLOTLY_FILE, media_type="text/javascript", headers={"Cache-Control": "public, max-age=31536000, immutable"})


app = st.App(
    Path(__file__).parent / "pages" / "frame.py",
    routes=[Route(PLOTLY_PATH, plotly_js)],
    middleware=[Middleware(Guard, **settings())],
)

"""How long pages take to open, whole: the real scripts, run as the app runs them, on runs of several sizes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import numpy as np
import streamlit as st
from streamlit.testing.v1 import AppTest
from tqdm import tqdm

from grpo_core.config import make_config
from grpo_core.launch.folder import STORE_VARIABLE, RunFolder
from tests.pages.seeded import say

FRAME = Path(__file__).parents[3] / "pages" / "frame.py"
PAGES = ("run", "diagnosis", "likelihood", "variance", "conflicts", "group")
TIMES = 3
PATIENCE_S = 300.0


def measure(root: Path, steps: Mapping[int, int], run_ids: Mapping[int, str]) -> dict[int, dict[str, dict[str, float]]]:
    """Median milliseconds by size and page: `first` in an app that knows nothing of the run yet, `again` in one that has shown it; sizes take turns."""
    for size, run_id in run_ids.items():
        config = make_config({"steps": steps[size], "prompts_per_step": 8, "group_size": 8})
        folder = RunFolder(root, run_id)
        folder.write_config(config)
        say(folder, config, steps[size], "finished")
    logging.getLogger("streamlit").setLevel(logging.ERROR)  # it misses a browser
    ms: dict[int, dict[str, dict[str, list[float]]]] = {size: {page: {"first": [], "again": []} for page in PAGES} for size in run_ids}
    with patch.dict(os.environ, {STORE_VARIABLE: str(root)}):
        for _ in tqdm(range(TIMES), desc="growth: opening pages", leave=False):
            for page in PAGES:
                for size, run_id in run_ids.items():
                    first, again = _open(page, run_id, steps[size] // 2)
                    ms[size][page]["first"].append(first)
                    ms[size][page]["again"].append(again)
    return {size: {page: {when: float(np.median(found)) for when, found in both.items()} for page, both in pages.items()} for size, pages in ms.items()}


def _open(page: str, run_id: str, step: int) -> tuple[float, float]:
    st.cache_data.clear()
    st.cache_resource.clear()
    app = AppTest.from_file(str(FRAME), default_timeout=PATIENCE_S)
    app.switch_page(f"{page}.py")
    app.query_params.update({"run": run_id, "step": str(step), "group": "0"})
    times = []
    for _ in range(2):
        began = time.perf_counter()
        app.run()
        times.append(1e3 * (time.perf_counter() - began))
        if app.exception or app.error:
            raise RuntimeError(f"page {page} of {run_id}: {[e.value for e in (*app.exception, *app.error)]}")
    return times[0], times[1]

"""docs/scale.md: every figure of its plan follows from the constants of the code, the measured bytes per token and the prices it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from grpo_core.launch.folder import CATALOG_VARIABLE, MIRROR_VARIABLE, STORE_VARIABLE
from grpo_core.watch.mirroring import LAST_S, PASS_EVERY_S
from storage.cached import CACHE_VARIABLE
from storage.compaction import BLOCK, FAN_IN, LARGEST_BYTES
from storage.lakehouse import INSTALL
from storage.mirror import SLOW_S
from storage.remote import DEFAULT_LIMIT_GB, FRESH_S, LIMIT_VARIABLE
from storage.schema import TABLES

DOC = (Path(__file__).parents[1] / "docs" / "scale.md").read_text(encoding="utf-8")
WORDS = " ".join(DOC.split())

TOKENS, RUNS, STEP, PACE = 1e12, 1000, 262_144, 10_000
BYTES_PER_TOKEN, STEP_ROW_BYTES, GROUPS_SHARE = 7.9, 2_600, 0.09
GB_MONTH, PUT, GET = 0.023, 5e-6, 0.4e-6

run_tokens = TOKENS / RUNS
steps = round(run_tokens / STEP)
seconds = run_tokens / PACE
rollout_bytes = run_tokens * (BYTES_PER_TOKEN - GROUPS_SHARE) - steps * STEP_ROW_BYTES
block_bytes = BLOCK * STEP * rollout_bytes / run_tokens
live_files = steps // BLOCK + BLOCK - 1
sealed_files = -(-rollout_bytes // LARGEST_BYTES) + 2
puts = {"index": seconds / PASS_EVERY_S, "segments": 3 * (steps + steps // BLOCK), "texts": 2 * seconds / SLOW_S, "sealed": sealed_files + 1}

FIGURES = {
    "tokens of a run": f"{run_tokens:,.0f}",
    "steps of a run": f"{steps:,}",
    "hours of a run": f"{seconds / 3600:.0f}",
    f"bytes of {BLOCK} steps of `rollouts`": f"{block_bytes / 1e6:.0f} MB",
    f"bytes of {BLOCK * FAN_IN:,} steps of `rollouts`": f"{block_bytes * FAN_IN / 1e9:.1f} GB",
    "files of a table, live, at most": f"{live_files}",
    "files of a run, sealed": f"{sealed_files:.0f}",
    "files of all runs": f"{RUNS * sealed_files:,.0f}",
    "bytes of a run": f"{run_tokens * BYTES_PER_TOKEN / 1e9:.1f} GB",
    "bytes of all runs": f"{TOKENS * BYTES_PER_TOKEN / 1e12:.1f} TB",
    "bytes of a run's `steps`": f"{steps * STEP_ROW_BYTES / 1e6:.0f} MB",
    "bytes of a run's `groups`": f"{run_tokens * GROUPS_SHARE / 1e6:.0f} MB",
    "rows of the lake's file list": f"{RUNS * sealed_files:,.0f}",
    "rows of the lake's column statistics, at least": f"{RUNS * sum(len(t.columns) * n for t, n in zip(TABLES.values(), (1, 1, sealed_files - 2))):,.0f}",
    "PUT requests of a run: index": f"{puts['index']:,.0f}",
    "PUT requests of a run: segments": f"{puts['segments']:,}",
    "PUT requests of a run: small texts": f"{puts['texts']:,.0f}",
    "PUT requests of all runs": f"${RUNS * sum(puts.values()) * PUT:,.0f} once",
    "storage of all runs": f"${TOKENS * BYTES_PER_TOKEN / 1e9 * GB_MONTH:,.0f} a month",
    "LIST requests of an app that is always open": f"${30 * 86400 / FRESH_S * PUT:,.0f} a month",
    "GET requests of reading all tokens once": f"${RUNS * sealed_files * GET:.2f}",
}


@pytest.mark.parametrize(("what", "value"), FIGURES.items())
def test_a_figure_of_the_plan(what: str, value: str) -> None:
    found = re.search(rf"^\| {re.escape(what)} \| [^|]+ \| ([^|]+) \|$", DOC, re.MULTILINE)
    assert found, f"no row: | {what} | <formula> | {value} |"
    assert found[1] == value


def test_what_it_says_of_the_code() -> None:
    for said in (
        f"every {PASS_EVERY_S:g} seconds", f"up to {LAST_S / 3600:g} hour", f"[default: {DEFAULT_LIMIT_GB:g}]", f"{LARGEST_BYTES >> 20} MiB",
        f"{BLOCK} steps, later of {BLOCK * FAN_IN:,}", INSTALL,
    ):  # fmt: skip
        assert said in WORDS, said
    for variable in (CATALOG_VARIABLE, MIRROR_VARIABLE, STORE_VARIABLE, CACHE_VARIABLE, LIMIT_VARIABLE):
        assert f"`{variable}`" in DOC

"""`python -m grpo_core compare`, with real runs: the table, the JSON, and what an interruption leaves."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from grpo_core.beside import PROJECT_ROOT
from grpo_core.cli import main
from grpo_core.commands.compare import _each_its_own, _text
from grpo_core.launch.folder import RunFolder
from grpo_core.launch.status import run_status
from grpo_core.launch.stop import stop_run
from grpo_core.study import Outcome
from storage.catalog import Catalog
from storage.reader import Store
from tests.launch.conftest import wait_for

pytestmark = pytest.mark.xdist_group("processes")

QUICK = ["--warmup-steps", "3", "--prompts-per-step", "2", "--group-size", "2", "--eval-prompts", "4", "--device", "cpu"]


def test_methods_side_by_side(store_root: Path, capsys) -> None:
    assert main(["compare", "--methods", "grpo, opo-2505.23585", "--seeds", "1", "--seed", "5", "--jobs", "2", "--steps", "2", *QUICK, "--json"]) == 0
    study = json.loads(capsys.readouterr().out)
    runs = study["runs"]
    assert [(r["method"], r["seed"], r["state"], r["steps"]) for r in runs] == [("grpo", 5, "finished", 2), ("opo", 5, "finished", 2)]
    assert all(0 <= r["held_out_first"] <= r["held_out_best"] <= 1 and r["wall_s"] > 0 and math.isfinite(r["reward"]) for r in runs)
    assert all(tags == [study["study"]] for tags in Catalog(store_root).annotations()["tags"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--methods", "grpo,grop"], "error: unknown method 'grop'; known: "),
        (["--methods", "grpo,grpo"], "error: --methods names methods once each"),
        (["--methods", ","], "error: --methods names methods once each"),
        (["--methods", "grpo", "--method", "dapo"], "error: compare takes its methods from --methods; leave out --method dapo"),
        (["--methods", "grpo,dapo", "--llds-coef", "0.2"], "error: llds_coef is set but method grpo does not read it"),
        (["--methods", "grpo,grpo_llds", "--llds-coef", "-1"], "error: llds_coef: "),
        (["--methods", "grpo", "--seeds", "0"], "error: Invalid value for '--seeds'"),
    ],
)
def test_bad_input_starts_nothing(arguments: list[str], sentence: str, store_root: Path, capsys) -> None:
    assert main(["compare", *arguments]) == 2
    assert capsys.readouterr().err.startswith(sentence)
    assert not list(store_root.glob("runs/*"))


def test_an_option_goes_to_the_methods_that_read_it() -> None:
    settings = {"llds_coef": 0.5, "lr": 1e-4}
    assert _each_its_own(["grpo", "grpo_llds"], settings) == {"grpo": {"method": "grpo", "lr": 1e-4}, "grpo_llds": {"method": "grpo_llds", **settings}}
    assert _each_its_own(["grpo"], settings) == {"grpo": {"method": "grpo", **settings}}


def test_the_printed_table() -> None:
    """A row per method in order of its first run: mean ± standard deviation (n−1) of what is available, and how often which verdict."""

    def ran(method: str, seed: int, last: float | None, verdict: str, cause: str = "") -> Outcome:
        figures = dict(reward=0.5, held_out_first=0.25, held_out_best=last, held_out_last=last, wall_s=10.0 + seed)
        return Outcome(method=method, seed=seed, run_id="r", state="finished", steps=9, verdict=verdict, cause=cause, **figures)

    first = [ran("nthr", 0, 0.8, "healthy"), ran("grpo", 0, 0.5, "collapsed", "entropy collapse")]
    outcomes = [*first, ran("nthr", 1, 0.6, "healthy"), ran("grpo", 1, None, "healthy")]
    said = _text("study-20260101-000000", outcomes).splitlines()
    assert said[0].startswith("NTHR ends highest on held-out prompts with 0.70 ± 0.14 over 2 seeds; next is GRPO with 0.50")
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in said if line.startswith(("METHOD", "nthr", "grpo"))]
    assert cells == [
        ["METHOD", "SEEDS", "REWARD", "HELD-OUT: START", "BEST", "END", "VERDICTS", "WALL S"],
        ["nthr", "2", "0.50 ± 0.00", "0.25 ± 0.00", "0.70 ± 0.14", "0.70 ± 0.14", "2 × healthy", "10 ± 1"],
        ["grpo", "2", "0.50 ± 0.00", "0.25 ± 0.00", "0.50", "0.50", "1 × collapsed (entropy collapse), 1 × healthy", "10 ± 1"],
    ]
    assert said[-1].endswith("runs are tagged study-20260101-000000")


@pytest.fixture
def comparing(store_root: Path) -> Iterator[subprocess.Popen]:
    """A study of two long runs, in a process of its own."""
    command = [sys.executable, "-m", "grpo_core", "compare", "--methods", "grpo,opo", "--seeds", "1", "--steps", "5000", *QUICK, "--store", str(store_root)]
    with subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()
    for run_id in Store(store_root).run_ids():
        stop_run(store_root, run_id, grace_s=0)


def test_ctrl_c_stops_its_runs(comparing: subprocess.Popen, store_root: Path) -> None:
    until = time.monotonic() + 120
    while not (run_ids := Store(store_root).run_ids()):
        assert time.monotonic() < until and comparing.poll() is None
        time.sleep(0.05)
    wait_for(RunFolder.open(store_root, run_ids[0]), lambda status: status.step > 0)
    comparing.send_signal(signal.SIGINT)
    _, said = comparing.communicate(timeout=120)
    assert comparing.returncode == 130 and said.splitlines()[-1] == "error: interrupted"
    assert Store(store_root).run_ids() == run_ids  # the second had not begun
    assert run_status(store_root, run_ids[0]).state == "stopped"

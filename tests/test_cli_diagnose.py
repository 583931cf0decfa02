"""`python -m grpo_core diagnose`, on a real run that collapses: live, sealed, damaged, and before it can be judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grpo_core.cli import main
from grpo_core.config import make_config
from grpo_core.diagnosis.panel import SIGNALS
from grpo_core.launch.start import create_run
from storage import segments
from tests.collapsing import STEPS, recorded


def as_json(capsys: pytest.CaptureFixture, run_id: str) -> tuple[int, dict]:
    code = main(["diagnose", run_id, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_collapsed_run_live_and_sealed(store_root: Path, model_cache: Path, capsys) -> None:
    folder = recorded(store_root, model_cache, checkpoints=(1, 6))
    code, live = as_json(capsys, folder.run_id)
    assert code == 3
    assert (live["run_id"], live["step"], live["planned_steps"], live["level"]) == (folder.run_id, STEPS - 1, STEPS, "collapsed")
    assert live["causes"][0]["name"] == "displacement" and live["unreadable"] == []
    assert live["causes"][0]["since_step"] == live["since_step"] <= 6
    assert len(live["signals"]) == len(SIGNALS) + 1  # and whether the recording agrees with itself
    probe = next(s for s in live["signals"] if s["name"] == "probe")
    assert set(probe) == {"name", "title", "level", "value", "unit", "since_step", "sentence", "evidence", "column"}
    assert probe["unit"] == "nats/token" and probe["value"] < -0.5
    assert set(probe["evidence"][0]) == {"label", "value", "unit", "step", "group", "rollout", "token"}
    starved = next(s for s in live["signals"] if s["name"] == "starvation")
    assert [(e["value"], e["group"]) for e in starved["evidence"] if e["group"] is not None] == [(0, 0), (0, 1), (0, 2)]
    assert live["remedy"]["fork_from"] == max(c for c in (1, 6) if c <= live["since_step"])

    segments.seal(folder.path)
    code, sealed = as_json(capsys, folder.run_id)
    assert code == 3 and sealed == live


def test_the_text_says_the_verdict_first_and_ends_with_a_command_that_forks(store_root: Path, model_cache: Path, capsys) -> None:
    folder = recorded(store_root, model_cache, checkpoints=(1,))
    assert main(["diagnose", "too fast"]) == 3
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0].startswith("Collapsed: ") and f"run {folder.run_id} (too fast), as of step {STEPS - 1} ({STEPS} of {STEPS} steps)" in lines[2]
    order = [text.index(f"\n{title}\n") for title in ("Causes", "Remedy", "Signals", "Phases of likelihood displacement")]
    assert order == sorted(order)
    assert "correct rollouts of a group" in text and "step 1 group 2" in text
    assert f"  python -m grpo_core fork {folder.run_id} --step 1 --" in text
    levels = [line.split()[0] for line in text[order[2] :].splitlines()[3:] if line.startswith("  ")][: len(SIGNALS) + 1]
    ranks = ["collapsed", "unhealthy", "watch", "healthy", "not"]
    assert [ranks.index(level) for level in levels] == sorted(ranks.index(level) for level in levels)


def test_a_damaged_segment_is_named_and_the_rest_is_judged(store_root: Path, model_cache: Path, capsys) -> None:
    folder = recorded(store_root, model_cache)
    files = sorted((folder.path / "steps").glob("s*.parquet"))
    assert len(files) == STEPS
    files[5].write_bytes(files[5].read_bytes()[:-40])
    code, damaged = as_json(capsys, folder.run_id)
    assert code == 3 and damaged["level"] == "collapsed" and damaged["step"] == STEPS - 1
    assert len(damaged["unreadable"]) == 1 and files[5].name in damaged["unreadable"][0]
    main(["diagnose", folder.run_id])
    assert "\nNot readable, so not in this diagnosis\n" in capsys.readouterr().out


def test_too_little_is_no_verdict_and_no_alarm(store_root: Path, model_cache: Path, capsys) -> None:
    for folder in (create_run(store_root, make_config({})), recorded(store_root, model_cache, steps=1)):
        code, report = as_json(capsys, folder.run_id)
        assert code == 0 and report["causes"] == [] and report["remedy"] is None
        assert report["level"] in ("not available", "healthy") and report["signals"]
    folder.config.write_text("{")
    assert as_json(capsys, folder.run_id)[0] == 0  # facts that cannot be known are not needed

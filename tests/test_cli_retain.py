"""`retain` as a person meets it: it says what goes and what stays, and takes nothing unasked."""

from __future__ import annotations

import io
import json
import shutil
import sys
import time
from pathlib import Path

import duckdb
import pytest

from grpo_core.cli import main
from grpo_core.config import make_config
from grpo_core.launch.retain import bytes_of, retain_command, retention_of
from grpo_core.notes import structural_notes
from storage.layout import list_segments
from storage.reader import Store
from storage.retention import Retention
from storage.segments import seal
from storage.thinning import RECORD, read_record
from tests.pages.seeded import hasten_merges, make_merged_run, make_run

STEPS = 20
ASKED = ("--keep", "every", "--every", "5", "--recent", "2")


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    hasten_merges(monkeypatch)


@pytest.fixture
def run_id(store_root: Path) -> str:
    """An ended run of 20 steps in files of 8, 8 and one each."""
    return make_merged_run(store_root, {"name": "long", "steps": STEPS}, recorded=STEPS)


@pytest.fixture
def run_dir(store_root: Path, run_id: str) -> Path:
    return store_root / "runs" / run_id


def said(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def thinned(store_root: Path, run_id: str) -> int:
    return int(Store(store_root).frame(run_id, "select count(*) as n from rollouts where thinned")["n"].iloc[0])


def test_a_dry_run_says_what_goes_and_why_the_rest_stays(store_root: Path, run_id: str, run_dir: Path, capsys) -> None:
    code, out, err = said(capsys, "retain", "long", *ASKED, "--dry-run")
    head, columns, *rows = out.splitlines()
    assert (code, err) == (0, "") and head.startswith(f"run {run_id}, policy 'every 5th step': token lists take ")
    assert columns.split() == ["TOKENS", "STEPS", "GROUPS", "SIZE"] and rows[-1].split()[0] == "taken" and rows[-1].endswith("estimated")
    assert {"kept: every 5th step", "kept: newest steps", "kept: lost most likelihood", "kept: not merged yet"} <= {row.split("  ")[0] for row in rows}
    assert thinned(store_root, run_id) == 0 and not (run_dir / RECORD).exists()
    code, out, _ = said(capsys, "retain", "long", *ASKED, "--dry-run", "--json")
    facts = json.loads(out)
    assert facts["thinned"] == [] and sum(one["groups"] for one in facts["kept"]) + facts["groups"] == STEPS * 6


def test_nothing_is_taken_where_nobody_confirms(store_root: Path, run_id: str, capsys, monkeypatch) -> None:
    code, _, err = said(capsys, "retain", "long", *ASKED)
    assert code == 2 and err == "error: nothing was taken, for nobody confirmed it: add --yes, or run this in a terminal; --dry-run only looks\n"

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    code, _, err = said(capsys, "retain", "long", *ASKED)
    assert code == 130 and f"of run {run_id} for good" in err and thinned(store_root, run_id) == 0
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    code, out, _ = said(capsys, "retain", "long", *ASKED)
    assert code == 0 and "groups have no tokens any more, and keep all their figures" in out and thinned(store_root, run_id) > 0


@pytest.mark.parametrize("sealed", [False, True])
def test_confirmed_it_frees_what_it_said_and_a_second_time_finds_nothing(store_root: Path, run_id: str, run_dir: Path, capsys, sealed: bool) -> None:
    if sealed:
        seal(run_dir)
    code, out, _ = said(capsys, "retain", "long", *ASKED, "--yes", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["freed_bytes"] == pytest.approx(facts["freed_bytes_estimated"], rel=0.15)
    assert [one["by"] for one in facts["thinned"]] == ["the command line"] * (1 if sealed else 2)
    assert thinned(store_root, run_id) == sum(one["rollouts"] for one in facts["thinned"]) == sum(one.rollouts for one in read_record(run_dir))
    code, out, _ = said(capsys, "retain", "long", *ASKED, "--yes")
    assert code == 0 and "nothing to take" in out and "\nthinned before " in out
    shown = said(capsys, "show", "long", "--json")[1]
    assert json.loads(shown)["bytes"] < facts["freed_bytes"] + json.loads(shown)["bytes"]


def test_a_second_call_removes_what_a_killed_one_left(store_root: Path, run_id: str, run_dir: Path, capsys) -> None:
    old = {path: path.read_bytes() for path in (run_dir / "rollouts").glob("c*.parquet")}
    said(capsys, "retain", "long", *ASKED, "--yes")
    for path, data in old.items():
        path.write_bytes(data)
    time.sleep(0.05)
    said(capsys, "retain", "long", *ASKED, "--yes")
    assert len([s for s in list_segments(run_dir / "rollouts") if s.merged]) == 2


def test_a_budget_that_cannot_be_met_says_by_how_much(run_id: str, capsys) -> None:
    code, out, _ = said(capsys, "retain", "long", "--keep", "budget", "--budget", "1kB", "--recent", "2", "--dry-run")
    assert code == 0 and "the budget cannot be met: what always stays is " in out


def test_a_run_that_lives_is_refused(store_root: Path, capsys) -> None:
    make_run(store_root, {"name": "live", "steps": 30}, recorded=3, state="running")
    code, out, err = said(capsys, "retain", "live", "--keep", "flagged", "--yes")
    assert code == 1 and out == "" and "is running, and only its own process may take its tokens; stop it first" in err


@pytest.mark.parametrize(("form", "name"), [("duckdb", "run.duckdb"), ("parquet", "run")])
def test_an_export_carries_what_was_thinned(store_root: Path, run_id: str, run_dir: Path, tmp_path: Path, capsys, form: str, name: str) -> None:
    said(capsys, "retain", "long", *ASKED, "--yes")
    record, count = read_record(run_dir), thinned(store_root, run_id)
    assert said(capsys, "export", "long", "--to", str(tmp_path / name), "--format", form)[0] == 0
    shutil.rmtree(store_root / "runs")
    code, _, err = said(capsys, "import", str(tmp_path / name))
    assert code == 0, err
    assert read_record(store_root / "runs" / run_id) == record and thinned(store_root, run_id) == count > 0
    assert Store(store_root).damaged(run_id) == []


def test_an_export_whose_record_cannot_be_is_refused(store_root: Path, run_id: str, tmp_path: Path, capsys) -> None:
    said(capsys, "retain", "long", *ASKED, "--yes")
    said(capsys, "export", "long", "--to", str(tmp_path / "run"), "--format", "parquet")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    about["retention"][0]["at"] = 1e300
    (tmp_path / "run" / "run.json").write_text(json.dumps(about))
    shutil.rmtree(store_root / "runs")
    code, _, err = said(capsys, "import", str(tmp_path / "run"))
    assert code != 0 and "says of its thinned tokens what cannot be (0.at" in err and not list(store_root.glob("runs/*/store.json"))


@pytest.mark.parametrize("change", ["set thinned = null where thinned", "set thinned = true where thinned is null"])
def test_an_export_in_which_tokens_and_their_mark_disagree_is_refused(store_root: Path, run_id: str, tmp_path: Path, capsys, change: str) -> None:
    said(capsys, "retain", "long", *ASKED, "--yes")
    said(capsys, "export", "long", "--to", str(tmp_path / "run.duckdb"), "--format", "duckdb")
    with duckdb.connect(str(tmp_path / "run.duckdb")) as database:
        database.execute(f"update rollouts {change}")
    code, _, err = said(capsys, "import", str(tmp_path / "run.duckdb"), "--store", str(tmp_path / "other"))
    assert code != 0 and "has a rollout without tokens that is not marked as thinned, or the reverse" in err
    assert not list((tmp_path / "other").glob("runs/*/store.json"))


@pytest.mark.parametrize(
    ("text", "size"), [("500MB", 500_000_000), ("1.5 GiB", 1_610_612_736), ("2g", 2_000_000_000), ("7", 7), ("3 kB", 3000), ("1TiB", 2**40)]
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert bytes_of(text) == size


def test_the_command_of_a_policy_asks_for_it() -> None:
    assert retain_command("r", Retention(keep="every", every=4))[-3:] == ["every", "--every", "4"]
    assert retain_command("r", Retention(keep="budget", budget_bytes=2_500_000, recent=0))[-4:] == ["--budget", "2500000", "--recent", "0"]
    assert retain_command("r", Retention(keep="budget", budget_bytes=3_000_000))[-2:] == ["--budget", "3MB"]


def test_a_runs_settings_are_a_policy() -> None:
    assert retention_of(make_config({})) == Retention()
    assert retention_of(make_config({"retention": "every", "retention_every": 7})) == Retention(keep="every", every=7)
    assert retention_of(make_config({"retention": "budget", "retention_budget": 1.5, "retention_recent": 9})) == Retention(
        keep="budget", budget_bytes=1_500_000_000, recent=9
    )
    (note,) = structural_notes(make_config({"retention": "flagged", "record": "off"}))
    assert "thins nothing in this run" in note

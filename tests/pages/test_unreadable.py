"""A file with one bit flipped: pages name it and the steps they go without, and show everything else."""

from pathlib import Path

import pytest

from storage.layout import list_segments
from tests.pages.looking import words_of
from tests.pages.seeded import make_run

STEP = 7
OF_A_STEP = ("run", "group", "likelihood", "conflicts", "lab")


@pytest.fixture
def run_id(store_root: Path) -> str:
    return make_run(store_root, {"name": "sinking", "steps": 12, "epochs": 4}, recorded=12, state="finished", sinking=True)


def harm(store_root: Path, run_id: str, table: str) -> str:
    """One bit of the file with STEP; the file's name."""
    path = list_segments(store_root / "runs" / run_id / table)[STEP].path
    content = bytearray(path.read_bytes())
    content[60] ^= 8
    path.write_bytes(content)
    return path.name


def said_on(open_page, store_root: Path, page: str, **address: object) -> str:
    app = open_page(store_root, page, **address)
    said = "\n".join([words_of(app), *(one.value for kind in ("error", "warning", "info") for one in getattr(app, kind))])
    return said.replace("\\", "")


@pytest.mark.parametrize("table", ["rollouts", "groups"])
def test_the_step_is_named_where_it_is_asked_for_and_nowhere_else(store_root: Path, run_id: str, open_page, table: str) -> None:
    name = harm(store_root, run_id, table)
    for page in OF_A_STEP:
        assert f"{table}/{name} cannot be read (its bytes do not match" in said_on(open_page, store_root, page, run=run_id, step=STEP, group=0), page
        assert "cannot be read" not in said_on(open_page, store_root, page, run=run_id, step=STEP - 1, group=0), page


@pytest.mark.parametrize("page", ["run", "diagnosis", "likelihood", "variance"])
def test_what_goes_without_a_step_says_so(store_root: Path, run_id: str, open_page, page: str) -> None:
    name = harm(store_root, run_id, "steps")
    said = said_on(open_page, store_root, page, run=run_id)
    assert f"Everything here goes without step {STEP}: " in said and f"steps/{name} cannot be read (its bytes do not match" in said


def test_a_step_without_its_figures_is_not_called_unrecorded(store_root: Path, run_id: str, open_page) -> None:
    name = harm(store_root, run_id, "steps")
    said = said_on(open_page, store_root, "run", run=run_id, step=STEP)
    assert f"Step {STEP} cannot be read" in said and name in said and f"The nearest steps that can: {STEP - 1} and {STEP + 1}." in said
    assert "not recorded" not in said

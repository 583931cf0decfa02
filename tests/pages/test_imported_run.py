"""A run that was imported, on every page, as one that ended here."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from grpo_core.launch.exchange import about_run, import_run
from storage.queries.export import export_database
from storage.reader import Store
from tests.pages.seeded import make_run

PAGES = ("runs", "run", "diagnosis", "likelihood", "conflicts", "variance", "group", "lab", "sql", "study", "launch")


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """(store it was trained in, store it was imported into, run id): a finished run."""
    here, there, file = (tmp_path_factory.mktemp(name) for name in ("here", "there", "export"))
    run_id = make_run(here, {"name": "sinking", "steps": 20, "epochs": 4}, recorded=20, state="finished", sinking=True)
    export_database(Store(here), run_id, file / "run.duckdb", about_run(here, run_id, name="sinking"))
    import_run(there, file / "run.duckdb")
    return here, there, run_id


def shown(app: AppTest) -> list[str]:
    """Texts and figures of a page."""
    kinds = (app.markdown, app.caption, app.subheader, app.metric, app.info, app.warning, app.error)
    return [str(element.value) for kind in kinds for element in kind]


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_on_it(open_page, imported: tuple[Path, Path, str], page: str) -> None:
    _, there, run_id = imported
    texts = shown(open_page(there, page, run=run_id))
    assert not [text for text in texts if "cannot" in text and "import" not in text], texts


@pytest.mark.parametrize("page", ["diagnosis", "group", "likelihood", "variance"])
def test_what_was_recorded_reads_the_same(open_page, imported: tuple[Path, Path, str], page: str) -> None:
    here, there, run_id = imported
    before, after = (shown(open_page(root, page, run=run_id)) for root in (here, there))
    assert before and after == before

"""A store at a URL on every page: as the one it is a mirror of, only read, and said to be old while the place does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from storage.mirror import Mirror
from storage.places import Place, Unreachable, open_place
from tests.pages.seeded import make_run
from tests.pages.test_imported_run import PAGES, shown


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, str]]:
    """(store here, its mirror's URL, run id): a finished run."""
    here, there, cache = (tmp_path_factory.mktemp(name) for name in ("here", "there", "cache"))
    run_id = make_run(here, {"name": "sinking", "steps": 20, "epochs": 4}, recorded=20, state="finished", sinking=True)
    Mirror(here / "runs" / run_id, open_place(f"file://{there}")).push(0.0, final=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROUPSCOPE_CACHE", str(cache))
        yield here, f"file://{there}", run_id


def texts(app: AppTest) -> list[str]:
    return [text for text in shown(app) if " updated " not in text]  # how long ago


@pytest.mark.parametrize("page", PAGES)
def test_every_page_shows_what_it_shows_of_the_store_itself(open_page, mirrored: tuple[Path, str, str], page: str) -> None:
    here, url, run_id = mirrored
    assert texts(open_page(url, page, run=run_id)) == texts(open_page(here, page, run=run_id))


def test_a_launch_is_refused_and_a_place_that_is_away_is_said(open_page, mirrored: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, url, run_id = mirrored
    monkeypatch.setattr("storage.remote.FRESH_S", 0.0)
    app = open_page(url, "launch")
    next(button for button in app.button if "aunch" in button.label).click().run()
    assert not app.exception and any("only read from here" in error.value for error in app.error), shown(app)

    def away(self: Place, folder: str) -> dict[str, str]:
        raise Unreachable(f"cannot list {self.url} (gone)")

    monkeypatch.setattr(Place, "names", away)
    open_page(url, "run", run=run_id)
    assert any("gone" in text and "is shown" in text for text in shown(open_page(url, "run", run=run_id)))

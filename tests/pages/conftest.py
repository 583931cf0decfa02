from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from tests.pages.seeded import seed_store

ROOT = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker runs all tests on the seeded store, so that it is made once."""
    for item in items:
        if "seeded" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("seeded"))


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A store with one run of every state, read-only by agreement: (root, {name: run id})."""
    root = tmp_path_factory.mktemp("seeded")
    return root, seed_store(root, steps=40)


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch):
    """open_page(root, page, **parameters) runs a page behind the frame and insists that it raised nothing."""

    def open_page(root: Path, page: str = "runs", **parameters: object) -> AppTest:
        monkeypatch.setenv("GROUPSCOPE_STORE", str(root))
        app = AppTest.from_file(str(ROOT / "pages" / "frame.py"), default_timeout=60)
        app.switch_page(f"{page}.py")
        for name, value in parameters.items():
            app.query_params[name] = str(value)
        app.run()
        assert not app.exception
        return app

    return open_page

"""The app in a real Chromium: a server per store, one browser per worker, and a page that must stay free of errors."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.pages.seeded import seed_store

ROOT = Path(__file__).resolve().parents[2]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All browser tests share one worker: one server for the seeded store, and a second Chromium would only slow the first.

    Each may run twice: on a loaded machine a click that left the browser together with a tick was answered for the part that ticked only.
    Dialogs stand that since; other clicks of a live page may not. A second failure is a failure, and the first shows as "rerun".
    """
    for item in items:
        if Path(item.fspath).is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.xdist_group("browser"))
            item.add_marker(pytest.mark.flaky(reruns=1))


def start(store: Path, **environment: str) -> tuple[subprocess.Popen, str]:
    """The app on a free port over a store, as `streamlit run app.py` starts it; gives its process and its address once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--server.port", str(port)]
    known = {name: value for name, value in os.environ.items() if name != "GROUPSCOPE_TOKEN"}
    with (store / "app.log").open("ab") as log:
        server = subprocess.Popen(
            command, cwd=ROOT, env={**known, "GROUPSCOPE_STORE": str(store), **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: healthy(address), "the app answers")
    except BaseException:
        server.kill()
        raise
    return server, address


@contextmanager
def serving(store: Path, **environment: str) -> Iterator[str]:
    """The app over a store for as long as it is needed; gives its address."""
    server, address = start(store, **environment)
    try:
        yield address
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(20)


def healthy(address: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(f"{address}/_stcore/health", timeout=2).status == 200
    except OSError:
        return False


def wait_until(condition: Callable[[], object], what: str, *, patience_s: float = PATIENCE_MS / 1000) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {patience_s:.0f} s"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def seeded_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A running app over a store with one run of every state: (address, {name: run id})."""
    store = tmp_path_factory.mktemp("browser")
    runs = seed_store(store, steps=40)
    with serving(store) as address:
        yield address, runs


@pytest.fixture
def own_app(store_root: Path) -> Iterator[str]:
    """A running app over the test's own store."""
    with serving(store_root) as address:
        yield address


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium") or "/usr/bin/chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page that fails the test if a script breaks, or if it asks anything of another host."""
    broken: list[str] = []
    context = chromium.new_context(viewport={"width": 1440, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.on("pageerror", lambda error: broken.append(f"script error: {error}"))
    page.on("request", lambda request: broken.append(f"remote request: {request.url}") if is_remote(request.url) else None)
    yield page
    context.close()
    assert not broken


def is_remote(url: str) -> bool:
    return not url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:"))

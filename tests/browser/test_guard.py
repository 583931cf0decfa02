"""The guard in front of the real server, from the first request on."""

import http.client
import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import serving


def ask(address: str, path: str, host: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
    connection.request("GET", path, headers={"Host": host})
    return connection.getresponse()


def test_a_deep_link_on_a_fresh_server_goes_through_the_guard(store_root: Path, page: Page) -> None:
    with serving(store_root) as address:
        assert ask(address, "/launch", "evil.example").status == 421
        answer = page.goto(f"{address}/launch")
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        expect(page.get_by_role("heading", name="Launch a run")).to_be_visible()
        expect(page).to_have_title("Groupscope")
        assert ask(address, "/_stcore/health", "evil.example").status == 421
        assert ask(address, "/_stcore/health", "localhost").status == 200


def test_a_token_is_asked_for_and_remembered(store_root: Path, page: Page) -> None:
    with serving(store_root, GROUPSCOPE_TOKEN="secret") as address:
        assert page.goto(f"{address}/launch").status == 403
        page.goto(f"{address}/launch?token=secret&preset=collapse")
        expect(page.get_by_role("heading", name="Launch a run")).to_be_visible()
        assert "token" not in page.url and "preset=collapse" in page.url
        expect(page.locator("[data-testid=stCode]").first).to_contain_text(re.compile("--epochs 4"))
        assert "secret" not in page.evaluate("document.cookie")

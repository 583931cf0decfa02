"""kill -9 of the app at random moments, with pages open on a run that is being written: nothing recorded is touched, and the next app opens it all."""

import random
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from grpo_core.config import make_config
from storage.catalog import Catalog
from storage.layout import TEMPORARY
from storage.reader import Store
from tests.browser.conftest import serving, start
from tests.browser.test_live import add_steps
from tests.pages.seeded import make_run

KILLS = 5
SETTINGS = {"name": "watched", "steps": 60, "prompts_per_step": 6}


def test_the_app_may_die_at_any_moment(chromium: Browser, page: Page, store_root: Path) -> None:
    run_id = make_run(store_root, SETTINGS, recorded=10, state="running")
    Catalog(store_root).set_note(run_id, "keep this")
    chance, config = random.Random(0), make_config(SETTINGS)
    for kill in range(KILLS):
        server, address = start(store_root)
        watching = chromium.new_page()  # whose scripts may break when their server dies
        watching.goto(f"{address}/run?run={run_id}", wait_until="commit")
        add_steps(store_root, run_id, config, 10 + kill, 10 + kill)
        time.sleep(chance.uniform(0, 3))
        server.kill()
        server.wait()
        watching.close()
        store = Store(store_root)
        assert store.damaged(run_id) == [] and store.last_step(run_id) == 10 + kill
        assert store.frame(run_id, "select count(*) as n from rollouts")["n"].item() == (11 + kill) * config.prompts_per_step * config.group_size
        assert Catalog(store_root).annotations()["note"].tolist() == ["keep this"]
        assert not list((store_root / "runs" / run_id).glob(f"{TEMPORARY}*"))
    with serving(store_root) as address:
        page.goto(f"{address}/run?run={run_id}")
        expect(page.locator('[data-tile="Step"] .value')).to_have_text(f"{10 + KILLS} / 60")
        expect(page.locator(".live-plot[data-drawn]").first).to_be_attached()  # or its script is still under way when the server goes

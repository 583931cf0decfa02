"""What happens while one watches: new steps arrive in place, and a run goes from the form to its end."""

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from grpo_core.config import RunConfig, make_config
from grpo_core.launch.folder import RunFolder
from grpo_core.launch.status import run_status
from grpo_core.launch.stop import stop_run
from grpo_core.trace.tables import to_tables
from pages.components.frames import LIVE_S
from storage.reader import Store
from storage.segments import RunWriter
from tests.browser.conftest import wait_until
from tests.browser.test_views import drag, range_of
from tests.pages.seeded import make_run, make_step, say

QUICK = {"name": "quick", "steps": 5000, "prompts_per_step": 2, "group_size": 4, "warmup_steps": 5, "eval_every": 0, "checkpoint_every": 0}


def add_steps(root: Path, run_id: str, config: RunConfig, first: int, last: int, **looks: bool) -> None:
    """Record steps as a trainer would, and say so."""
    folder = RunFolder.open(root, run_id)
    with RunWriter.open(folder.path) as writer:
        for step in range(first, last + 1):
            writer.append_step(to_tables(make_step(step, config, **looks)))
    say(folder, config, last + 1, "running")


def test_new_steps_arrive_without_reload_and_zoom_stays(page: Page, own_app: str, store_root: Path) -> None:
    settings = {"name": "growing", "steps": 60}
    run_id = make_run(store_root, settings, recorded=20, state="running")
    page.goto(f"{own_app}/run?run={run_id}")
    plot = page.locator(".st-key-plot-reward .live-plot")
    expect(plot).to_have_attribute("data-drawn", re.compile(r"\d+"))
    expect(page.get_by_label("Groups of step 19", exact=True)).to_be_visible()
    page.evaluate("window.sameDocument = true")
    drag(page, "plot-reward", 0.2, 0.5)
    zoomed = range_of(page, "plot-reward")
    drawn = int(plot.get_attribute("data-drawn"))

    add_steps(store_root, run_id, make_config({"prompts_per_step": 6, **settings}), 20, 22)
    expect(page.locator('[data-tile="Step"] .value')).to_have_text("23 / 60")
    expect(page.get_by_label("Groups of step 22", exact=True)).to_be_visible()
    wait_until(lambda: (page.wait_for_timeout(100), int(plot.get_attribute("data-drawn")) > drawn)[1], "the chart is drawn again")
    assert range_of(page, "plot-reward") == zoomed
    assert page.evaluate("window.sameDocument") is True


def test_an_open_dialog_is_left_alone(page: Page, own_app: str, store_root: Path) -> None:
    """The run changes its state behind the dialog, for which the page draws itself anew: not under the pointer, but once the dialog is closed."""
    settings = {"name": "warming", "steps": 60}
    run_id = make_run(store_root, settings, recorded=20, state="starting")
    page.goto(f"{own_app}/run?run={run_id}")
    main = page.get_by_test_id("stMain")
    expect(main).to_contain_text("starting")
    expect(page.locator(".live-plot[data-drawn]").first).to_be_visible()
    main.get_by_role("button", name="Stop").click()
    keep = page.get_by_role("dialog").get_by_role("button", name="Keep running")
    expect(keep).to_be_visible()
    keep.evaluate("button => { window.shown = button; }")

    add_steps(store_root, run_id, make_config({"prompts_per_step": 6, **settings}), 20, 20)
    page.wait_for_timeout(3 * 1000 * LIVE_S)
    assert page.evaluate("window.shown.isConnected"), "the dialog was drawn anew"
    expect(main).to_contain_text("starting")
    keep.click()
    expect(main).to_contain_text("running")
    expect(page.get_by_label("Groups of step 20", exact=True)).to_be_visible()
    assert "step=" not in page.url


def test_from_the_form_to_the_end(page: Page, own_app: str, store_root: Path) -> None:
    """Clone a run, press Launch twice, watch the run, reload, stop it with the confirmation, read how it ended."""
    mother = make_run(store_root, QUICK, recorded=0, state="finished")
    page.goto(f"{own_app}/launch?from={mother}")
    button = page.get_by_role("button", name="Launch", exact=True)
    expect(button).to_be_enabled()
    button.dblclick(delay=60)
    try:
        page.wait_for_url(re.compile(r"/run\?run="))
        (run_id,) = set(Store(store_root).run_ids()) - {mother}
        assert run_id in page.url

        wait_until(lambda: run_status(store_root, run_id).step >= 2, "two steps are trained", patience_s=120)
        page.reload()
        expect(page.locator(".live-plot[data-drawn]").first).to_be_visible()
        page.get_by_role("button", name="Stop").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("It finishes the current step, writes a checkpoint and ends.")
        dialog.get_by_role("button", name="Stop run").click()
        expect(dialog).to_contain_text(re.compile(r"[Ss]topped"))
        dialog.get_by_role("button", name="Close").last.click()

        expect(page.get_by_test_id("stMain")).to_contain_text("Stopped at step")
        assert run_status(store_root, run_id).state == "stopped"
        page.goto(own_app)
        expect(page.locator(f'tr[data-run="{run_id}"]')).to_contain_text("stopped")
        assert len(Store(store_root).run_ids()) == 2
    finally:
        for run_id in Store(store_root).run_ids():
            stop_run(store_root, run_id)


def test_a_mistake_is_said_and_nothing_starts(page: Page, own_app: str, store_root: Path) -> None:
    page.goto(f"{own_app}/launch")
    page.locator("summary").filter(has_text="Rollouts").click()
    size = page.locator(".st-key-launch-group_size input")
    size.fill("1")
    size.press("Enter")
    expect(page.get_by_text("leaves no other rollout to compare with")).to_be_visible()
    expect(page).to_have_url(re.compile("group_size"))
    page.reload()
    expect(page.get_by_text("leaves no other rollout to compare with")).to_be_visible()
    expect(page.get_by_role("button", name="Launch", exact=True)).to_be_disabled()
    assert Store(store_root).run_ids() == []


def test_tags_and_notes_are_kept(page: Page, own_app: str, store_root: Path) -> None:
    run_id = make_run(store_root, {"name": "plain", "steps": 3}, recorded=2, state="finished")
    page.goto(own_app)
    page.get_by_role("button", name="Edit name, tags and note of plain").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Note").fill("<b>kept</b> as it is")
    dialog.get_by_role("button", name="Save").click()
    expect(page.locator(f'tr[data-run="{run_id}"]')).to_contain_text("<b>kept</b> as it is")


def test_a_verdict_turns_without_reload(page: Page, own_app: str, store_root: Path) -> None:
    """Nothing is known, then nothing is alarming, then the run sinks, and the page says each while one looks."""
    settings = {"name": "turning", "steps": 40, "epochs": 4, "lr": 6e-4}
    config = make_config({"prompts_per_step": 6, **settings})
    run_id = make_run(store_root, settings, recorded=1, state="running")
    page.goto(f"{own_app}/diagnosis?run={run_id}")
    verdict = page.locator(".verdict")
    expect(verdict).to_contain_text("Not enough data yet: 1 step;")
    page.evaluate("window.sameDocument = true")
    add_steps(store_root, run_id, config, 1, 9)
    expect(verdict).to_contain_text("judged at step 9, 10 of 40 done")
    expect(verdict.locator(".chip")).to_have_text(re.compile(r"(^|\W)(healthy|watch)$"))
    add_steps(store_root, run_id, config, 10, 27, sinking=True)
    expect(verdict).to_contain_text(re.compile("displacement", re.I))
    expect(page.locator('[data-signal="displacement"]')).to_contain_text("since step")
    expect(page.get_by_role("button", name="Open in the launch form")).to_be_visible()
    assert page.evaluate("window.sameDocument") is True

"""From a run in trouble to what would help, and from lost likelihood to the tokens that lost it."""

import re

from playwright.sync_api import Page, expect


def test_a_collapsing_run_leads_to_its_remedy_in_the_launch_form(page: Page, seeded_app) -> None:
    address, runs = seeded_app
    page.goto(address)
    row = page.locator(f'tr[data-run="{runs["collapsing"]}"][data-open="diagnose"]')
    row.locator(".name").click()
    expect(page.locator(".verdict .sentence")).to_contain_text(re.compile("displacement", re.I))
    expect(page.locator(".verdict .chip")).to_have_text(re.compile("unhealthy|collapsed"))
    expect(page.locator(".causes li").first).to_contain_text("Likelihood of correct rollouts")
    expect(page.locator('[data-signal="displacement"]')).to_contain_text("since step")
    page.get_by_role("button", name="Open in the launch form").click()
    page.wait_for_url(re.compile(rf"launch\?from={runs['collapsing']}&change="))
    expect(page.get_by_text(re.compile("Settings copied from collapsing, but for"))).to_be_visible()
    expect(page.locator("[data-testid=stCode]").first).to_contain_text(re.compile("--method grpo_llds --llds-coef 0.2"))


def test_a_cell_of_the_timeline_opens_its_step(page: Page, seeded_app) -> None:
    address, runs = seeded_app
    page.goto(f"{address}/diagnosis?run={runs['healthy']}")
    strip = page.locator(".st-key-diagnosis-timeline .live-plot")
    expect(strip).to_have_attribute("data-drawn", re.compile(r"\d+"))
    strip.scroll_into_view_if_needed()
    box = strip.locator(".nsewdrag").first.bounding_box()
    place = box["x"] + box["width"] * 0.26, box["y"] + box["height"] * 0.1
    page.mouse.move(*place)
    expect(strip.locator(".hoverlayer > *").first).to_be_attached()
    page.mouse.click(*place)
    page.wait_for_url(re.compile(r"/run\?.*step=10\b"))
    expect(page.get_by_label("Groups of step 10", exact=True)).to_be_visible()


def test_lost_likelihood_leads_to_the_rollout_that_lost_it(page: Page, seeded_app) -> None:
    address, runs = seeded_app
    page.goto(f"{address}/likelihood?run={runs['collapsing']}&step=22")
    expect(page.get_by_text(re.compile("losing likelihood since about step"))).to_be_visible()
    tokens = page.get_by_role("table", name="Tokens of step 22 that lost most")
    where = tokens.locator("tbody tr").first
    group, rollout = re.search(r"group (\d+), rollout (\d+)", where.inner_text()).groups()
    where.click()
    expect(page.get_by_role("heading", name=f"Step 22 · group {group}")).to_be_visible()
    expect(page.locator(f'.rollout[data-rollout="{rollout}"]')).to_have_class(re.compile("chosen"))
    expect(page.locator(".bar")).to_contain_text("Δ log-prob")

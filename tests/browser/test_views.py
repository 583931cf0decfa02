"""Every view from its address, and what a person can do there."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import wait_until
from tests.pages.seeded import PAYLOADS

LITERAL = {"/": PAYLOADS[1], "/run": PAYLOADS[1], "/group": PAYLOADS[0], "/launch": PAYLOADS[0]}
"""A text that each view must show as it is."""


def click_in_plot(page: Page, key: str, *, at: float) -> None:
    """Click into the plotting area of a chart, `at` of its width from the left."""
    plot = page.locator(f".st-key-{key.replace('.', '-')} .live-plot")
    plot.scroll_into_view_if_needed()
    expect(plot).to_have_attribute("data-drawn", re.compile(r"\d+"))
    area = plot.locator(".nsewdrag").first
    box = area.bounding_box()
    page.mouse.move(box["x"] + box["width"] * at, box["y"] + box["height"] / 2)
    expect(plot.locator(".hoverlayer > *").first).to_be_attached()  # a click counts only where the pointer is known to be
    page.mouse.click(box["x"] + box["width"] * at, box["y"] + box["height"] / 2)


def test_runs_open_from_their_row(page: Page, seeded_app) -> None:
    address, runs = seeded_app
    page.goto(f"{address}/?state=finished")
    row = page.locator(f'tr[data-run="{runs["healthy"]}"]')
    expect(row).to_contain_text("finished")
    expect(page.locator("tbody tr")).to_have_count(2)
    row.click()
    expect(page.get_by_role("heading", name="healthy")).to_be_visible()
    assert f"run={runs['healthy']}" in page.url


def test_a_step_opens_from_its_address_and_its_group_from_the_list(page: Page, seeded_app) -> None:
    address, runs = seeded_app
    page.goto(f"{address}/run?run={runs['healthy']}&step=7")
    expect(page.get_by_label("Groups of step 7", exact=True)).to_be_visible()
    expect(page.locator(".dot")).to_have_count(48)
    page.locator('tr[data-group="2"]').click()
    expect(page.get_by_role("heading", name="Step 7 · group 2")).to_be_visible()
    expect(page.locator(".rollout")).to_have_count(8)
    page.wait_for_url(re.compile("step=7&group=2"))


def test_from_a_conflict_to_its_group(page: Page, seeded_app) -> None:
    address, runs = seeded_app
    page.goto(f"{address}/conflicts?run={runs['healthy']}&step=30")
    rows = page.get_by_label("Groups with conflicts at step 30", exact=True).locator("tbody tr")
    expect(rows.first).to_have_class("chosen")
    group = rows.nth(1).get_attribute("data-id")
    rows.nth(1).click()
    page.wait_for_url(re.compile(f"step=30&group={group}"))
    expect(page.get_by_text(f"Group {group} of step 30")).to_be_visible()
    expect(page.locator(".rollout")).to_have_count(8)
    expect(page.locator(".rollout").first.locator(".side")).to_have_count(2)
    assert page.locator(".tokens i.run").count() > 0
    page.get_by_role("link", name="Open the group").click()
    expect(page.get_by_role("heading", name=f"Step 30 · group {group}")).to_be_visible()


def test_from_a_prompt_to_its_group_and_sorting_on_the_way(page: Page, seeded_app) -> None:
    address, runs = seeded_app
    page.goto(f"{address}/variance?run={runs['healthy']}&list=all")
    table = page.get_by_role("table", name="Prompts", exact=True)
    expect(table.locator("tbody tr").first).to_be_visible()
    table.get_by_role("button", name="VPS").click()
    scores = [float(text) for text in table.locator("tbody tr td:nth-child(9)").all_inner_texts()[:20]]
    assert scores == sorted(scores, reverse=True)
    row = table.locator("tbody tr").nth(2)
    prompt = row.get_attribute("data-id")
    row.click()
    page.wait_for_url(re.compile(f"prompt={prompt}"))
    page.get_by_role("table", name="Groups of the prompt").locator("tbody tr").first.click()
    expect(page.get_by_role("heading", name=re.compile(r"Step \d+ · group \d+"))).to_be_visible()


def test_a_click_on_a_curve_opens_that_steps_groups(page: Page, seeded_app) -> None:
    address, runs = seeded_app
    page.goto(f"{address}/run?run={runs['healthy']}")
    expect(page.get_by_label("Groups of step 39", exact=True)).to_be_visible()
    click_in_plot(page, "plot.entropy", at=0.25)
    page.wait_for_url(re.compile(r"step=\d+"))
    step = int(re.search(r"step=(\d+)", page.url)[1])
    assert 5 <= step <= 15
    expect(page.get_by_label(f"Groups of step {step}", exact=True)).to_be_in_viewport()
    page.reload()
    expect(page.get_by_label(f"Groups of step {step}", exact=True)).to_be_visible()


def test_hovering_a_token_lists_all_its_values(page: Page, seeded_app) -> None:
    address, runs = seeded_app
    page.goto(f"{address}/group?run={runs['healthy']}&step=30&group=0&rollout=3&quantity=delta")
    expect(page.locator('.rollout[data-rollout="3"]')).to_have_class(re.compile("chosen"))
    expect(page.locator(".bar")).to_contain_text("Δ log-prob")
    page.locator('.rollout[data-rollout="3"] .tokens i').nth(4).hover()
    tip = page.locator(".tip")
    expect(tip).to_contain_text(re.compile(r"token id \d+ · position 4 of \d+ · rollout 3"))
    names = tip.locator("dt").all_inner_texts()
    assert names == [
        "log-prob, sampling", "log-prob, before", "log-prob, after", "Δ log-prob", "ratio", "log-prob, reference", "entropy", "advantage", "weight", "clipping",
    ]  # fmt: skip
    values = tip.locator("dd").all_inner_texts()
    assert values[5] == "not available" and all(re.match(r"^[−+]?\d", value) for value in [*values[:5], *values[6:9]])
    assert tip.locator("dt.now").inner_text() == "Δ log-prob"


def test_choosing_a_quantity_recolours_in_place(page: Page, seeded_app) -> None:
    address, runs = seeded_app
    page.goto(f"{address}/group?run={runs['healthy']}&step=30&group=0")
    token = page.locator(".tokens i").nth(2)
    expect(token).to_be_visible()
    token.evaluate("node => (node.kept = true)")
    page.get_by_role("radio", name="Entropy").click()
    expect(page.locator(".bar")).to_contain_text("Entropy")
    assert token.evaluate("node => node.kept === true")
    assert "quantity=entropy" in page.url


def test_keys_walk_rollouts_tokens_and_steps(page: Page, seeded_app) -> None:
    address, runs = seeded_app
    page.goto(f"{address}/group?run={runs['healthy']}&step=30&group=0")
    expect(page.locator(".rollout")).to_have_count(8)
    for key in ("j", "j", "k", "j"):
        page.keyboard.press(key)
    expect(page.locator(".rollout.chosen")).to_have_attribute("data-rollout", "1")
    page.wait_for_url(re.compile("rollout=1"))
    page.keyboard.press("ArrowRight")
    expect(page.locator(".tip")).to_contain_text("position 0 of")
    page.keyboard.press("n")
    expect(page.get_by_role("heading", name="Step 31 · group 0")).to_be_visible()
    page.keyboard.press("N")
    expect(page.get_by_role("heading", name="Step 30 · group 0")).to_be_visible()


def test_zoom_is_shared_by_the_charts(page: Page, seeded_app) -> None:
    address, runs = seeded_app
    page.goto(f"{address}/run?run={runs['healthy']}")
    for key in ("plot-reward", "plot-likelihood"):
        expect(page.locator(f".st-key-{key} .live-plot[data-drawn]")).to_be_attached()
    drag(page, "plot-reward", 0.3, 0.6)
    first = range_of(page, "plot-reward")
    assert first[1] - first[0] < 20
    wait_until(lambda: (page.wait_for_timeout(100), range_of(page, "plot-likelihood"))[1] == pytest.approx(first, abs=1e-6), "the other chart follows")


def drag(page: Page, key: str, start: float, end: float) -> None:
    """Zoom a chart by dragging over it from `start` to `end` of its width, and see it zoomed."""
    before = range_of(page, key)
    box = page.locator(f".st-key-{key} .nsewdrag").first.bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * start, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * end, middle, steps=8)
    page.mouse.up()
    wait_until(lambda: (page.wait_for_timeout(100), range_of(page, key) != before)[1], "the chart is zoomed")


def range_of(page: Page, key: str) -> list[float]:
    return page.locator(f".st-key-{key} .canvas").evaluate("node => node._fullLayout.xaxis.range")


@pytest.mark.parametrize("view", ["/", "/run?run={run}", "/group?run={run}&step=0&group=0", "/launch?from={run}"])
def test_hostile_texts_show_as_text_and_nothing_runs(page: Page, seeded_app, view: str) -> None:
    address, runs = seeded_app
    page.goto(address + view.format(run=runs["hostile"]))
    marks = {"/": "tbody tr", "/run": ".live-plot[data-drawn]", "/group": ".rollout", "/launch": "[data-testid=stCode]"}
    expect(page.locator(marks[view.split("?")[0]]).first).to_be_visible()
    page.wait_for_timeout(1500)
    assert page.evaluate("window.pwned") is None
    assert page.locator("img[src*='evil'], iframe[srcdoc], form[action*='evil'], a[href^='javascript']").count() == 0
    expect(page.get_by_text(LITERAL[view.split("?")[0]]).first).to_be_attached()


def test_the_token_view_shows_every_payload_literally(page: Page, seeded_app) -> None:
    address, runs = seeded_app
    page.goto(f"{address}/group?run={runs['hostile']}&step=0&group=0&layout=Stacked")
    expect(page.locator(".rollout")).to_have_count(len(PAYLOADS))
    for index, payload in enumerate(PAYLOADS):
        if not re.search(r"[\u202e\u200b\x1b\x07]", payload):
            expect(page.locator(f'.rollout[data-rollout="{index}"] .tokens')).to_have_text(payload + "<eos>")
    expect(page.locator('.rollout[data-rollout="11"] .tokens')).to_contain_text("⟨U+202E⟩right to left⟨U+202C⟩")
    page.locator('.rollout[data-rollout="0"] .tokens i').first.hover()
    expect(page.locator(".tip .token")).to_have_text(PAYLOADS[0])
    assert page.evaluate("window.pwned") is None

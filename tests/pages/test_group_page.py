from pathlib import Path

import pytest

from pages.components.token_strip import QUANTITIES
from tests.pages.looking import rows_of, words_of
from tests.pages.seeded import PAYLOADS, make_run


def test_the_group_in_a_sentence_its_prompt_and_rollouts(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "group", run=runs["healthy"], step=30, group=2)
    strip = rows_of(app, "group.strip")
    assert len(strip["rollouts"]) == 8
    correct = sum(rollout["chip"]["text"] == "correct" for rollout in strip["rollouts"])
    said = words_of(app)
    assert f"{correct} of 8 correct; mean reward {correct / 8:.2f}, std" in said
    assert rows_of(app, "group.prompt")["prompt"].endswith("=") and "".join(strip["rollouts"][0]["pieces"]).endswith("<eos>")


def test_it_opens_on_a_group_with_right_and_wrong_rollouts(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "group", run=runs["healthy"])
    assert app.query_params["step"] == "39"
    assert "Mixed: " in words_of(app)


@pytest.mark.parametrize("quantity", [key for key in QUANTITIES if key != "nthr"])
def test_every_quantity_has_its_address(seeded, open_page, quantity: str) -> None:
    root, runs = seeded
    strip = rows_of(open_page(root, "group", run=runs["healthy"], step=3, group=0, quantity=quantity), "group.strip")
    assert strip["quantity"] == quantity


def test_choosing_a_quantity_writes_the_address(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "group", run=runs["healthy"], step=3, group=0)
    app.segmented_control(key="group.quantity").set_value("entropy").run()
    assert not app.exception
    assert app.query_params["quantity"] == "entropy" and rows_of(app, "group.strip")["quantity"] == "entropy"


def test_filter_by_verdict(seeded, open_page) -> None:
    root, runs = seeded
    wrong = rows_of(open_page(root, "group", run=runs["healthy"], step=30, group=2, show="Wrong"), "group.strip")
    assert {rollout["chip"]["text"] for rollout in wrong["rollouts"]} <= {"wrong"}


def test_moving_between_groups_and_steps(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "group", run=runs["healthy"], step=3, group=0)
    app.button(key="group.after").click().run()
    assert app.query_params["group"] == "1" and app.query_params["step"] == "3"
    app.button(key="groups.after").click().run()
    assert not app.exception
    assert app.query_params["group"] == "1" and app.query_params["step"] == "4"


def test_not_rescored_is_said(seeded, open_page) -> None:
    root, runs = seeded
    strip = rows_of(open_page(root, "group", run=runs["stopped"], step=1, group=0, quantity="delta"), "group.strip")
    assert all(any("not available: this group was not rescored" in note["text"] for note in rollout["notes"]) for rollout in strip["rollouts"])


def test_nthr_is_offered_where_recorded_and_else_says_how_to_record_it(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "group", run=runs["healthy"], step=3, group=0, quantity="nthr")
    control = app.segmented_control(key="group.quantity")
    assert "NTHR" not in control.options and control.value == "delta" and "`--nthr-every 1` records it" in control.help


def test_a_failed_reward_shows_what_it_raised(seeded, open_page) -> None:
    root, runs = seeded
    strip = rows_of(open_page(root, "group", run=runs["hostile"], step=0, group=0), "group.strip")
    assert strip["rollouts"][1]["chip"]["text"] == "not scored"
    assert strip["rollouts"][1]["notes"][0]["text"] == f"Scoring failed: {PAYLOADS[-1]}"
    assert [rollout["pieces"][0] for rollout in strip["rollouts"]] == list(PAYLOADS)


@pytest.mark.parametrize(("where", "sentence"), [({"step": 9999}, "Step 9999 is not recorded"), ({"step": 3, "group": 77}, "Step 3 has no group 77")])
def test_what_does_not_exist_is_a_sentence(seeded, open_page, where: dict, sentence: str) -> None:
    root, runs = seeded
    assert sentence in words_of(open_page(root, "group", run=runs["healthy"], **where))


def test_no_vocabulary_shows_ids(store_root: Path, open_page) -> None:
    run_id = make_run(store_root, {"name": "wordless", "steps": 2}, recorded=1, state="finished")
    (store_root / "runs" / run_id / "vocabulary.parquet").unlink()
    app = open_page(store_root, "group", run=run_id)
    assert "The text of the tokens is not available" in words_of(app)
    assert rows_of(app, "group.strip")["rollouts"][0]["pieces"][0].startswith("⟨")

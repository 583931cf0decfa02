import json
from pathlib import Path
from urllib.parse import parse_qsl

import numpy as np
import pytest

from grpo_core.diagnosis.levels import Level, Signal
from grpo_core.diagnosis.report import diagnose
from grpo_core.launch.folder import RunFolder
from pages.components import diagnosing, launch_form, levels, signal_cards, timeline, url
from storage.schema import STEPS
from tests.pages.looking import rows_of, words_of
from tests.pages.seeded import PAYLOADS, make_run


def signal(name: str, levels_: list[int], since: int | None = None, column: str = "entropy", title: str = "") -> Signal:
    return Signal(name=name, title=title or name, level=Level(levels_[-1]), value=0.5, unit="share", since_step=since, sentence="So it is.",
                  levels=np.array(levels_, "i1"), column=column)  # fmt: skip


def test_a_collapsing_run_has_its_verdict_causes_and_remedy(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "diagnosis", run=runs["collapsing"])
    verdict = rows_of(app, "diagnosis.verdict")
    assert verdict["chip"]["text"] in ("unhealthy", "collapsed") and "displacement" in verdict["sentence"] and verdict["tone"] in ("red", "violet")
    since = verdict["facts"][0]
    assert since["text"].startswith("since step ") and since["href"].startswith(f"run?run={runs['collapsing']}&step=")
    cause = rows_of(app, "diagnosis.causes")["causes"][0]
    assert cause["title"].startswith("Likelihood displacement") and any(sign["text"].startswith("Likelihood of correct rollouts") for sign in cause["signals"])
    said = words_of(app)
    assert "What would help" in said and "llds_coef" in said
    command = app.code[0].value
    assert command.startswith("python -m grpo_core train") and "--method grpo_llds" in command and "--llds-coef 0.2" in command


def test_before_the_first_step_nothing_is_said_about_signals(tmp_path, open_page) -> None:
    app = open_page(tmp_path, "diagnosis", run=make_run(tmp_path, {"name": "new"}, recorded=0, state="running"))
    said = words_of(app)
    assert "The first answers come after a few steps." in said and "Nothing to advise yet." in said and "No signal has an answer yet." in said
    assert not app.expander


def test_evidence_opens_the_groups_and_the_token_that_show_it(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "diagnosis", run=runs["collapsing"])
    card = next(card for card in rows_of(app, "diagnosis.off")["cards"] if card["name"] == "displacement")
    groups, token = card["looks"]
    assert groups["token"] is None and groups["places"] and all(place["href"].endswith("&quantity=delta") for place in groups["places"])
    assert token["token"] and "rollout=" in token["places"][0]["href"]
    address = dict(parse_qsl(token["places"][0]["href"].partition("?")[2]))
    assert f"Step {address['step']} · group {address['group']}" in words_of(open_page(root, "group", **address))


def test_evidence_whose_rollouts_are_gone_names_fewer_places(store_root: Path, open_page) -> None:
    run_id = make_run(store_root, {"name": "gone", "steps": 30, "epochs": 4}, recorded=20, state="finished", sinking=True)
    for path in (RunFolder.open(store_root, run_id).path / "rollouts").glob("*.parquet"):
        path.unlink()
    card = next(card for card in rows_of(open_page(store_root, "diagnosis", run=run_id), "diagnosis.off")["cards"] if card["name"] == "displacement")
    assert [look["token"] for look in card["looks"]] == [None]  # the groups table alone has the groups


def test_the_remedy_opens_the_launch_form_filled_in(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "diagnosis", run=runs["collapsing"])
    command = app.code[0].value
    app.button(key="diagnosis.launch").click().run()
    assert not app.exception and app.query_params["from"] == runs["collapsing"]
    assert app.selectbox(key="launch.method").value == "grpo_llds" and app.number_input(key="launch.llds_coef").value == 0.2
    assert app.code[0].value == command
    assert "Settings copied from collapsing, but for **" in words_of(app) and "method grpo → grpo_llds" in words_of(app)


def test_a_healthy_run_gets_no_remedy(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "diagnosis", run=runs["healthy"])
    assert rows_of(app, "diagnosis.verdict")["chip"]["text"] == "healthy"
    assert "Nothing to explain" in words_of(app) and "diagnosis.launch" not in [button.key for button in app.button]
    missing = next(expander for expander in app.expander if expander.label.startswith("Not measured"))
    assert "Trainer and sampler" in missing.markdown[0].value


@pytest.mark.parametrize("name", ["stopped", "failed", "lost", "starting", "hostile"])
def test_every_other_run_has_an_answer_too(seeded, open_page, name: str) -> None:
    root, runs = seeded
    app = open_page(root, "diagnosis", run=runs[name])
    verdict = rows_of(app, "diagnosis.verdict")
    assert verdict["sentence"] and "judged" in verdict["facts"][-1]["text"] or "no step recorded yet" in verdict["facts"][-1]["text"]


def test_the_row_of_a_run_in_trouble_leads_to_its_diagnosis(seeded, open_page) -> None:
    root, runs = seeded
    for _ in range(8):  # each pass diagnoses as many runs as fit into its time
        rows = {row["run_id"]: row for row in rows_of(open_page(root), "runs.rows")["runs"]}
    sick, well = rows[runs["collapsing"]]["verdict"], rows[runs["healthy"]]["verdict"]
    assert sick["first"] and sick["href"] == f"diagnosis?run={runs['collapsing']}" and sick["cause"].startswith("Likelihood displacement")
    assert not well["first"] and well["chip"]["text"] == "healthy" and well["cause"] == ""
    assert rows[runs["starting"]]["verdict"] is None


def test_the_run_page_has_the_verdict_in_a_line(seeded, open_page) -> None:
    root, runs = seeded
    assert "Healthy: no sign of collapse." in words_of(open_page(root, "run", run=runs["healthy"]))


def test_cells_hold_the_worst_of_their_steps_and_gaps_are_gaps(monkeypatch) -> None:
    monkeypatch.setattr(timeline, "CELLS", 2)
    rows = [signal("a", [0, 3, 0, 1, -1]), signal("b", [0, 0, 0, 0, 2])]
    drawn = timeline.figure(rows, np.array([0, 1, 2, 6, 7]), since=6)["data"][0]
    assert drawn["x"] == [-0.5, 2.5, 5.5, 7.5]
    assert drawn["z"] == [[3, None, 1], [0, None, 2]]
    assert drawn["customdata"][0] == [[1, "collapsed"], None, [6, "watch"]]


@pytest.mark.parametrize(("steps", "dtick"), [(1, 1), (11, 1), (12, None)])
def test_the_axis_of_few_steps_labels_whole_ones(steps: int, dtick: int | None) -> None:
    axis = timeline.figure([signal("a", [0] * steps)], np.arange(steps), since=None)["layout"]["xaxis"]
    assert axis.get("dtick") == dtick


def test_five_plain_colours_one_per_level() -> None:
    scale = timeline._colourscale()
    assert [edge for edge, _ in scale] == pytest.approx([0, 0.2, 0.2, 0.4, 0.4, 0.6, 0.6, 0.8, 0.8, 1])
    assert len({colour for _, colour in scale}) == 5


def test_rows_are_those_off_in_the_order_they_turned() -> None:
    rows = (signal("never", [-1, -1]), signal("fine", [0, 0]), signal("late", [0, 2], since=9), signal("early", [1, 1], since=3))
    assert [row.name for row in timeline.ordered(rows)] == ["early", "late", "fine"]


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("step_kl", [0.0, 0.2], {1: 0.015, 2: 0.15}),
        ("entropy_rise", [1.0, 1.0, 1.0, 1.0, 1.0, 3.0], {1: 1.5, 2: 2.5}),
        ("held_out_fall", [0.8, 0.0], {1: 0.68, 2: 0.52, 3: 0.24}),
        ("sharpening", [0.9] * 10 + [0.8], {1: 0.85, 2: 0.75}),
        ("probe", [-0.2, -1.2], {1: -0.23, 2: -0.3, 3: -1.2}),
        ("conflicts", [0.0, 1.0], {}),
    ],
)
def test_thresholds_are_told_on_the_column(name: str, values: list[float], expected: dict[int, float]) -> None:
    found = {bound["level"]: bound["y"] for bound in signal_cards.bounds_on(name, np.array(values), values)}
    assert found == pytest.approx(expected)


def test_a_signal_says_what_its_figure_is() -> None:
    told = signal_cards.meaning(signal("entropy_fall", [0], column="entropy", title="Entropy collapse"))
    assert STEPS.column("entropy").means in told and "(nats/token)" in told and "unhealthy from" in told and "bench diagnosis" in told


@pytest.mark.parametrize(
    ("value", "unit", "told"),
    [
        (0.4, "share of groups", ("40\u00a0%", "of groups")),
        (-6.6, "share of log-prob", ("−660\u00a0%", "of log-prob")),
        (1.0, "steps", ("1", "step")),
        (2.5, "× start", ("2.50", "× start")),
    ],
)
def test_figures_as_people_read_them(value: float, unit: str, told: tuple[str, str]) -> None:
    assert levels.measured(value, unit) == told


def test_changes_travel_in_the_address_and_only_known_ones() -> None:
    changes = {"lr": 2e-4, "method": "grpo_llds", "llds_coef": 0.2, "epochs": 2}
    assert launch_form.asked(launch_form.spell(changes)) == changes
    assert launch_form.asked('{"method":"none","steps":"many","seed":true,"lr":1e999,"evil":1,"name":"a"}') == {"name": "a"}
    assert launch_form.asked("[1]") == launch_form.asked("{") == launch_form.asked("") == {}


def test_a_fork_says_its_command_and_refuses_a_step_without_checkpoint(store_root: Path, open_page) -> None:
    run_id = make_run(store_root, {"name": "parent", "steps": 12}, recorded=12, state="finished")
    checkpoint = RunFolder.open(store_root, run_id).checkpoints / "step-00000005"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer.pt").write_bytes(b"")
    change = launch_form.spell({"lr": 1e-5})
    app = open_page(store_root, "launch", **{"from": run_id, "change": change, "step": 5})
    assert app.code[0].value == f"python -m grpo_core fork {run_id} --step 5 --lr 1e-05"
    assert "Goes on from step 5 of parent" in words_of(app) and not app.button(key="launch.go").disabled
    app = open_page(store_root, "launch", **{"from": run_id, "change": change, "step": 6})
    assert "no checkpoint at step 6; it has some at 5" in words_of(app) and app.button(key="launch.go").disabled


def test_a_report_is_made_anew_when_the_run_has_moved_on(store_root: Path, open_page, monkeypatch) -> None:
    run_id = make_run(store_root, {"name": "still", "steps": 9}, recorded=9, state="finished")
    made = []
    monkeypatch.setattr(diagnosing, "diagnose", lambda *parts, **more: made.append(1) or diagnose(*parts, **more))
    app = open_page(store_root, "diagnosis", run=run_id)
    app.run()
    assert len(made) == 1
    folder = RunFolder.open(store_root, run_id)
    word = json.loads((folder.path / "status.json").read_text())
    (folder.path / "status.json").write_text(json.dumps(word | {"step": 8}))
    app.run()
    assert len(made) == 2


def test_hostile_names_stay_text(seeded, open_page) -> None:
    root, runs = seeded
    for page in ("diagnosis", "likelihood"):
        app = open_page(root, page, run=runs["hostile"])
        assert all(PAYLOADS[1] not in element.value for element in app.markdown)
    assert url.link("run", run="a&b", step=3) == "run?run=a%26b&step=3"


@pytest.mark.parametrize("steps", [3, signal_cards.CELLS, 61_287])
def test_a_long_runs_strip_shows_the_worst_of_each_piece(steps: int) -> None:
    levels = np.zeros(steps, int)
    levels[0], levels[steps // 2] = -1, 3  # a single step, which must not vanish between its neighbours
    found = signal_cards._stretches(levels, steps - 1)
    assert [level for *_, level in found if level] == ([3] if steps > signal_cards.CELLS else [-1, 3]) and len(found) <= signal_cards.CELLS
    assert found[0][0] == 0 and found[-1][1] == 1 and all(left[1] == right[0] for left, right in zip(found, found[1:]))
    first, end, _ = next(stretch for stretch in found if stretch[2] == 3)
    assert first <= (steps // 2) / (steps - 1) <= end

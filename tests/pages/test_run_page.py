import json
from pathlib import Path

from grpo_core.config import make_config
from grpo_core.launch.folder import RunFolder
from grpo_core.trace.tables import to_tables
from pages.components import data
from pages.components.cards import CARDS
from storage.segments import RunWriter
from tests.pages.looking import rows_of, words_of
from tests.pages.seeded import PAYLOADS, make_run, make_step


def plots_of(app) -> list[dict]:
    return [json.loads(element.proto.json) for element in app.get("bidi_component") if "-plot." in element.proto.id]


def test_sentence_first_then_figures(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "run", run=runs["healthy"])
    said = words_of(app)
    assert "**Finished all 40 steps in 4 min" in said
    assert "of rollouts correct. Correct rollouts are" in said and "Held-out:" in said
    tiles = rows_of(app, "run.tiles")["tiles"]
    assert [tile["label"] for tile in tiles] == ["Step", "Reward", "Correct log-prob", "Entropy", "Gradient norm", "KL of a step"]
    assert tiles[0]["value"] == "40 / 40" and tiles[1]["change"]["text"].startswith("+") and tiles[1]["tone"] == "green"
    assert "mean total reward over the step's scored rollouts, in reward" in tiles[1]["help"].lower()


def test_every_card_is_drawn_and_gaps_are_told(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "run", run=runs["healthy"])
    assert len(plots_of(app)) == len(CARDS)
    said = words_of(app)
    assert "2 steps trained but not recorded" in said
    assert "Reference not available: no reference model is kept while kl_coef is 0." in said


def test_what_was_not_measured_is_not_available(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "run", run=runs["stopped"])  # one update per batch, never rescored
    said = words_of(app)
    assert "Upper and Lower not available: with one update per rollout batch it is zero by construction." in said
    assert "Correct (change by the update) and Wrong (change by the update) not available" in said
    assert rows_of(app, "run.tiles")["tiles"][5]["value"] == "not available"


def test_a_failed_run_shows_why_and_its_log(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "run", run=runs["failed"])
    assert "my_rewards:judge cannot be imported" in app.error[0].value.replace("\\", "")
    assert PAYLOADS[0] in app.code[0].value


def test_a_lost_run_says_so(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "run", run=runs["lost"])
    assert "without a final word" in app.error[0].value
    assert app.button(key="run.resume").label == "Resume"


def test_before_the_first_step(seeded, open_page) -> None:
    root, runs = seeded
    said = words_of(open_page(root, "run", run=runs["starting"]))
    assert "Warming up the tiny model, 120 of 250; the first step follows." in said and "No step recorded yet" in said


def test_unknown_run_is_a_sentence(seeded, open_page) -> None:
    app = open_page(seeded[0], "run", run="../../etc/passwd")
    assert "There is no run" in app.error[0].value and "etc/passwd" in words_of(app)


def test_without_a_run_in_the_address_the_newest_opens(seeded, open_page) -> None:
    root, runs = seeded
    assert open_page(root, "run").query_params["run"] == max(runs.values())


def test_step_in_the_address_shows_that_steps_groups(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "run", run=runs["healthy"], step=7)
    groups = rows_of(app, "groups.rows")
    assert groups["label"] == "Groups of step 7" and len(groups["groups"]) == 6
    assert groups["groups"][2]["href"] == f"group?run={runs['healthy']}&step=7&group=2"
    assert all(len(group["rollouts"]) == 8 for group in groups["groups"])
    marked = json.loads(plots_of(app)[0]["figure"])["layout"]["shapes"]
    assert any(shape["x0"] == 7 and shape["line"].get("color") == "@primary/0.75" for shape in marked)


def test_a_step_that_was_not_recorded(seeded, open_page) -> None:
    root, runs = seeded
    said = words_of(open_page(root, "run", run=runs["healthy"], step=20))
    assert "Step 20 is not recorded" in said and "The nearest recorded steps: 19 and 22." in said
    assert "The newest recorded step is 39." in words_of(open_page(root, "run", run=runs["healthy"], step=4000))


def test_stepping_skips_the_gap_and_writes_the_address(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "run", run=runs["healthy"], step=19)
    app.button(key="groups.after").click().run()
    assert not app.exception and app.query_params["step"] == "22"
    assert rows_of(app, "groups.rows")["label"] == "Groups of step 22"
    assert app.number_input(key="groups.step").value == 22


def test_a_typed_step_is_kept_until_the_newest_is_asked_for(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "run", run=runs["healthy"])
    app.number_input(key="groups.step").set_value(12).run()
    assert app.query_params["step"] == "12" and rows_of(app, "groups.rows")["label"] == "Groups of step 12"
    app.button(key="groups.newest").click().run()
    assert "step" not in app.query_params and rows_of(app, "groups.rows")["label"] == "Groups of step 39"
    assert app.number_input(key="groups.step").value is None


def test_new_steps_are_read_by_cursor(store_root: Path, open_page, monkeypatch) -> None:
    run_id = make_run(store_root, {"name": "growing", "steps": 9}, recorded=3, state="running")
    asked = []
    original = data.step_queries.step_series
    monkeypatch.setattr(data.step_queries, "step_series", lambda store, run, after=-1: asked.append(after) or original(store, run, after))
    app = open_page(store_root, "run", run=run_id)
    folder = RunFolder.open(store_root, run_id)
    with RunWriter.open(folder.path) as writer:
        writer.append_step(to_tables(make_step(3, make_config({"steps": 9, "prompts_per_step": 6}))))
    app.run()
    assert not app.exception
    assert asked[0] == -1 and set(asked[1:]) <= {2, 3}
    assert rows_of(app, "groups.rows")["label"] == "Groups of step 3"
    picker = app.number_input(key="groups.step")  # a value that moves on by itself would come back from the browser as if typed
    assert picker.value is None and picker.proto.placeholder == "3"


def test_a_missing_segment_is_a_sentence(store_root: Path, open_page) -> None:
    run_id = make_run(store_root, {"name": "holed", "steps": 5}, recorded=4, state="finished")
    next((store_root / "runs" / run_id / "groups").glob("*00000002*")).unlink()
    app = open_page(store_root, "run", run=run_id, step=2)
    assert app.error and "groups" in app.error[0].value
    assert rows_of(open_page(store_root, "run", run=run_id, step=1), "groups.rows")["label"] == "Groups of step 1"


def test_hostile_texts_stay_texts(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "run", run=runs["hostile"])
    assert app.subheader[0].value == r"\<img src\=x onerror\='window\.pwned \= 1'\>"
    assert " ".join(PAYLOADS) in [text.value for text in app.text]

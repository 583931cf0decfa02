from pathlib import Path

from grpo_core.config import make_config
from grpo_core.launch.folder import RunFolder
from grpo_core.launch.start import launch
from grpo_core.launch.stop import stop_run
from grpo_core.presets import PRESETS
from pages.components import data, launching
from pages.components.launch_form import change_in_words
from tests.pages.looking import words_of
from tests.pages.seeded import make_run


def command_of(app) -> str:
    return app.code[0].value


def mistakes_of(app) -> list[str]:
    return [text.value.replace("\\", "") for text in app.markdown if text.value.startswith(":red")]


def test_the_command_says_exactly_what_the_form_says(store_root: Path, open_page) -> None:
    app = open_page(store_root, "launch")
    assert command_of(app) == "python -m grpo_core train"
    app.number_input(key="launch.steps").set_value(7).run()
    app.text_input(key="launch.name").set_value("my run; rm -rf /").run()
    assert command_of(app) == "python -m grpo_core train --name 'my run; rm -rf /' --steps 7"
    assert not app.button(key="launch.go").disabled


def test_a_preset_fills_the_form(store_root: Path, open_page) -> None:
    app = open_page(store_root, "launch", preset="llds")
    assert app.selectbox(key="launch.method").value == "grpo_llds"
    assert app.number_input(key="launch.llds_coef").value == PRESETS["llds"].settings["llds_coef"] and not app.number_input(key="launch.llds_coef").disabled


def test_only_knobs_that_the_method_reads_are_open(store_root: Path, open_page) -> None:
    app = open_page(store_root, "launch")
    assert app.number_input(key="launch.llds_coef").disabled and not app.number_input(key="launch.clip_low").disabled
    assert "0.2, the method's own" in app.number_input(key="launch.clip_low").proto.placeholder
    assert app.number_input(key="launch.clip_cap").proto.placeholder == "none"  # GRPO has no cap of its own
    app.selectbox(key="launch.method").set_value("grpo_llds").run()
    app.number_input(key="launch.llds_coef").set_value(0.7).run()
    assert command_of(app).endswith("--method grpo_llds --llds-coef 0.7")
    app.selectbox(key="launch.method").set_value("grpo").run()
    assert command_of(app) == "python -m grpo_core train"  # a locked knob is not sent


def test_the_method_is_explained(store_root: Path, open_page) -> None:
    app = open_page(store_root, "launch")
    app.selectbox(key="launch.method").set_value("dapo").run()
    said = words_of(app)
    assert "arXiv:2503.14476" in said and "Wider upper clip" in said and "Dynamic sampling as in verl" in said


def test_mistakes_are_said_beside_their_field(store_root: Path, open_page) -> None:
    app = open_page(store_root, "launch")
    app.number_input(key="launch.group_size").set_value(1).run()
    app.number_input(key="launch.minibatches").set_value(3).run()
    mistakes = mistakes_of(app)
    assert any("group_size=1 leaves no other rollout" in mistake for mistake in mistakes)
    assert app.button(key="launch.go").disabled
    app.number_input(key="launch.group_size").set_value(4).run()
    mistakes = mistakes_of(app)
    assert any("minibatches=3 does not divide the 16 prompts" in mistake for mistake in mistakes)


def test_dataset_options_appear_with_the_dataset_task(store_root: Path, open_page) -> None:
    app = open_page(store_root, "launch")
    assert "launch.data" not in [field.key for field in app.text_input]
    app.selectbox(key="launch.task").set_value("dataset").run()
    assert "data: a .jsonl or .parquet file" in words_of(app)
    app.text_input(key="launch.data").set_value("sums.jsonl").run()
    assert command_of(app) == "python -m grpo_core train --task dataset --data sums.jsonl"


def test_cloning_a_run_copies_its_settings(store_root: Path, open_page) -> None:
    run_id = make_run(store_root, {"name": "mother", "steps": 12, "seed": 5, "method": "rloo"}, recorded=1, state="finished")
    app = open_page(store_root, "launch", **{"from": run_id})
    assert command_of(app) == "python -m grpo_core train --name mother --seed 5 --steps 12 --prompts-per-step 6 --method rloo"
    assert "no run nowhere" in words_of(open_page(store_root, "launch", **{"from": "nowhere"}))


def test_the_form_opens_again_from_its_address(store_root: Path, open_page) -> None:
    mother = make_run(store_root, {"name": "mother", "seed": 5, "method": "grpo_llds", "llds_coef": 0.3}, recorded=1, state="finished")
    app = open_page(store_root, "launch", **{"from": mother})
    app.number_input(key="launch.steps").set_value(7).run()
    app.number_input(key="launch.llds_coef").set_value(None).run()
    again = open_page(store_root, "launch", **{"from": mother, "change": app.query_params["change"]})
    assert command_of(again) == command_of(app) == "python -m grpo_core train --name mother --seed 5 --steps 7 --prompts-per-step 6 --method grpo_llds"
    again.number_input(key="launch.steps").set_value(150).run()
    again.number_input(key="launch.llds_coef").set_value(0.3).run()
    assert "change" not in again.query_params


def test_an_address_that_is_an_edit_behind_does_not_undo_the_edit(store_root: Path, open_page) -> None:
    app = open_page(store_root, "launch")
    app.number_input(key="launch.steps").set_value(7).run()
    behind = app.query_params["change"]
    app.number_input(key="launch.seed").set_value(3).run()
    app.query_params["change"] = behind
    app.text_input(key="launch.name").set_value("new").run()
    assert command_of(app) == "python -m grpo_core train --name new --seed 3 --steps 7"
    app.query_params["change"] = '{"steps":9}'
    app.run()
    assert command_of(app) == "python -m grpo_core train --steps 9"


def test_two_presses_with_one_nonce_start_one_run(store_root: Path, open_page) -> None:
    app = open_page(store_root, "launch", preset="healthy")
    app.number_input(key="launch.steps").set_value(1).run()
    app.number_input(key="launch.warmup_steps").set_value(0).run()
    nonce = app.session_state[launching.NONCE]
    app.button(key="launch.go").click().run()
    started = data.store().run_ids()
    try:
        assert len(started) == 1 and app.query_params["run"] == started[0]
        assert launching.NONCE not in app.session_state
        config = RunFolder.open(store_root, started[0]).read_config()
        assert launch(store_root, config, nonce=nonce) == started[0]
        assert len(data.store().run_ids()) == 1
    finally:
        for run_id in data.store().run_ids():
            stop_run(store_root, run_id, grace_s=20)


def test_launching_is_off_beyond_this_machine(store_root: Path, open_page, monkeypatch) -> None:
    monkeypatch.setattr(launching, "listens_on_loopback", lambda: False)
    app = open_page(store_root, "launch")
    assert app.button(key="launch.go").disabled and "Launching is off" in words_of(app)


def test_a_changed_list_says_what_goes_and_what_comes() -> None:
    config = make_config({"task": "dataset", "data": "sums.jsonl", "rewards": ["exact", "my:digits=8"]})
    assert change_in_words(config, "rewards", ("exact",)) == "rewards without my:digits=8"
    assert change_in_words(config, "rewards", ["exact", "my:digits=2"]) == "rewards without my:digits=8, with my:digits=2"
    assert change_in_words(config, "lr", 5e-5) == f"lr {config.lr:g} → 5e-05"

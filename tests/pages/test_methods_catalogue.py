import json

import pytest

from grpo_core.equations import equations
from grpo_core.method_row import HARMS
from grpo_core.methods import METHODS
from grpo_core.rules import CREDITS, GROUP_REWARDS, PROMPT_SAMPLERS
from pages.components.methods_view import fitting, signals, uses
from storage.catalog import Catalog
from tests.pages.looking import rows_of, words_of
from tests.pages.seeded import PAYLOADS, make_run


def formulas(app) -> list[str]:
    return [element.value for element in app.latex]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_drawn_from_its_row(name: str, store_root, open_page) -> None:
    app, method = open_page(store_root, "methods", method=name), METHODS[name]
    said = words_of(app)
    assert method.title in said and method.summary in said and method.protects in said and method.costs in said
    drawn = " ".join(formulas(app))
    assert all(one in drawn for one in equations(method))
    assert all(signals()[signal][0] in said for signal in method.moves)
    assert f"No run of this store used {method.title} yet" in said and method.preset in said


def test_rules_beside_the_methods_are_told_with_their_equations(store_root, open_page) -> None:
    app = open_page(store_root, "methods")
    said, drawn = words_of(app), " ".join(formulas(app))
    for rule in (*GROUP_REWARDS.values(), *PROMPT_SAMPLERS.values(), *CREDITS.values()):
        assert rule.equation in drawn and rule.preset in said and rule.assumes in said.replace("\\", "") and rule.lacks in said.replace("\\", "")


def test_the_address_takes_a_preset_id(store_root, open_page) -> None:
    app = open_page(store_root, "methods", method="gspo-2507.18071")
    assert not app.error and METHODS["gspo"].summary in words_of(app)


@pytest.mark.parametrize("value", ["gropo", "", "grpo/../x", "x" * 4000, *PAYLOADS])
def test_a_method_that_does_not_exist_is_a_sentence(value: str, store_root, open_page) -> None:
    app = open_page(store_root, "methods", method=value, beside=value, uses=value, q=value if len(value) < 99 else "", **{"for": value})
    assert len(app.error) == 1 and app.error[0].value.replace("\\", "").startswith("There is no method ") and len(app.error[0].value) < 400
    assert "GRPO" in words_of(app) and formulas(app)
    assert ("did you mean grpo?" in app.error[0].value) == (value in ("gropo", "grpo/../x"))


def test_filters_leave_what_fits(store_root, open_page) -> None:
    assert fitting("", "lost diversity", None) == ["pass_at_k", "nsr", "w_reinforce"] and fitting("2512.04220", None, None) == ["grpo_llds", "nthr"]
    assert "gspo" in fitting("", None, "Level_of_the_ratio_ρ:sequence") and "grpo" not in fitting("", None, "Level_of_the_ratio_ρ:sequence")
    assert all(fitting("", None, choice) for choice in uses()) and all(fitting("", harm, None) for harm in HARMS)
    app = open_page(store_root, "methods", **{"for": "lost diversity"})
    assert app.button_group(key="methods.method").options == ["Pass@k", "NSR", "W-REINFORCE"] and "GRPO" in words_of(app)
    assert "No method fits these filters" in words_of(open_page(store_root, "methods", q="zebra"))


def test_a_pick_stands_in_the_address(store_root, open_page) -> None:
    app = open_page(store_root, "methods")
    app.button_group(key="methods.method").set_value("dapo").run()
    assert app.query_params["method"] == "dapo" and "DAPO differs from GRPO in surrogate, normaliser and data rule." in words_of(app)
    app.selectbox(key="methods.beside").set_value("gspo").run()
    assert app.query_params["beside"] == "gspo" and "DAPO differs from GSPO in surrogate, normaliser and data rule." in words_of(app)


def test_runs_that_used_it_with_their_verdicts(seeded, open_page) -> None:
    root, runs = seeded
    table = rows_of(open_page(root, "methods", method="dr_grpo"), "methods.table")
    assert [row["id"] for row in table["rows"]] == [runs["stopped"]] and table["rows"][0]["cells"][1]["chip"]["text"]


def test_launching_it(seeded, store_root, open_page) -> None:
    root, _ = seeded
    app = open_page(root, "methods", method="gspo")
    app.button(key="methods.launch").click().run()
    assert app.selectbox(key="launch.method").value == "gspo"
    assert "methods.launch" not in [button.key for button in open_page(store_root, "methods", method="gspo").button]
    app = open_page(store_root, "methods", method="grpo_llds")
    app.button(key="methods.launch").click().run()
    assert app.selectbox(key="launch.method").value == "grpo_llds"


def test_a_signal_leads_to_what_a_run_has_of_it(seeded, open_page) -> None:
    root, _ = seeded
    app = open_page(root, "methods", method="grpo_llds")
    assert all(app.button(key=f"methods.signal.{name}").label.replace("\\", "") == signals()[name][0] for name in METHODS["grpo_llds"].moves)
    app.button(key="methods.signal.displacement").click().run()
    assert app.query_params["signal"] == "displacement"
    drawn = [json.loads(one.proto.json) for one in app.get("bidi_component")]
    assert "displacement" in {one.get("chosen") for one in drawn}


def test_studies_of_the_method(store_root, open_page) -> None:
    for seed in (0, 1):
        run_id = make_run(store_root, {"method": "opo", "seed": seed, "steps": 2}, recorded=2, state="finished")
        Catalog(store_root).set_tags(run_id, ["study-20260101-120000"])
    app = open_page(store_root, "methods", method="opo")
    app.button(key="methods.study.study-20260101-120000").click().run()
    assert app.query_params["study"] == "study-20260101-120000" and not app.exception
    assert not [one for one in open_page(store_root, "methods", method="grpo").button if one.key and one.key.startswith("methods.study")]

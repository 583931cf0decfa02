import base64
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from grpo_core.config import RunConfig, make_config
from grpo_core.lab.batch import recorded_batch
from grpo_core.lab.figures import mean_push
from grpo_core.lab.process import Laboratory
from grpo_core.lab.push import push_of
from grpo_core.lab.shaped import shaped
from pages.components import lab_address, lab_controls, step_groups
from pages.components.text import fixed
from storage.queries import lab
from storage.reader import Store
from tests.pages.looking import rows_of, words_of
from tests.pages.seeded import PAYLOADS

TITLES = ("GRPO", "GTPO", "DAPO")


GROUP = 3
"""Its rollouts are some right, some wrong (asserted)."""


def batch_of(root, run_id: str, step: int):
    store = Store(root)
    return recorded_batch(lab.rollouts_of_step(store, run_id, step), first_entropy=lab.first_entropy(store, run_id), max_length=24)


def config_of(root, run_id: str) -> RunConfig:
    return make_config(json.loads((root / "runs" / run_id / "config.json").read_text(encoding="utf-8")))


def trace_of(app, name: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(rows_of(app, "lab.strip")["traces"][name]), "<f4")


@pytest.fixture
def opened(seeded, open_page):
    root, runs = seeded
    return open_page(root, "lab", run=runs["healthy"], step=30, group=GROUP, methods="grpo,gtpo,dapo", policy=lab_controls.AGAIN)


def test_the_step_is_weighed_by_every_chosen_method(opened) -> None:
    said = words_of(opened)
    assert "of the step's " in said or "No token of this step" in said
    assert "Exact: advantages, weights and gradients on this batch" in said
    table = rows_of(opened, "lab.apart")
    assert [column["title"] for column in table["columns"][3:]] == list(TITLES) and table["rows"]
    apart = [np.ptp([cell["sort"] for cell in row["cells"][3:]]) for row in table["rows"]]
    assert apart == sorted(apart, reverse=True) or np.allclose(apart, sorted(apart, reverse=True), atol=0.02)  # cells are rounded


def test_the_text_has_the_colours_the_functions_say(seeded, opened) -> None:
    root, runs = seeded
    batch, strip = batch_of(root, runs["healthy"], 30), rows_of(opened, "lab.strip")
    assert len(set(batch.verdict_R[batch.group_R == GROUP])) == 2
    assert strip["quantity"] == "grpo" and strip["beside"] == "gtpo" and strip["marks"] is None
    inside = (batch.group_R == GROUP)[batch.rollout_N]
    scales = {one["key"]: one["scale"] for one in strip["quantities"]}
    for method in ("grpo", "gtpo", "dapo"):
        push = push_of(batch, make_config({"method": method, "epochs": 2}), after=True)
        for name, values_N in {"push": push.push_N, "advantage": push.advantage_N, "weight": push.weight_N}.items():
            np.testing.assert_allclose(trace_of(opened, f"{name}_{method}"), values_N[inside], rtol=1e-4, atol=1e-6)
        assert scales[method] / mean_push(push) == pytest.approx(scales["grpo"] / mean_push(push_of(batch, make_config({"epochs": 2}), after=True)))
    assert strip["table"][0][1:] == ["advantage", "weight", "push, 1/nat"] and strip["table"][2] == ["GTPO", "advantage_gtpo", "weight_gtpo", "push_gtpo"]


def test_tokens_are_coloured_by_what_is_asked(opened) -> None:
    was = rows_of(opened, "lab.strip")["id"]
    for shade, kind, means in (("weight", "weight", "1 where it has no weights of its own"), ("advantage", "diverging", "better than its baseline")):
        pick = next(group for group in opened.get("button_group") if group.proto.id.endswith("-lab.shade"))
        pick.set_value(shade).run()
        strip = rows_of(opened, "lab.strip")
        assert {(one["trace"], one["kind"]) for one in strip["quantities"]} == {(f"{shade}_{name}", kind) for name in ("grpo", "gtpo", "dapo")}
        assert len({one["scale"] for one in strip["quantities"]}) == 1 and means in words_of(opened) and opened.query_params["shade"] == shade
        assert strip["id"] == was  # the browser only recolours
    assert trace_of(opened, "weight_grpo").max() == 1 and trace_of(opened, "weight_gtpo").max() >= 2


def test_a_setting_typed_here_moves_the_text_and_not_the_record(seeded, opened) -> None:
    root, runs = seeded
    before, drawn = rows_of(opened, "lab.strip")["traces"]["clipped"], rows_of(opened, "lab.strip")["id"]
    key = f"lab.set.{runs['healthy']}.grpo.clip_high"
    opened.number_input(key=key).set_value(0.0).run()
    assert not opened.exception
    after = trace_of(opened, "clipped")
    assert rows_of(opened, "lab.strip")["id"] != drawn  # else the browser keeps the old values
    batch = batch_of(root, runs["healthy"], 30)
    expected = push_of(batch, make_config({"clip_high": 0.0}), after=True).clipped_N
    np.testing.assert_array_equal(after, expected[(batch.group_R == GROUP)[batch.rollout_N]])
    assert before != rows_of(opened, "lab.strip")["traces"]["clipped"]


def test_what_is_typed_is_told_apart_from_the_record(seeded) -> None:
    root, runs = seeded
    batch = batch_of(root, runs["healthy"], 30)
    reward_R, verdict_R = batch.reward_R.copy(), batch.verdict_R.copy()
    first = int(np.flatnonzero((batch.reward_R == 1) & (batch.index_R == 0))[0])
    reward_R[first], verdict_R[first] = 0.25, -1
    assert lab_controls.changes(batch, batch) == []
    assert lab_controls.changes(batch, replace(batch, reward_R=reward_R, verdict_R=verdict_R)) == [
        "rollout 0 has reward 0.25 instead of 1.00",
        "rollout 0 counts as wrong",
    ]


def test_one_method_alone_asks_for_a_second(seeded, open_page) -> None:
    root, runs = seeded
    said = words_of(open_page(root, "lab", run=runs["healthy"], step=30, methods="grpo"))
    assert "Choose a second method to compare" in said and "Appears when two methods are chosen" in said


def test_without_a_second_scoring_only_the_first_update_is_offered(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "lab", run=runs["stopped"], step=2, policy=lab_controls.AGAIN, methods="dr_grpo,grpo")
    (policy,) = (group for group in app.get("button_group") if group.proto.id.endswith("-lab.policy"))
    assert [option.content for option in policy.proto.options] == [lab_controls.FIRST]


@pytest.mark.parametrize("name", ["hostile", "failed", "collapsing"])
def test_it_opens_for_any_run(seeded, open_page, name) -> None:
    root, runs = seeded
    assert rows_of(open_page(root, "lab", run=runs[name], methods="grpo,<script>,nonsense,psr"), "lab.strip")["rollouts"]


def test_where_nothing_is_recorded_it_says_so(seeded, open_page) -> None:
    root, runs = seeded
    assert "No step recorded yet" in words_of(open_page(root, "lab", run=runs["starting"]))
    assert "has no group 99" in words_of(open_page(root, "lab", run=runs["healthy"], step=30, group=99))
    assert "is not recorded" in words_of(open_page(root, "lab", run=runs["healthy"], step=999))


def test_a_link_reproduces_what_was_typed(seeded, open_page) -> None:
    root, runs = seeded
    batch = batch_of(root, runs["healthy"], 30)
    inside = np.flatnonzero(batch.group_R == GROUP)
    other = f"30.{GROUP + 1}.0:9"
    place = dict(run=runs["healthy"], step=30, group=GROUP, methods="grpo,gtpo", set="gtpo.gtpo_conflict_weight:4,grpo.clip_high:0.2")
    turned = "no" if batch.verdict_R[inside[1]] > 0 else "yes"
    app = open_page(root, "lab", **place, rewards=f"30.{GROUP}.0:0.25,30.{GROUP}.2:none,{other}", correct=f"30.{GROUP}.1:{turned}")
    said = words_of(app)
    assert "rollout 0 has reward 0.25 instead of" in said and "rollout 2 has reward – instead of" in said and "rollout 1 counts as" in said
    assert "GTPO has gtpo_conflict_weight 4 instead of 2" in said and "clip_high" not in "".join(info.value for info in app.info)
    assert not app.warning and app.number_input(key=f"lab.set.{runs['healthy']}.gtpo.gtpo_conflict_weight").value == 4
    shown = app.dataframe[0].value
    assert shown["reward"][0] == 0.25 and np.isnan(shown["reward"][2])
    typed = lab_address.Edits(rewards={0: 0.25, 2: np.nan}, correct={1: not batch.verdict_R[inside[1]] > 0}).over(batch, inside)
    drawn = trace_of(app, "push_grpo")
    push = push_of(typed, make_config({"method": "grpo", "epochs": 2}), after=False)
    np.testing.assert_allclose(drawn, push.push_N[(batch.group_R == GROUP)[batch.rollout_N]], rtol=1e-4, atol=1e-6)
    first, *_ = rows_of(app, "lab.strip")["rollouts"]
    assert first["facts"][0][0] == "0.25" and [fixed(push.advantage_R[inside[0]], sign=True), "advantage"] in first["facts"]


def test_what_is_typed_goes_to_the_address_and_back_again(opened, seeded) -> None:
    key = f"lab.set.{seeded[1]['healthy']}.dapo.clip_low"
    opened.number_input(key=key).set_value(0.1).run()
    assert opened.query_params["set"] == "dapo.clip_low:0.1" and "DAPO has clip\\_low 0\\.1" in opened.info[0].value
    opened.button(key="lab.undo").click().run()
    assert "set" not in opened.query_params and opened.number_input(key=key).value == 0.2 and not opened.info


def test_a_choice_is_a_setting_like_a_number(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "lab", run=runs["healthy"], step=30, group=GROUP, methods="grpo,gtpo")
    app.selectbox(key=f"lab.set.{runs['healthy']}.gtpo.gtpo_code").set_value("released").run()
    assert not app.exception and app.query_params["set"] == "gtpo.gtpo_code:released"
    assert "GTPO has gtpo_code released instead of paper" in words_of(app)
    batch = batch_of(root, runs["healthy"], 30)
    push = push_of(batch, make_config({"method": "gtpo", "gtpo_code": "released"}), after=False)
    drawn = trace_of(app, "weight_gtpo")
    np.testing.assert_allclose(drawn, push.weight_N[(batch.group_R == GROUP)[batch.rollout_N]], rtol=1e-4, atol=1e-6)
    assert set(lab_address.choices("grpo_llds")) == {"llds_gate", "llds_normaliser"} and set(lab_address.choices("rank_grpo")) == {"rank_decay"}


def test_a_group_reward_is_a_setting_that_moves_the_rewards(seeded, opened, open_page) -> None:
    """By its widget, then by its address with a verdict typed over the record, which the rule looks at."""
    root, runs = seeded
    batch, was = batch_of(root, runs["healthy"], 30), config_of(root, runs["healthy"])
    inside = np.flatnonzero(batch.group_R == GROUP)
    opened.selectbox(key=f"lab.group_reward.{runs['healthy']}").set_value("otc").run()
    opened.text_input(key=f"lab.mark_pattern.{runs['healthy']}").set_value("1").run()
    assert not opened.exception and (opened.query_params["group_reward"], opened.query_params["mark_pattern"]) == ("otc", "1")
    made = shaped(batch, was, was.with_changes(group_reward="otc", mark_pattern="1"))
    assert "What if: the group reward is OTC-GRPO looking for 1 instead of none." in words_of(opened)
    np.testing.assert_allclose(opened.dataframe[0].value["reward"], made.reward_R[inside])
    np.testing.assert_allclose(trace_of(opened, "push_grpo"), push_of(made, was, after=True).push_N[np.isin(batch.rollout_N, inside)], rtol=1e-4, atol=1e-6)
    opened.button(key="lab.undo").click().run()
    assert "group_reward" not in opened.query_params and not opened.info
    right = inside[batch.verdict_R[inside] > 0][0]
    turned = replace(batch, verdict_R=np.where(np.arange(len(batch.verdict_R)) == right, -1.0, batch.verdict_R))
    app = open_page(root, "lab", run=runs["healthy"], step=30, group=GROUP, group_reward="otc", correct=f"30.{GROUP}.{batch.index_R[right]}:no")
    expected = shaped(turned, was, was.with_changes(group_reward="otc")).reward_R
    np.testing.assert_allclose(app.dataframe[0].value["reward"], expected[inside])
    assert expected[right] == 0 and f"rollout {batch.index_R[right]} has reward 0.00 instead of" in words_of(app)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (dict(group_reward="e_grpo"), "the entities of every prompt, which are not recorded"),
        (dict(group_reward="ps_grpo"), "paraphrases=1 has one"),
        (dict(group_reward="otc", mark_pattern="("), "is no regular expression"),
        (dict(group_reward="otc", methods="gdpo,grpo"), "method gdpo takes the parts of the reward apart"),
        (dict(group_reward="otc", methods="gdpo"), "method gdpo takes the parts of the reward apart"),
        (dict(group_reward="nonsense"), "group_reward nonsense"),
        (dict(group_reward="otc", group_reward_weight="-1"), "greater than or equal to 0"),
        (dict(group_reward="otc", group_reward_weight="much"), "group_reward_weight much"),
    ],
    ids=str,
)
def test_a_group_reward_that_cannot_be_had_says_why(seeded, open_page, asked, says) -> None:
    root, runs = seeded
    app = open_page(root, "lab", run=runs["healthy"], step=30, group=GROUP, **asked)
    assert says in app.warning[0].value.replace("\\", "") and not app.exception


WRONG = {
    "rewards": ("30.3.0:abc", "30.3.99:1", "x", "30.3:1", "30.3.0:nan", "30.3.0:1e999", "1" * 3000, *PAYLOADS),
    "correct": ("30.3.0:maybe", "30.3.0", *PAYLOADS),
    "set": (
        "gtpo.gtpo_code:3", "grpo.gtpo_code:paper", "grpo_llds.llds_gate:open", "grpo.clip_high:-3", "grpo.nothing:1", "nobody.clip_high:1",
        "grpo.clip_high:nan", "grpo.clip_high:9e99", "x" * 3000, *PAYLOADS,
    ),  # fmt: skip
    "methods": ("nonsense", "grpo,dapo,gspo,rloo,opo,cispo", *PAYLOADS),
    "policy": ("Third update", *PAYLOADS),
}


def test_what_the_address_cannot_ask_for_is_one_sentence(seeded, open_page) -> None:
    """All of it at once."""
    root, runs = seeded
    asked = {name: ",".join(values) for name, values in WRONG.items()}
    app = open_page(root, "lab", run=runs["healthy"], step=30, group=GROUP, **asked)
    (said,) = (one.value for one in app.warning)
    assert said.startswith("The address asks for what cannot be shown, which is left out") and "method nonsense; " in said and said.endswith("more\\.")
    assert not re.search(r"(?<!\\)<", said) and len(said) < 600
    assert not app.info and rows_of(app, "lab.strip")["rollouts"]


@pytest.mark.parametrize("name", sorted(WRONG))
def test_every_wrong_value_is_named(name, seeded, monkeypatch) -> None:
    for value in (value for value in WRONG[name] if "," not in value):
        monkeypatch.setattr(lab_address.st, "query_params", {name: value})
        wrong = lab_address.read_edits(30, 3, np.arange(4))[1] + lab_address.read_settings()[1] + lab_address.read_methods(5)[1]
        bounded = value in ("grpo.clip_high:-3", "grpo.clip_high:9e99")  # a number, which the config then refuses
        assert len(wrong) == (name != "policy" and not bounded) and all(len(one) < 60 for one in wrong)


def test_only_what_changed_is_weighed_again(opened, seeded, monkeypatch) -> None:
    asked, pushes = [], Laboratory.pushes

    def counted(self, batch, configs, *, after):
        asked.append([config.method for config in configs])
        return pushes(self, batch, configs, after=after)

    monkeypatch.setattr(Laboratory, "pushes", counted)
    opened.run()
    opened.number_input(key=f"lab.set.{seeded[1]['healthy']}.dapo.clip_low").set_value(0.1).run()
    opened.query_params["rewards"] = f"30.{GROUP}.0:7"
    opened.run()
    assert asked == [["dapo"], ["grpo", "gtpo", "dapo"]]


def test_it_opens_where_methods_have_something_to_weigh() -> None:
    """The newest step with a group whose rewards differ; group size 1 has no ties, so that its newest step counts; else the newest of all."""
    steps = pd.DataFrame({"step": [3, 4, 5], "groups": 2, "groups_tied": [0, 1, 2]})
    for tied, opens in (([0, 1, 2], 4), ([2, 2, 2], 5), ([np.nan] * 3, 5)):
        steps["groups_tied"] = tied
        assert step_groups.chosen_step(steps, telling=~(steps["groups_tied"] >= steps["groups"])) == opens

import base64
import json

import numpy as np
import pandas as pd
import pytest

from pages.components import conflict_view
from tests.pages.looking import rows_of, words_of
from tests.pages.seeded import PAYLOADS, make_run


def of_key(app, key: str) -> bool:
    return any(element.proto.id.endswith(f"-{key}") for element in app.get("bidi_component"))


def cells(table: dict) -> list[list[str]]:
    return [[cell.get("text", cell.get("chip", {}).get("text")) for cell in row["cells"]] for row in table["rows"]]


def test_the_share_of_contested_tokens_comes_first(seeded, open_page) -> None:
    root, runs = seeded
    said = words_of(open_page(root, "conflicts", run=runs["healthy"], step=30))
    assert "**Over the last 10 steps," in said and "of the pushed tokens are contested" in said
    assert "On balance the groups push contested tokens" in said and "follow an identical beginning" in said


def test_tokens_groups_text_and_pairs_of_a_step(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "conflicts", run=runs["healthy"], step=30)
    tokens, groups = rows_of(app, "conflict.tokens"), rows_of(app, "conflict.groups")
    counts = [int(row[1]) for row in cells(tokens)]
    assert counts == sorted(counts, reverse=True) and all(column["means"] for column in tokens["columns"] + groups["columns"])
    nets = [row["cells"][5]["sort"] for row in groups["rows"]]
    assert nets == sorted(nets) and groups["rows"][0]["chosen"]
    assert f"Group {groups['rows'][0]['id']} of step 30" in words_of(app)
    strip = rows_of(app, "conflict.strip")
    assert len(strip["rollouts"]) == 8 and strip["beside"] == "gtpo" and strip["quantity"] == "net"
    assert of_key(app, "plot.conflict.opposition") and of_key(app, "plot.conflict.position")
    said = words_of(app)
    assert "tokens of " in said and "GTPO would weigh" in said and "oppose each other most" in said


def test_marks_and_weights_of_the_text_are_those_of_the_group(seeded, open_page) -> None:
    """What the browser gets, decoded, is what the pure functions say about the stored rollouts."""
    root, runs = seeded
    app = open_page(root, "conflicts", run=runs["healthy"], step=30)
    strip = rows_of(app, "conflict.strip")
    marks = np.frombuffer(base64.b64decode(strip["marks"]), "u1")
    weights = np.frombuffer(base64.b64decode(strip["traces"]["gtpo"]), "<f4")
    up = np.repeat(
        [float(dict((name, value) for value, name in card["facts"])["advantage"].replace("−", "-")) > 0 for card in strip["rollouts"]],
        [len(card["pieces"]) for card in strip["rollouts"]],
    )
    in_run = (marks & 3) > 0
    assert in_run.any() and set(weights[in_run & up]) <= {2, 4} and set(weights[in_run & ~up]) == {0} and set(weights[~in_run]) == {1}
    assert [fact[0] for card in strip["rollouts"] for fact in card["facts"] if fact[1] == "in conflict"] == [
        str(int(((part & 7) > 0).sum())) for part in np.split(marks, np.cumsum([len(card["pieces"]) for card in strip["rollouts"]])[:-1])
    ]


def test_the_group_in_the_address_is_shown(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "conflicts", run=runs["healthy"], step=3, group=2, quantity="advantage")
    assert "Group 2 of step 3" in words_of(app) and rows_of(app, "conflict.strip")["quantity"] == "advantage"


def test_hostile_text_stays_text(seeded, open_page) -> None:
    root, runs = seeded
    app = open_page(root, "conflicts", run=runs["hostile"], step=0, group=0)
    assert {rollout["pieces"][0] for rollout in rows_of(app, "conflict.strip")["rollouts"]} == set(PAYLOADS)
    assert not any("<script" in element.proto.body.replace("\\<", "") for element in app.get("markdown"))


@pytest.mark.parametrize(("where", "sentence"), [({"step": 9999}, "Step 9999 is not recorded"), ({"step": 3, "group": 77}, "Step 3 has no group 77")])
def test_what_does_not_exist_is_a_sentence(seeded, open_page, where: dict, sentence: str) -> None:
    root, runs = seeded
    assert sentence in words_of(open_page(root, "conflicts", run=runs["healthy"], **where))


def test_a_run_without_steps_says_when(seeded, open_page) -> None:
    root, runs = seeded
    assert "No step recorded yet" in words_of(open_page(root, "conflicts", run=runs["starting"]))


def test_a_live_run_refreshes(seeded, open_page) -> None:
    root, runs = seeded
    assert of_key(open_page(root, "conflicts", run=runs["collapsing"]), "tick.conflicts.body")


def steps_of(**columns: list) -> pd.DataFrame:
    return pd.DataFrame({f"conflict_{name}": values for name, values in columns.items()} | {"groups": [2], "groups_tied": [1]})


class SomeRun:
    config = type("Config", (), {"method": "nsr"})


def test_sentences_by_hand() -> None:
    """50 + 10 of 100 contested, of them 45 pushed down (75 %)."""
    steps = steps_of(tokens=[100], run=[50], head=[40], tail=[15], mid=[10], shared=[30], pushed_down=[45])
    said = " ".join(conflict_view.sentences(SomeRun, steps))
    assert "60\u00a0% of the pushed tokens are contested" in said and "mostly down: 75\u00a0% of them" in said
    assert "40\u00a0% of the pushed tokens are in head runs, 15\u00a0% in tail runs, 10\u00a0% in the middle; 30\u00a0% follow" in said


def test_no_group_pushed_both_ways_is_not_zero_conflict() -> None:
    said = " ".join(conflict_view.sentences(SomeRun, steps_of(tokens=[0], run=[0], head=[0], tail=[0], mid=[0], shared=[0], pushed_down=[0])))
    assert "no token can be in conflict" in said and "in the others nsr gives advantages of one sign only" in said


def test_a_run_from_before_is_not_available() -> None:
    nothing = {name: [np.nan] for name in ("tokens", "run", "head", "tail", "mid", "shared", "pushed_down")}
    assert "not available" in conflict_view.sentences(SomeRun, steps_of(**nothing))[0]


def test_no_vocabulary_shows_ids(store_root, open_page) -> None:
    run_id = make_run(store_root, {"name": "wordless", "steps": 2}, recorded=1, state="finished")
    (store_root / "runs" / run_id / "vocabulary.parquet").unlink()
    app = open_page(store_root, "conflicts", run=run_id, step=0)
    assert json.dumps(rows_of(app, "conflict.strip"), ensure_ascii=False).count("⟨") > 0

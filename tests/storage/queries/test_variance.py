"""Four groups by hand: prompt "a" fails, then is mixed; prompt "b" passes, and then one of its rollouts cannot be scored."""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from storage.queries.evidence import worst_groups
from storage.queries.groups import prompt_history
from storage.queries.variance import outcome_counts, prompt_groups, prompt_scores, prompt_states
from storage.reader import Store
from storage.segments import RunWriter, seal
from tests.factories import make_step_tables

GROUPS = {
    0: [("a", [0, 0], 0, "all_fail", 0.2, None), ("b", [1, 1], 2, "all_pass", 0.0, None)],
    3: [("b", [1, None], 1, "failed", None, None), ("a", [0, 1], 1, "mixed", 0.6, 0.25)],
}
"""step: (prompt, rewards, correct, outcome, diversity, sampler score) of each group."""


def tables(step: int) -> dict:
    made = make_step_tables(step, groups=2, group_size=2)
    rows = made["groups"].to_pylist()
    for row, (prompt, rewards, correct, outcome, diversity, score) in zip(rows, GROUPS[step], strict=True):
        row |= {"prompt_hash": prompt, "prompt": f"{prompt} at {step}", "rewards": rewards, "correct": correct, "outcome": outcome}
        row |= {"diversity": diversity, "sampler_score": score, "sampler_probability": score}
    return with_groups(made, rows)


def with_groups(made: dict, rows: list[dict]) -> dict:
    return made | {"groups": type(made["groups"]).from_pylist(rows, schema=made["groups"].schema)}


def written(root: Path, steps: Iterable[dict], *, sealed: bool) -> Store:
    """A store with the run r1 of some steps."""
    with RunWriter.open(root / "runs" / "r1") as writer:
        for made in steps:
            writer.append_step(made)
        writer.write_vocabulary(["a"])
    if sealed:
        seal(root / "runs" / "r1")
    return Store(root)


@pytest.fixture(scope="module", params=["live", "sealed"])
def store(request, tmp_path_factory) -> Store:
    return written(tmp_path_factory.mktemp(request.param), map(tables, GROUPS), sealed=request.param == "sealed")


def test_outcomes_of_each_step(store):
    counts = outcome_counts(store, "r1")
    assert counts[["step", "outcome", "correct", "scored", "groups"]].values.tolist() == [
        [0, "all_fail", 0, 2, 1], [0, "all_pass", 2, 2, 1], [3, "failed", 1, 1, 1], [3, "mixed", 1, 2, 1],
    ]  # fmt: skip
    assert outcome_counts(store, "r1", after=0).values.tolist() == counts[counts["step"] == 3].values.tolist()
    assert outcome_counts(store, "r1", after=3).empty


def test_groups_behind_a_hint_are_no_news_of_a_prompt(tmp_path):
    """The second group of the step is that of the first's prompt, sampled again behind a hint."""
    made = tables(0)
    rows = made["groups"].to_pylist()
    rows[1] |= {"prompt_hash": "a", "prompt": "a at 0, hinted", "hint_tokens": 3}
    with RunWriter.open(tmp_path / "runs" / "r1") as writer:
        writer.append_step(made | {"groups": type(made["groups"]).from_pylist(rows, schema=made["groups"].schema)})
        store = Store(tmp_path)
        assert outcome_counts(store, "r1")["outcome"].tolist() == ["all_fail"]
        assert prompt_scores(store, "r1")[["prompt", "seen", "correct"]].values.tolist() == [["a at 0", 1, 0]]
        assert [len(found) for found in (prompt_groups(store, "r1", "a"), prompt_history(store, "r1", "a"))] == [1, 1]
        assert worst_groups(store, "r1", 0, "correct_share", lowest=False)["group_index"].tolist() == [0]


def test_prompts_added_up(store):
    """a: 2 + 2 rollouts scored, 1 correct; diversity (0.2 + 0.6) / 2. b: 2 + 1 scored, 3 correct; diversity known once."""
    prompts = prompt_scores(store, "r1")
    assert prompts["prompt_hash"].tolist() == ["b", "a"]  # both last seen in step 3, b in its first group
    a = prompts.set_index("prompt_hash").loc["a"]
    assert (a["seen"], a["correct"], a["scored"], a["last_step"], a["last_group"], a["prompt"]) == (2, 1, 4, 3, 1, "a at 3")
    assert a[["mixed", "all_fail", "all_pass", "tied", "failed"]].tolist() == [1, 1, 0, 0, 0]
    assert math.isclose(a["diversity"], 0.4) and a["sampler_score"] == 0.25
    b = prompts.set_index("prompt_hash").loc["b"]
    assert (b["correct"], b["scored"], b["all_pass"], b["failed"], b["diversity"]) == (3, 3, 1, 1, 0.0)
    assert np.isnan(b["sampler_probability"])


def test_one_prompts_groups_in_order(store):
    groups = prompt_groups(store, "r1", "a")
    assert groups[["step", "group_index", "outcome", "correct", "scored"]].values.tolist() == [[0, 0, "all_fail", 0, 2], [3, 1, "mixed", 1, 2]]
    assert groups["diversity"].tolist() == [0.2, 0.6]
    assert prompt_groups(store, "r1", "nobody").empty


@pytest.fixture(scope="module", params=["live", "sealed"])
def replaying(request, tmp_path_factory) -> Store:
    """Step 0: prompt a with one of its two rollouts replayed, and remembered; step 1: a group of a that is all replayed, and prompt b."""
    steps = []
    for step in (0, 1):
        made = make_step_tables(step, groups=2, group_size=2)
        first, second = made["groups"].to_pylist()
        first |= {"prompt_hash": "a", "rewards": [1, 0], "correct": 0, "prompt_state": [("p", 0.25 + step / 4), ("stored", 1.0)]}
        first |= {"replayed": 1, "outcome": "all_fail"} if step == 0 else {"replayed": 2, "outcome": "replayed"}
        second |= {"prompt_hash": "b", "rewards": [1, 1], "correct": 2, "outcome": "all_pass"}
        steps.append(with_groups(made, [first, second]))
    return written(tmp_path_factory.mktemp(f"replay-{request.param}"), steps, sealed=request.param == "sealed")


def test_what_is_replayed_counts_nowhere_as_sampled(replaying):
    counts = outcome_counts(replaying, "r1")
    known = counts[["step", "outcome", "correct", "scored", "groups"]].values.tolist()
    assert known == [[0, "all_fail", 0, 1, 1], [0, "all_pass", 2, 2, 1], [1, "all_pass", 2, 2, 1]]
    a = prompt_scores(replaying, "r1").set_index("prompt_hash").loc["a"]
    assert (a["seen"], a["correct"], a["scored"], a["last_step"]) == (1, 0, 1, 0)
    assert prompt_groups(replaying, "r1", "a")[["step", "outcome", "scored", "replayed"]].values.tolist() == [[0, "all_fail", 1, 1], [1, "replayed", 0, 2]]


def test_what_was_remembered_of_a_prompt_step_by_step(replaying, store):
    states = prompt_states(replaying, "r1", "a")
    assert states[["step", "name", "value"]].values.tolist() == [[0, "p", 0.25], [0, "stored", 1.0], [1, "p", 0.5], [1, "stored", 1.0]]
    assert prompt_states(replaying, "r1", "b").empty and prompt_states(store, "r1", "a").empty

"""What a study says of its runs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from grpo_core import study
from grpo_core.config import RunConfig
from grpo_core.study import Outcome, chance_of_separation, findings, outcome, spread, unequal
from tests.factories import status_of

APART = "each of its seeds below each of OPO's, as chance alone does with 1 in 10 pairs of equal methods"
NONE = dict.fromkeys(("reward", "held_out_first", "held_out_best", "wall_s"))


def ended(method: str, held_out: float | None, verdict: str = "healthy") -> Outcome:
    return Outcome(method=method, seed=0, run_id="r", state="finished", steps=9, held_out_last=held_out, verdict=verdict, cause="", **NONE)


def test_outcome_takes_what_was_measured() -> None:
    held_out = np.array([0.2, np.nan, 0.6, np.nan, 0.5])
    found = outcome(RunConfig(method="opo", seed=4), status_of(step=5), reward=np.array([0, 1, 2, 3, 4, 5, np.nan]), held_out=held_out, report=None)
    assert (found.method, found.seed, found.steps) == ("opo", 4, 5)
    assert (found.reward, found.held_out_first, found.held_out_best, found.held_out_last) == (3.0, 0.2, 0.6, 0.5)
    assert found.verdict == "not available" and found.cause == ""


def test_outcome_of_nothing_is_not_available() -> None:
    found = outcome(RunConfig(), status_of(step=0), reward=np.empty(0), held_out=np.full(3, np.nan), report=None)
    assert found.reward is found.held_out_first is found.held_out_best is found.held_out_last is None


@pytest.mark.parametrize(
    ("ends", "leader", "rest"),
    [
        ({"grpo": [0.5, 0.51, 0.49], "opo": [0.8, 0.81, 0.79]}, "OPO 0.80 ± 0.01 over 3 seeds", f"; next is GRPO with 0.50 ± 0.01, {APART}."),
        ({"grpo": [0.5, 0.7], "opo": [0.55, 0.7]}, "OPO 0.62 ± 0.11 over 2 seeds", "; next is GRPO with 0.60 ± 0.14, but their seeds overlap."),
        ({"grpo": [0.5], "opo": [0.4]}, "GRPO 0.50 over one seed", "; next is OPO with 0.40, but one seed cannot say how much of that is chance."),
        ({"grpo": [0.5], "opo": [None]}, "GRPO 0.50 over one seed", "; no other method has been evaluated yet."),
    ],
)
def test_ranking(ends: dict, leader: str, rest: str) -> None:
    method, figures = leader.split(" ", 1)
    said = findings([ended(method, value) for method, values in ends.items() for value in values])[0]
    assert said == f"{method} ends highest on held-out prompts with {figures}{rest}"


def test_without_evaluation_nothing_is_ranked() -> None:
    assert findings([ended("grpo", None), ended("opo", None)])[0] == "No run has been evaluated on held-out prompts yet, so nothing can be ranked."


def test_harm_is_counted_by_method() -> None:
    runs = [ended("grpo", 0.5, "collapsed"), ended("grpo", 0.5), ended("opo", 0.5, "watch")]
    assert findings(runs)[1] == "Unhealthy or collapsed: GRPO 1 of 2."
    assert findings(runs[1:])[1] == "None of the 2 runs with a verdict is unhealthy or collapsed."
    assert findings(runs[2:])[1] == "The one run with a verdict is neither unhealthy nor collapsed."
    assert findings([ended("grpo", None, "not available")])[1] == "No run has a verdict yet."


def test_separation_by_chance() -> None:
    """Of the C(4, 2) = 6 ways to deal four values to two methods two separate them, of the C(10, 5) = 252 likewise."""
    assert (chance_of_separation(2, 2), chance_of_separation(3, 3), chance_of_separation(5, 5)) == (3, 10, 126)
    tie = [ended("grpo", 0.5), ended("grpo", 0.5), ended("opo", 0.5), ended("opo", 0.5)]
    assert findings(tie)[0].endswith("but their seeds overlap.")


def test_unequal_names_what_differs_beside_method_and_seed() -> None:
    assert unequal([RunConfig(method="grpo", seed=1, name="a"), RunConfig(method="opo", seed=2, name="b")]) == []
    assert unequal([RunConfig(), RunConfig(lr=1e-3, group_size=4)]) == ["group_size", "lr"] and unequal([]) == []


def test_spread() -> None:
    assert spread([1.0, 3.0, None]) == "2.00 ± 1.41" and spread([0.5, math.nan]) == "0.50" and spread([None]) == "not available"


def test_tags_of_studies() -> None:
    assert study.is_tag(study.new_tag()) and not study.is_tag("study") and not study.is_tag("my study-20260101-000000")

"""A method from outside the package: the example of docs/methods.md as a user's own file, through the public registries alone, trained, weighed and drawn."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from grpo_core import methods
from grpo_core.algorithms.norms import NORMS
from grpo_core.config import make_config
from grpo_core.equations import advantage
from grpo_core.lab.batch import RecordedBatch
from grpo_core.lab.push import push_of
from grpo_core.launch.start import child_environment
from grpo_core.method_row import Method
from grpo_core.methods import METHODS, unknown_method
from grpo_core.methods_page import methods_markdown
from grpo_core.own_methods import OWN_METHODS, bring
from grpo_core.trainer.step import run_step
from tests.trainer.small_runs import small_state

EXAMPLE = re.search(r"```python\n(# my_methods.py\n.*?)```", methods_markdown(), re.DOTALL)[1]


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is brought goes again."""
    monkeypatch.setattr(NORMS, "_items", dict(NORMS._items))
    monkeypatch.setenv(OWN_METHODS, "")
    before = set(METHODS)
    yield
    for name in set(METHODS) - before:
        del METHODS[name]
    sys.modules.pop("groupscope_methods", None)


@pytest.fixture
def outside(registries: None, tmp_path: Path) -> Method:
    (tmp_path / "my_methods.py").write_text(EXAMPLE)
    assert bring(str(tmp_path / "my_methods.py")) == ""
    return METHODS["grpo_range"]


def test_it_trains_like_any_other(outside, model_cache):
    state = small_state(model_cache, method=outside.name)
    trace = run_step(state, 0)
    run_step(state, 1)
    mixed = [g for g in trace.groups if len({r.reward.total for r in g.rollouts}) > 1]
    assert mixed
    for group in mixed:
        rewards = np.array([r.reward.total for r in group.rollouts])
        by_hand = (rewards - rewards.mean()) / np.ptp(rewards)
        np.testing.assert_allclose([r.advantages[0] for r in group.rollouts], by_hand, atol=1e-5)


def test_the_laboratory_weighs_it_and_its_equation_is_drawn(outside):
    nan = np.full(4, np.nan)
    batch = RecordedBatch(
        group_R=np.array([0, 0]), index_R=np.array([0, 1]), reward_R=np.array([2.0, 0.0]), verdict_R=np.array([1.0, -1]), length_R=np.array([2, 2]),
        first_round_R=np.ones(2, "?"), surplus_R=np.zeros(2, "?"), token_ids_N=np.arange(4), logp_N=np.full(4, -1.0), delta_N=nan, ref_N=nan, entropy_N=nan,
        first_entropy=float("nan"), max_length=2,
    )  # fmt: skip
    push = push_of(batch, make_config({"method": outside.name}), after=False)
    np.testing.assert_allclose(push.advantage_R, [0.5, -0.5], atol=1e-5)
    np.testing.assert_allclose(push.push_N, [0.125, 0.125, -0.125, -0.125], atol=1e-5)
    assert "range" in advantage(outside)


def test_runs_started_in_other_folders_know_it_too(registries, tmp_path, monkeypatch):
    """launch and compare start runs as processes of their own, with the variables that `child_environment` lets through."""
    (tmp_path / "my_methods.py").write_text(EXAMPLE)
    monkeypatch.chdir(tmp_path)
    assert bring("my_methods.py") == ""
    assert child_environment(os.environ, tmp_path / "elsewhere")[OWN_METHODS] == str(tmp_path / "my_methods.py")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("mine.py", "1 / 0", "could not be run: ZeroDivisionError: division by zero"),
        ("mine.py", "import nowhere_to_be_found", "could not be run: ModuleNotFoundError"),
        ("mine.txt", "", "is no Python file"),
        (None, "", "could not be run: FileNotFoundError"),
    ],
)
def test_a_file_that_cannot_be_run_is_a_sentence_where_its_method_is_asked_for(name, text, says, registries, tmp_path, monkeypatch):
    if name:
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    wrong = bring(name or "absent.py")
    assert says in wrong and "\n" not in wrong and os.environ[OWN_METHODS] == str(tmp_path / (name or "absent.py"))
    monkeypatch.setattr(methods, "NOT_BROUGHT", wrong)
    assert unknown_method("grpo_range").endswith(wrong)

"""What is kept of methods that were trained here."""

import json

import pytest

from grpo_core import trained as module
from grpo_core.methods import METHODS
from grpo_core.trained import Trained, gain, keep, of_method, outcome, setting, trained


def run(first: float, last: float, seed: int = 0, method: str = "grpo") -> Trained:
    return Trained(method=method, seed=seed, first=first, last=last, command="train NAME")


def test_the_kept_runs_are_of_methods_that_exist_three_seeds_each():
    assert trained()
    for command, found in trained().items():
        assert "--methods NAME" in command and "--seeds 3" in command and set(found) <= set(METHODS)
        for runs in found.values():
            assert len({one.seed for one in runs}) == len(runs) == 3 and all(0 <= one.first <= 1 and 0 <= one.last <= 1 for one in runs)


def test_settings_in_words():
    assert setting("compare --methods NAME --steps 30 --lr 4e-4") == "30 steps, arithmetic, lr 4e-4"
    assert setting("compare --methods NAME --group-reward ps_grpo --paraphrases 2 --steps 9") == "9 steps, arithmetic, group reward ps_grpo, paraphrases 2"
    assert len({setting(command) for command in trained()}) == len(trained())


def test_outcomes_in_words():
    assert outcome([run(0.5, 0.75), run(0.5, 0.65)]) == "Held-out accuracy 0.50 → 0.75, 0.50 → 0.65: +0.20 ± 0.07, better on every seed."
    assert outcome([run(0.5, 0.5), run(0.5, 0.65)]).endswith("better on 1 of 2 seeds.") and outcome([run(0.5, 0.4)]).endswith("-0.10, better on no seed.")
    assert gain([run(0.5, 0.4)]) == "-0.10"


def test_results_of_compare_take_the_place_of_older_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PATH", tmp_path / "trained.json")
    results = []
    for method, last in (("grpo", 0.7), ("opmd", 0.6), ("grpo", 0.8), ("grpo", 0.9)):
        results.append(tmp_path / f"{len(results)}.json")
        said = {"held_out_first": 0.5, "held_out_best": last, "held_out_last": last, "reward": 1, "verdict": "healthy", "cause": "", "wall_s": 9}
        results[-1].write_text(json.dumps({"study": "s", "runs": [{"method": method, "seed": 0, **said}]}))
    try:
        for command, some in (("one", results[:2]), ("two", results[2:3]), ("one", results[3:])):
            keep(command, some)
            trained.cache_clear()
        kept = {(command, name): [one.last for one in runs] for command, found in trained().items() for name, runs in found.items()}
        assert kept == {("one", "opmd"): [0.6], ("one", "grpo"): [0.9], ("two", "grpo"): [0.8]}
        assert list(of_method("grpo")) == ["one", "two"] and of_method("gspo") == {}
    finally:
        monkeypatch.undo()
        trained.cache_clear()


def test_another_json_is_refused(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(KeyError):
        keep("one", [tmp_path / "a.json"])

import numpy as np
import pytest

from grpo_core.algorithms.credit import credit
from grpo_core.algorithms.values import Facts as CreditFacts
from grpo_core.diagnosis.history import Facts
from grpo_core.diagnosis.integrity import from_residue, integrity, wrong_advantages
from grpo_core.diagnosis.levels import Level
from grpo_core.methods import METHODS
from tests.diagnosis.made import made

GROUP = np.repeat([0, 1, 2], 4)
REWARD = np.array([1, 0, 0, 0.5, 1, 1, 1, 1, 0, 1, np.nan, 0])


def recorded(method: str) -> np.ndarray:
    import torch

    reward = torch.from_numpy(REWARD)
    scored = ~reward.isnan()
    verdicts = torch.where(scored, torch.where(reward > 0.5, 1.0, -1.0), 0.0).double()
    facts = CreditFacts(
        rewards_B=reward, verdicts_B=verdicts, entropies_B=torch.zeros_like(reward), parts_BK=reward[:, None], part_weights_K=torch.ones(1),
        draws_B=torch.linspace(0, 1, len(reward)), greedy_B=torch.zeros_like(reward), tracked_B=torch.zeros_like(reward),
        ranks_BK=reward[:, None],
    )  # fmt: skip
    advantages, _ = credit(facts, torch.from_numpy(GROUP), scored, METHODS[method].credit, whole=METHODS[method].whole)
    return advantages.numpy()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_what_the_trainer_computes_passes_for_every_method(method):
    assert not wrong_advantages(REWARD, recorded(method), GROUP, method).any()
    assert integrity(made(n=5, facts=Facts(method=method)), table(recorded(method))).level == Level.HEALTHY


def table(advantage: np.ndarray, **changes) -> dict:
    return {
        "step": np.full(12, 3),
        "group_index": GROUP,
        "reward": REWARD,
        "advantage": advantage,
        "tokens": np.full(12, 7),
        "traced": np.full(12, 7),
    } | changes


def signal(**changes):
    return integrity(made(n=5, facts=Facts(method="grpo")), table(**({"advantage": recorded("grpo")} | changes)))


def test_a_faithful_recording_is_healthy():
    assert (signal().level, signal().value, signal().since_step) == (Level.HEALTHY, 0, None)


def test_a_wrong_advantage_is_found_and_named():
    wrong = recorded("grpo")
    wrong[1] = 0.9
    found = signal(advantage=wrong)
    assert (found.level, found.since_step, found.value) == (Level.UNHEALTHY, 3, 1) and found.levels.tolist() == [0, 0, 0, 2, 0]
    assert (found.evidence[0].step, found.evidence[0].group) == (3, 0) and "another advantage" in found.evidence[0].label


def test_groups_that_were_mixed_up_are_found():
    mixed = recorded("grpo")[[4, 5, 6, 7, 0, 1, 2, 3, 8, 9, 10, 11]]
    assert signal(advantage=mixed).level == Level.UNHEALTHY


def test_an_advantage_made_of_rounding_is_found():
    reward = np.where(GROUP == 1, 0.95 + 1e-8 * np.arange(12), REWARD)
    advantage = np.where(GROUP == 1, [1.5, -0.5, -0.5, -0.5] * 3, recorded("grpo"))
    assert from_residue(reward, advantage, GROUP).tolist() == (GROUP == 1).tolist()
    assert "rounding" in signal(reward=reward, advantage=advantage).evidence[0].label


def test_a_trace_of_another_length_is_found():
    assert "length" in signal(traced=np.where(np.arange(12) == 2, 6, 7)).evidence[0].label


def test_an_unknown_method_is_held_against_the_order_alone():
    advantage = np.array([0.1, 0.2, 0.2, 0.15, 0, 0, 0, 0, -1, 1, 0, -1.0])
    assert wrong_advantages(REWARD, advantage, GROUP, None).tolist() == [True, False, False, True, *[False] * 8]


def test_nothing_trained_is_not_available():
    assert integrity(made(n=2), {name: [] for name in table(REWARD)}).level == Level.NOT_AVAILABLE

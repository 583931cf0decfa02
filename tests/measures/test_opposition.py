import numpy as np
import pytest

from grpo_core.measures.opposition import opposition


def test_pushes_by_hand() -> None:
    """Three rollouts, tokens 5, 6, 7; every token is sampled with probability 1/2, so that 1 − π = 1/2.

    Rollout 0 (A = 1): 5 6 → push (1/2, 1/2, 0). Rollout 1 (A = −1, weights 2): 5 7 → (−1, 0, −1). Rollout 2 (A = 0): nothing.
    cos(0, 1) = −1/2 / (√½ · √2) = −1/2. Sum (−1/2, 1/2, −1), length √1.5; lengths √½ + √2.
    """
    found = opposition(
        np.array([5, 6, 5, 7, 5]), np.array([2, 2, 1]), np.array([1, 1, -1, -1, 0.0]), np.array([1, 1, 2, 2, 1.0]), np.full(5, np.log(0.5))
    )
    np.testing.assert_allclose(found.cosine[:2, :2], [[1, -0.5], [-0.5, 1]], atol=1e-12)
    assert np.isnan(found.cosine[2]).all() and np.isnan(found.cosine[:, 2]).all()
    assert found.cancelled == pytest.approx(1 - 1.5**0.5 / (0.5**0.5 + 2**0.5))


def test_a_certain_token_pushes_nothing() -> None:
    """Token 5 is certain (1 − π = 0); what is left, 6 against 7, has nothing in common."""
    found = opposition(np.array([5, 6, 5, 7]), np.array([2, 2]), np.array([1, 1, -1, -1.0]), np.ones(4), np.array([0, -1, 0, -1.0]))
    assert found.cosine[0, 1] == 0


def test_the_same_text_pushed_both_ways_cancels() -> None:
    found = opposition(np.array([5, 6, 5, 6]), np.array([2, 2]), np.array([1, 1, -1, -1.0]), np.ones(4), np.full(4, -1.0))
    assert found.cosine[0, 1] == pytest.approx(-1) and found.cancelled == pytest.approx(1)


def test_a_missing_log_prob_makes_its_rollout_unknown() -> None:
    found = opposition(np.array([5, 5]), np.array([1, 1]), np.array([1.0, -1]), np.ones(2), np.array([np.nan, -1]))
    assert np.isnan(found.cosine[0, 1]) and found.cosine[1, 1] == 1 and found.cancelled == 0


def test_no_rollouts() -> None:
    empty = np.empty(0)
    found = opposition(empty, np.empty(0, int), empty, empty, empty)
    assert found.cosine.shape == (0, 0) and np.isnan(found.cancelled)

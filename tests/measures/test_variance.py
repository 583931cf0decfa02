import numpy as np
import pytest

from grpo_core.measures.variance import (
    draw_probability,
    expected_tied,
    half_of,
    mean_pass_at_k,
    outcome_variance,
    outcome_variance_unbiased,
    pass_at_k,
    promotion_score,
)


def test_worked_promotion_scores():
    """collapse_math.md §3.2: VPS(0.8, 0.2) with TDS = 1 − self-BLEU."""
    assert promotion_score(outcome_variance([4, 8, 4], [8, 8, 8]), np.array([0.5479, 1.0, 0.0])) == pytest.approx([0.3096, 0.2, 0.2], abs=5e-5)


def test_unbiased_variance_corrects_for_few_rollouts():
    assert outcome_variance_unbiased([1, 4, 1], [2, 8, 1])[:2] == pytest.approx([0.5, 0.25 * 8 / 7])
    assert np.isnan(outcome_variance_unbiased([1], [1])[0]) and np.isnan(outcome_variance([0], [0])[0])


def test_expected_share_of_groups_without_signal():
    got = [expected_tied(p, 8) for p in (0.5, 0.75, 0.9, 0.95)]
    assert got == pytest.approx([0.0078, 0.1001, 0.4305, 0.6634], abs=5e-5)


def test_pass_at_k_worked():
    assert [pass_at_k([2], [8], k)[0] for k in (1, 2, 4, 8)] == pytest.approx([0.25, 0.4643, 0.7857, 1.0], abs=5e-5)
    assert np.isnan(pass_at_k([2], [4], 8)[0]) and pass_at_k([0], [8], 8)[0] == 0


def test_half_of_the_draws_follow_the_score():
    """B = 5, λ = ½: ⌊2.5⌋ = 2 of 5 draws ∝ score, 3 of 5 uniform over 4 prompts: 0.4·s/Σ + 0.6/4."""
    got = draw_probability([0.3, 0.1, 0.0, np.nan], batch=5)
    assert got == pytest.approx([0.4 * 0.75 + 0.15, 0.4 * 0.25 + 0.15, 0.15, 0.15]) and got.sum() == pytest.approx(1)


def test_without_any_score_draws_are_uniform():
    assert draw_probability([0.0, 0.0], batch=8) == pytest.approx([0.5, 0.5])
    assert len(draw_probability([], batch=8)) == 0


def test_pass_at_k_of_a_step_is_the_mean_over_its_groups() -> None:
    """Step 4: two groups with 1 of 4 right, C(3,2)/C(4,2) = 1/2 missed, and one with 0 of 4, so (1/2 + 1/2 + 0)/3. Step 9: one rollout was scored."""
    steps, chance = mean_pass_at_k([4, 4, 9], [1, 0, 1], [4, 4, 1], [2, 1, 1], 2)
    assert steps.tolist() == [4, 9] and chance[0] == pytest.approx(1 / 3) and np.isnan(chance[1])
    assert [half_of(size) for size in (1, 2, 5, 8)] == [2, 2, 2, 4]

"""NTHR and GWHES on the worked example: V = 3, d = 2, one correct and one wrong completion of two tokens."""

import pytest
import torch

from grpo_core.algorithms.nthr import TokenFacts, gwhes, nthr, prediction_errors

CORRECT = TokenFacts(
    errors_NK=prediction_errors(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]]), torch.tensor([0, 1])), hidden_NH=torch.tensor([[1.0, 0], [0, 1]])
)
WRONG = TokenFacts(
    errors_NK=prediction_errors(torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6]]), torch.tensor([0, 0])), hidden_NH=torch.tensor([[1.0, 0], [0.6, 0.8]])
)


def test_prediction_errors():
    torch.testing.assert_close(CORRECT.errors_NK, torch.tensor([[0.3, -0.2, -0.1], [-0.1, 0.4, -0.3]]))
    torch.testing.assert_close(CORRECT.errors_NK @ WRONG.errors_NK.T, torch.tensor([[0.14, 0.34], [-0.08, 0.02]]))


def test_worked_example():
    found = nthr([CORRECT], [WRONG])
    torch.testing.assert_close(found.scores[0], torch.tensor([0.14, 0.22]))
    assert found.threshold == pytest.approx(0.20) and found.damping == 0
    assert (found.scores[0] > found.threshold).tolist() == [False, True]
    assert gwhes([CORRECT], [WRONG]) == pytest.approx((-0.04,))


@pytest.mark.parametrize(("correct", "damping"), [(1, 0.75), (2, 0.5), (4, 0.0), (6, 0.5), (7, 0.75)])
def test_damping_by_pass_rate(correct, damping):
    assert nthr([CORRECT] * correct, [WRONG] * (8 - correct)).damping == damping


def test_the_sums_are_those_of_every_pair_of_tokens():
    """Against the double sums of Thm. 4.4 and Eq. 6 written out, on two correct and three wrong completions."""
    generator = torch.Generator().manual_seed(0)

    def completion(n):
        probs = torch.rand(n, 5, generator=generator).softmax(-1)
        return TokenFacts(errors_NK=prediction_errors(probs, torch.randint(5, (n,), generator=generator)), hidden_NH=torch.randn(n, 4, generator=generator))

    correct, wrong = [completion(3), completion(2)], [completion(4), completion(1), completion(2)]

    def pairs(one, other):
        return (one.errors_NK @ other.errors_NK.T) * (one.hidden_NH @ other.hidden_NH.T)

    found = nthr(correct, wrong)
    for w, scores in zip(wrong, found.scores, strict=True):
        torch.testing.assert_close(scores, sum(pairs(c, w).sum(0) for c in correct))
    assert found.threshold == pytest.approx(min(float(sum(pairs(o, c).sum(0) for o in correct).mean()) for c in correct))
    plus, minus = 0.6 / 0.24**0.5, 0.4 / 0.24**0.5
    for c, score in zip(correct, gwhes(correct, wrong), strict=True):
        assert score == pytest.approx(float(minus * sum(pairs(c, w).sum() for w in wrong) - plus * sum(pairs(c, o).sum() for o in correct)), rel=1e-4)


def test_groups_of_one_kind_are_refused():
    with pytest.raises(ValueError, match="take a mixed group"):
        nthr([CORRECT], [])

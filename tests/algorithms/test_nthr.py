"""NTHR and GWHES on the worked example: V = 3, d = 2, one correct and one wrong completion of two tokens."""

from dataclasses import replace

import pytest
import torch

from grpo_core.algorithms.loss import Objective, loss_batch, policy_loss
from grpo_core.algorithms.nthr import Pull, TokenFacts, gwhes, nthr, prediction_errors
from grpo_core.algorithms.values import Facts
from grpo_core.methods import METHODS
from grpo_core.objectives import credited, multipliers_of

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


def weights_of(correct: int, wrong: int, method=METHODS["nthr"], rewards=None):
    """W and A of a group of copies of the worked example, two tokens each, beside a tied group that nothing was measured of."""
    found, rows, nan = nthr([CORRECT] * correct, [WRONG] * wrong), correct + wrong + 2, torch.nan
    scores_BT = torch.full((rows, 3), nan)
    scores_BT[correct : rows - 2, :2] = torch.stack(found.scores)
    mixed_B = torch.arange(rows) < rows - 2
    pull = Pull(scores_BT=scores_BT, anchor_B=torch.where(mixed_B, found.threshold, nan), damping_B=torch.where(mixed_B, found.damping, 1.0))
    rewards = torch.tensor([1.0] * correct + [0.0] * wrong + [1.0] * 2 if rewards is None else rewards, dtype=torch.float64)
    facts, group_B = Facts(rewards_B=rewards, entropies_B=torch.zeros(rows)), (~mixed_B).long()
    mask_BT = torch.tensor([[1.0, 1, 0]]).expand(rows, 3)
    weights_BT = multipliers_of(method, facts, ids_BT=mask_BT.long(), mask_BT=mask_BT, group_B=group_B, first_entropy=0.0, pull=pull)
    return weights_BT, credited(method, facts, group_B, inside_BT=mask_BT, item_BT=None).advantages_BT, mask_BT


def test_the_worked_example_trained():
    """W is [1, 0] on the wrong completion, so its second token is not pushed; A = ±1/√2 with n−1, every completion weighs 1/4 of the batch."""
    weights_BT, advantages_BT, mask_BT = weights_of(1, 1)
    assert weights_BT.tolist() == [[1, 1, 1], [1, 0, 1], [1, 1, 1], [1, 1, 1]]
    row, half = METHODS["nthr"], 0.5**0.5
    objective = Objective(surrogate=row.surrogate, level=row.level, clip=row.clip, normaliser=row.normaliser, penalties={})
    before_BT = -torch.ones(4, 3)
    logp_BT = before_BT.clone().requires_grad_()
    batch = loss_batch(objective, before_BT=before_BT, advantages_BT=advantages_BT.float(), mask_BT=mask_BT, max_length=3, multipliers_BT=weights_BT)
    loss = policy_loss(objective, logp_BT, batch)
    loss.total.backward()
    torch.testing.assert_close(loss.total.detach(), torch.tensor(-half / 8), atol=1e-5, rtol=0)
    torch.testing.assert_close(logp_BT.grad, torch.tensor([[-half / 8, -half / 8, 0], [half / 8, 0, 0], [0] * 3, [0] * 3]), atol=1e-5, rtol=0)


def test_damped_tokens_weigh_by_the_pass_rate_and_the_threshold_by_beta():
    """Of 4, 1 correct: η = 1/2. Three correct copies triple scores and anchor alike. β = 1.2 leaves .22 below 1.2 · .2, β = 0 takes .14 too."""
    assert weights_of(1, 3)[0][1:4].tolist() == [[1, 0.5, 1]] * 3 and weights_of(3, 1)[0][3].tolist() == [1, 0.5, 1]

    def at(beta):
        return replace(METHODS["nthr"], weights=(replace(METHODS["nthr"].weights[0], value=beta),))

    assert weights_of(1, 1, at(1.2))[0][1].tolist() == [1, 1, 1] and weights_of(1, 1, at(0.0))[0][1].tolist() == [0, 0, 1]


def test_a_wrong_completion_that_is_not_pushed_down_is_not_damped():
    """Partial credit: of the wrong ones the first lies above the group's mean."""
    assert weights_of(1, 2, rewards=[0.5, 0.9, 0.0, 1.0, 1.0])[0][:3].tolist()[1:] == [[1, 1, 1], [1, pytest.approx(1 / 3), 1]]


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

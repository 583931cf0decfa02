"""Credit and ratios of parts of a completion, against worked numbers."""

import pytest
import torch

from grpo_core.algorithms.segments import gigpo, hrpo, rank_credit, rank_rewards, returns_to_go, segment_log_ratio, spread_ranks


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def close(found, *values):
    torch.testing.assert_close(found, double(*values), atol=1e-5, rtol=0)


HITS = double([1.0, 0, 1, 0, 0], [0, 1, 0, 0, 0])


def test_a_rank_earns_what_the_list_earns_from_there_on():
    close(rank_rewards(HITS), [1.5, 0.5, 0.5, 0, 0], [0.63093, 0.63093, 0, 0, 0])
    close(rank_rewards(torch.ones(1, 5, dtype=torch.float64))[:, :1], [1 + 0.63093 + 0.5 + 0.430677 + 0.386853])
    close(rank_rewards(HITS, decay="exp_inf"), *HITS.tolist())
    with pytest.raises(ValueError, match="known: exp_inf, log_decay"):
        rank_rewards(HITS, decay="exp")


def test_ranks_are_compared_each_for_itself_and_ties_teach_nothing():
    found = rank_credit(rank_rewards(HITS))
    close(found[:1], [0.706992, -0.706344, 0.706907, 0, 0])
    assert (found[:, 3:] == 0).all()
    with pytest.raises(ValueError, match="at least 2"):
        rank_credit(HITS[:1])


def test_tokens_get_their_ranks_credit_and_the_length_its_shaping():
    """K = 2. Row 0: two items and an end in time; row 1: one item and an end that came early; row 2: an item too many and an end."""
    rank = torch.tensor([[0, 1, 1, 2], [0, 2, -1, -1], [0, 1, 2, 3]])
    end = torch.tensor([[False, False, False, True], [False, True, False, False], [False, False, False, True]])
    found = spread_ranks(double([0.5, -0.25], [1.0, 9.0], [0.25, 0.5]), rank, end_BT=end, ending_B=torch.tensor([1.0, -1.0, 0.0]))
    close(found, [0.5, -0.25, -0.25, 0.1], [1.0, -0.1, 0, 0], [0.25, 0.5, -0.1, 0])


def test_the_ratio_of_a_segment_is_the_geometric_mean_of_its_tokens():
    """d = [.1, .3 | −.2, 0, .4] gives 1.221403 and 1.068939; the gradient of a token is its segment's share."""
    logp = double([0.1, 0.3, -0.2, 0.0, 0.4, 7.0]).requires_grad_()
    found = segment_log_ratio(logp, torch.zeros(1, 6, dtype=torch.float64), torch.tensor([[0, 0, 1, 1, 1, -1]]))
    close(found.exp().detach(), [1.221403] * 2 + [1.068939] * 3 + [1.0])
    found.exp()[0, :3].sum().backward()
    close(logp.grad, [1.221403, 1.221403, 1.068939 / 3, 1.068939 / 3, 1.068939 / 3, 0])


def test_gigpo_adds_episodes_and_steps_from_the_same_state():
    """γ = .95, s0→s1→s2 earning 10 and s0→s1→s1 earning nothing."""
    rewards, trajectory = double(0, 0, 10, 0, 0, 0), torch.tensor([0, 0, 0, 1, 1, 1])
    close(returns_to_go(rewards, trajectory), 9.025, 9.5, 10, 0, 0, 0)
    close(gigpo(rewards, trajectory, ["s0", "s1", "s2", "s0", "s1", "s1"]), 9.5125, 11.333333, 5, -9.5125, -8.166667, -8.166667)
    close(gigpo(rewards, trajectory, list("abcdef")), 5, 5, 5, -5, -5, -5)
    close(gigpo(rewards, trajectory, ["s0", "s1", "s2", "s0", "s1", "s1"], weight=0), 5, 5, 5, -5, -5, -5)


def test_returns_pass_across_what_others_wrote():
    """Without discount every step of a trajectory that earns 1 at its end, an observation between them included, returns 1 (REINFORCE++)."""
    close(returns_to_go(double(0, 0, 1, 0), torch.tensor([0, 0, 0, 1]), gamma=1.0), 1, 1, 1, 0)
    close(gigpo(double(1, 1, 1, 1), torch.tensor([0, 0, 1, 1]), ["a", "b", "a", "b"]), 0, 0, 0, 0)  # all earn the same
    close(gigpo(double(1, 0, 0, 1), torch.tensor([0, 0, 1, 1]), ["a", "b", "a", "b"], gamma=0.5), 0.25, -0.5, -0.25, 0.5)  # but not at the same step


def test_gigpo_counts_a_long_trajectory_once():
    """Lengths 1 and 3 that earn 10 and 0: the mean is 5, not 2.5."""
    close(gigpo(double(10, 0, 0, 0), torch.tensor([0, 1, 1, 1]), list("abcd"), weight=0), 5, -5, -5, -5)


def test_hrpo_is_the_system_plus_its_action():
    trajectory = torch.tensor([0, 0, 1])
    close(hrpo(double(1, 0), trajectory, double(0.5, -0.5, 0.2), weight=0.1), 0.707106 + 0.05, 0.707106 - 0.05, -0.707106 + 0.02)
    close(hrpo(double(1, 1), trajectory, double(0.5, -0.5, 0.2)), 0.5, -0.5, 0.2)

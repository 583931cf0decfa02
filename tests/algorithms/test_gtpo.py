"""GTPO's conflict tokens and weights: the worked cases of its `build_conflict_mask`, and a port of it in numpy on random groups."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from grpo_core.algorithms.credit import credit
from grpo_core.algorithms.normalisers import NORMALISERS
from grpo_core.algorithms.values import Facts
from grpo_core.algorithms.weights import Written, conflict_runs, token_weights
from grpo_core.methods import METHODS

GTPO = METHODS["gtpo"]


def written(completions, advantages, *, entropies=None, first_entropy=0.0, group=None) -> Written:
    width = max(map(len, completions))
    return Written(
        ids_BT=torch.tensor([[*c, *[0] * (width - len(c))] for c in completions]),
        mask_BT=torch.tensor([[1.0] * len(c) + [0.0] * (width - len(c)) for c in completions]),
        group_B=torch.tensor(group or [0] * len(completions)),
        advantages_B=torch.tensor(advantages, dtype=torch.float64),
        entropies_B=torch.tensor(entropies or [0.0] * len(completions), dtype=torch.float64),
        first_entropy=first_entropy,
    )


def rule(name: str, value: float) -> SimpleNamespace:
    return SimpleNamespace(name=name, value=value)


def rows(weights, completions):
    return [row[: len(c)].tolist() for row, c in zip(weights, completions, strict=True)]


def product_of_runs(w: Written, amplify: float = 2.0):
    """λ_head · λ_tail, the reference port's convention."""
    runs = conflict_runs(w.ids_BT, w.mask_BT, w.group_B, w.advantages_B)
    inside = torch.where(w.advantages_B[:, None] > 0, amplify, 0.0)
    return torch.where(runs[0], inside, 1.0) * torch.where(runs[1], inside, 1.0)


CASES = {
    "a": ([[1, 2, 3, 9, 7, 8], [1, 2, 4, 9, 5, 7, 8]], [1, -1], [[2, 2, 1, 1, 2, 2], [0, 0, 1, 1, 1, 0, 0]]),
    "b": ([[1, 3, 9, 4], [2, 5, 9, 6]], [1, -1], [[1] * 4, [1] * 4]),
    "c": ([[1, 2, 3, 4], [1, 2, 5, 4], [1, 6, 7, 4]], [1, -1, 0], [[2, 2, 1, 2], [0, 0, 1, 0], [1] * 4]),
    "d": ([[1, 2, 3], [1, 2, 3]], [1, -1], [[4, 4, 4], [0, 0, 0]]),
    "e": ([[1, 2, 3], [1, 2, 3]], [1, 1], [[1] * 3, [1] * 3]),
    "f": ([[1, 2, 3, 4], [1, 9, 9, 5], [8, 2, 9, 5]], [1, -1, -1], [[2, 2, 1, 1], [0, 1, 1, 1], [1] * 4]),
}


@pytest.mark.parametrize("case", CASES)
def test_worked_cases(case):
    completions, advantages, expected = CASES[case]
    w = written(completions, advantages)
    assert rows(product_of_runs(w), completions) == expected
    as_published = token_weights(w, [rule("conflict", 2.0)])
    assert rows(as_published, completions) == [[min(x, 2) for x in row] for row in expected]  # in both runs: 2, not 2 · 2


def reference(ids, mask, advantages, w=2.0):
    """λ of one group, row by row; numpy, right-padded ids (G, L)."""
    lengths, weights = mask.sum(1), mask.astype(float).copy()
    for backwards in (False, True):
        tokens = [ids[i, : lengths[i]][:: -1 if backwards else 1] for i in range(len(ids))]
        better = {place for i, row in enumerate(tokens) if advantages[i] > 0 for place in enumerate(row)}
        worse = {place for i, row in enumerate(tokens) if advantages[i] < 0 for place in enumerate(row)}
        for i, row in enumerate(tokens):
            for t, v in enumerate(row):
                if advantages[i] == 0 or (t, v) not in better & worse:
                    break
                weights[i, lengths[i] - 1 - t if backwards else t] *= w if advantages[i] > 0 else 0.0
    return weights


@pytest.mark.parametrize("seed", range(30))
def test_random_groups_agree_with_the_reference(seed):
    """Ten groups a seed in one batch, so that groups would be seen to mix; 300 groups in all."""
    rng = np.random.default_rng(seed)
    size, width = 4, 7
    ids = rng.integers(1, rng.integers(2, 6), (10 * size, width))
    mask = np.arange(width) < rng.integers(1, width + 1, 10 * size)[:, None]
    ids[~mask] = 0
    advantages, group = rng.integers(-1, 2, 10 * size).astype(float), np.repeat(np.arange(10), size)
    expected = np.concatenate([reference(ids[group == g], mask[group == g], advantages[group == g]) for g in range(10)])
    w = Written(
        ids_BT=torch.from_numpy(ids), mask_BT=torch.from_numpy(mask).float(), group_B=torch.from_numpy(group),
        advantages_B=torch.from_numpy(advantages), entropies_B=torch.zeros(len(ids)), first_entropy=0.0,
    )
    np.testing.assert_array_equal(product_of_runs(w).numpy() * mask, expected)


def test_what_others_wrote_into_a_completion_does_not_part_a_run():
    """The third token is a tool's: without it [1, 9, 7] and [2, 9, 7] end alike, and their first tokens differ."""
    ids, mask = torch.tensor([[1, 9, 5, 7], [2, 9, 6, 7]]), torch.tensor([[1.0, 1, 0, 1]] * 2)
    head, tail = conflict_runs(ids, mask, torch.zeros(2, dtype=torch.long), torch.tensor([1.0, -1]))
    assert not head.any() and tail.tolist() == [[False, True, False, True]] * 2


def test_released_code_divides_by_the_longer_run():
    # case a has 4 conflict tokens and counts 2; case d: both runs are the whole of 3 tokens
    for case, count in (("a", 2), ("c", 2), ("d", 3)):
        completions, advantages, expected = CASES[case]
        found = token_weights(written(completions, advantages), [rule("conflict_released", 2.0)])
        for row, exp, advantage in zip(rows(found, completions), expected, advantages, strict=True):
            assert row == pytest.approx([x / (count if advantage else 1) for x in exp])


def test_the_entropy_filter_and_its_initial_branch():
    w = dict(completions=[[1], [2], [3]], advantages=[1, 0, -1], entropies=[0.3, math.log(2), 0.7])
    of = {name: [rule(name, value)] for name, value in (("entropy_filter", math.log(2)), ("entropy_filter_always", 0.7))}
    assert token_weights(written(**w, first_entropy=0.5), of["entropy_filter"])[:, 0].tolist() == [1, 1, 0]
    assert token_weights(written(**w, first_entropy=0.9), of["entropy_filter"])[:, 0].tolist() == [1, 1, 1]
    assert token_weights(written(**w, first_entropy=0.9), of["entropy_filter_always"])[:, 0].tolist() == [1, 1, 1]
    hot = w | {"entropies": [0.71, 0.2, 0.9]}
    assert token_weights(written(**hot, first_entropy=0.9), of["entropy_filter_always"])[:, 0].tolist() == [0, 1, 0]


def test_the_advantage_less_entropy():
    # r = [20, 10, 0, 10] → A = [10, 0, −10, 0], less 0.1 · ⟨H⟩
    facts = Facts(rewards_B=torch.tensor([20.0, 10, 0, 10]), entropies_B=torch.tensor([0.3, 0.3, 0.5, 0.75], dtype=torch.float64))
    found, _ = credit(facts, torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.bool), GTPO.credit)
    assert found.tolist() == pytest.approx([9.97, -0.03, -10.05, -0.075])
    assert credit(facts, torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.bool), GTPO.credit[:1])[0].tolist() == [10, 0, -10, 0]


def test_normalisers_as_published_and_released():
    mask = torch.tensor([[1.0, 1, 0], [1, 1, 1]])
    assert NORMALISERS[GTPO.normaliser](mask, 3).sum().item() == pytest.approx(1)
    assert NORMALISERS[GTPO.as_released().normaliser](mask, 3).sum(1).tolist() == pytest.approx([1, 1])

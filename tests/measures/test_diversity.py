import math
from collections import Counter

import numpy as np
import pytest

from grpo_core.measures.diversity import diversity, mean_pairwise_distance

MIXED = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 7, 8], [1, 2, 3, 9, 10, 11], [12, 13, 14, 15, 5, 6]]
IDENTICAL = [[1, 2, 3, 4, 5, 6]] * 4
DISJOINT = [[10 * i + j for j in range(6)] for i in range(4)]


def measured(groups: list[list[list[int]]]):
    rows = [row for group in groups for row in group]
    ids = np.array([token for row in rows for token in row], "i4")
    group_R = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    return diversity(ids, np.array([len(row) for row in rows]), group_R, len(groups))


def test_the_worked_numbers():
    """collapse_math.md §3.2, produced by MMR1's code on unpadded tokens."""
    found = measured([IDENTICAL, DISJOINT, MIXED])
    assert found.self_bleu_P == pytest.approx([1.0, 0.0, 0.4521], abs=5e-5)
    assert found.distinct_P == pytest.approx([0.25, 1.0, 0.8125])
    assert mean_pairwise_distance([np.array(row) for row in MIXED]) == pytest.approx(0.5093, abs=5e-5)
    assert mean_pairwise_distance(IDENTICAL) == 0.0


def self_bleu(rows: list[list[int]]) -> float:
    """Sentence BLEU of each row against the others, by the definition (Papineni 2002; smoothing method 1)."""
    scores = []
    for i, row in enumerate(rows):
        others = [other for j, other in enumerate(rows) if j != i]
        log_precision, any_token = 0.0, True
        for n in (1, 2, 3):
            grams = lambda r: Counter(tuple(r[k : k + n]) for k in range(len(r) - n + 1))  # noqa: B023, E731
            best = Counter()
            for other in others:
                best |= grams(other)
            matched = sum(min(count, best[gram]) for gram, count in grams(row).items())
            any_token = any_token and (n > 1 or matched > 0)
            log_precision += math.log((matched or 0.1) / max(1, len(row) - n + 1)) / 3
        closest = min((len(other) for other in others), key=lambda length: (abs(length - len(row)), length))
        brevity = 1.0 if len(row) >= closest else math.exp(1 - closest / max(len(row), 1))
        scores.append(brevity * math.exp(log_precision) if any_token else 0.0)
    return sum(scores) / len(scores)


def test_random_groups_agree_with_the_definition():
    rng = np.random.default_rng(1)
    groups = [[rng.integers(0, 4, rng.integers(0, 9)).tolist() for _ in range(rng.integers(2, 6))] for _ in range(120)]
    found = measured(groups)
    assert found.self_bleu_P == pytest.approx([self_bleu(group) for group in groups])
    for group, distinct in zip(groups, found.distinct_P):
        grams = [tuple(row[k : k + 3]) for row in group for k in range(len(row) - 2)]
        assert (distinct == pytest.approx(len(set(grams)) / len(grams))) if grams else math.isnan(distinct)


def test_repetition_is_within_a_rollout_and_rollouts_do_not_run_into_each_other():
    found = measured([[[5, 5, 5, 5, 5], [1, 2, 3, 4]], [[1, 2], [3, 4]]])
    assert found.repetition_R[:2] == pytest.approx([2 / 3, 0.0]) and np.isnan(found.repetition_R[2:]).all()


def test_a_group_of_one_has_nothing_to_compare():
    assert np.isnan(measured([[[1, 2, 3]]]).self_bleu_P[0]) and math.isnan(mean_pairwise_distance([[1, 2]]))
    assert np.isnan(diversity(np.zeros(0, "i4"), np.zeros(0, "i8"), np.zeros(0, "i8"), 0).self_bleu_P).sum() == 0

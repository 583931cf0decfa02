import numpy as np
import pytest

from grpo_core.measures.conflicts import by_token, conflicts, gtpo_weights


def found_in(rows: list[list[int]], advantages: list[float], groups: list[int] | None = None):
    lengths = [len(row) for row in rows]
    ids = np.array([token for row in rows for token in row], "i4")
    found = conflicts(ids, np.array(lengths), np.array(groups or [0] * len(rows)), np.array(advantages))
    cut = np.cumsum(lengths)[:-1]
    return found, {name: [part.tolist() for part in np.split(getattr(found, name), cut)] for name in ("head", "tail", "mid", "shared", "net")}


def weights_of(rows, advantages):
    found, _ = found_in(rows, advantages)
    positive = np.repeat(np.array(advantages) > 0, [len(row) for row in rows])
    return [part.tolist() for part in np.split(gtpo_weights(found, positive), np.cumsum([len(row) for row in rows])[:-1])]


@pytest.mark.parametrize(
    ("rows", "advantages", "want"),
    [
        ([[1, 2, 3, 9, 7, 8], [1, 2, 4, 9, 5, 7, 8]], [1, -1], [[2, 2, 1, 1, 2, 2], [0, 0, 1, 1, 1, 0, 0]]),
        ([[1, 3, 9, 4], [2, 5, 9, 6]], [1, -1], [[1, 1, 1, 1], [1, 1, 1, 1]]),
        ([[1, 2, 3, 4], [1, 2, 5, 4], [1, 6, 7, 4]], [1, -1, 0], [[2, 2, 1, 2], [0, 0, 1, 0], [1, 1, 1, 1]]),
        ([[1, 2, 3], [1, 2, 3]], [1, -1], [[4, 4, 4], [0, 0, 0]]),
        ([[1, 2, 3], [1, 2, 3]], [1, 1], [[1, 1, 1], [1, 1, 1]]),
        ([[1, 2, 3, 4], [1, 9, 9, 5], [8, 2, 9, 5]], [1, -1, -1], [[2, 2, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]),
    ],
    ids="abcdef",
)
def test_gtpo_weights_by_the_authors_code(rows, advantages, want):
    """collapse_math.md §2.2: numbers produced by the released build_conflict_mask."""
    assert weights_of(rows, advantages) == want


def reference(rows: list[list[int]], advantages: list[float], boost: float = 2.0) -> list[list[float]]:
    """The definition, one token at a time."""
    weights = [[1.0] * len(row) for row in rows]
    for backwards in (False, True):
        turned = [row[::-1] if backwards else row for row in rows]
        up = {(t, v) for row, a in zip(turned, advantages) if a > 0 for t, v in enumerate(row)}
        down = {(t, v) for row, a in zip(turned, advantages) if a < 0 for t, v in enumerate(row)}
        for i, row in enumerate(turned):
            for t, v in enumerate(row):
                if advantages[i] == 0 or (t, v) not in up or (t, v) not in down:
                    break
                weights[i][len(row) - 1 - t if backwards else t] *= boost if advantages[i] > 0 else 0.0
    return weights


def test_random_groups_agree_with_the_definition():
    rng = np.random.default_rng(0)
    for _ in range(300):
        sizes = rng.integers(0, 7, rng.integers(1, 6))
        rows = [rng.integers(0, 3, n).tolist() for n in sizes]
        advantages = rng.choice([-1.0, 0.0, 0.5], len(rows)).tolist()
        assert weights_of(rows, advantages) == reference(rows, advantages)


def test_groups_do_not_meet():
    rows = [[1, 2], [1, 3], [1, 2], [1, 3]]
    found, by_row = found_in(rows, [1, 1, -1, -1], groups=[0, 0, 1, 1])
    assert not found.run.any() and not found.shared.any() and not found.net.any()
    _, by_row = found_in(rows, [1, -1, 1, 1], groups=[0, 0, 1, 1])
    assert by_row["head"] == [[True, False], [True, False], [False, False], [False, False]]


def test_the_middle_and_identical_beginnings():
    _, by_row = found_in([[1, 2, 9, 3], [1, 5, 9, 4], [1, 5, 9, 6]], [2.0, -1.0, -0.5])
    assert by_row["head"] == [[True, False, False, False]] * 3
    assert by_row["mid"] == [[False, False, True, False]] * 3  # 9 stands there in all, after different texts
    assert by_row["shared"] == [[True, False, False, False]] * 3
    assert by_row["net"] == [[0.5, 0.0, 0.5, 0.0]] * 3


def test_a_beginning_is_shared_with_at_least_one_rollout_of_the_other_sign():
    _, by_row = found_in([[1, 2, 3], [1, 2, 4], [1, 7, 3]], [1.0, -1.0, -1.0])
    assert by_row["shared"] == [[True, True, False], [True, True, False], [True, False, False]]
    assert by_row["net"][0] == [-1.0, 0.0, 0.0]


def test_nothing_at_all():
    found = conflicts(np.zeros(0, "i4"), np.zeros(0, "i8"), np.zeros(0, "i8"), np.zeros(0))
    assert len(found.net) == 0
    found, _ = found_in([[], [1], []], [1, -1, 0])
    assert not found.run.any()


def test_pushes_that_cancel_are_no_push():
    """Float32 advantages ±√7 and ∓1/√7·… of one right rollout among eight sum to 1e-7, not 0."""
    advantages = np.array([7**0.5] + [-(7**-0.5)] * 7, "f4").tolist()
    assert sum(advantages) != 0
    _, found = found_in([[1]] * 8, advantages)
    assert found["net"] == [[0.0]] * 8


def test_a_tail_that_meets_only_at_its_end_has_the_net_of_its_end():
    """8 is at position 1 and at position 2; counted from the end both are last."""
    _, found = found_in([[1, 8], [2, 3, 8], [4, 5, 6, 8]], [2, -1, -0.5])
    assert found["tail"] == [[False, True], [False, False, True], [False, False, False, True]]
    assert found["net"] == [[0, 0.5], [0, 0, 0.5], [0, 0, 0, 0.5]]


def test_totals_by_token():
    """+1 [1 2 3 4], −1 [1 9 3 4], −0.5 [1 9 3 4]: 1 heads all three, 3 4 is the tail of all, 9 is only pushed down."""
    rows, advantages = [[1, 2, 3, 4], [1, 9, 3, 4], [1, 9, 3, 4]], [1, -1, -0.5]
    found, _ = found_in(rows, advantages)
    totals = by_token(found, np.array(sum(rows, [])), np.repeat(advantages, 4))
    assert totals.token.tolist() == [1, 3, 4] and totals.count.tolist() == [3, 3, 3]
    assert totals.head.tolist() == [3, 0, 0] and totals.tail.tolist() == [0, 3, 3] and totals.mid.tolist() == [0, 0, 0]
    assert totals.shared.tolist() == [3, 0, 0]
    assert totals.up.tolist() == [1, 1, 1] and totals.down.tolist() == [2, 2, 2]
    assert totals.net.tolist() == [-0.5] * 3 and totals.weighted.tolist() == [2.0] * 3


def test_totals_without_conflicts_are_empty():
    found, _ = found_in([[1], [1]], [1, 1])
    assert by_token(found, np.array([1, 1]), np.ones(2)).token.tolist() == []

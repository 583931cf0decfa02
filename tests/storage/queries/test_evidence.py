"""Where to look, by hand: two groups of two rollouts with two tokens each."""

import math

import numpy as np
import pytest

from storage.queries.evidence import GROUP_FIGURES, ROLLOUT_FIGURES, lost_token, piece, pushed_rollouts_of_group, worst_groups
from storage.reader import Store
from tests.factories import make_step_tables

GROUPS = [
    dict(delta_correct=-0.5, conflict_net=0.25, correct=1, rewards=[3.0, 1.0], reward_mean=2.0, size=2, tokens=4),
    dict(delta_correct=None, conflict_net=-1.0, correct=1, rewards=[1.0, None], reward_mean=1.0, size=2, tokens=6),
]
ROLLOUTS = [
    dict(reward=3.0, length=2, finish="length", repetition=0.5, entropy=[1.0, 2.0], clipped=[0, 1], logp_sampling=[-1.0, 0.0], logp_gap=[0.0, 0.0],
         logp_delta=[-0.5, -2.0], correct=True, rescored=True, token_ids=[7, 8]),
    dict(reward=1.0, length=2, finish="stop", repetition=None, entropy=[0.0, 1.0], clipped=[0, 0], logp_sampling=[0.0, 0.0], logp_gap=[-1.0, 0.0],
         logp_delta=None, correct=False, rescored=False, token_ids=[7, 9]),
    dict(reward=1.0, length=2, finish="stop", repetition=None, entropy=[0.0, 0.0], clipped=[-1, -1], logp_sampling=[0.0, 0.0], logp_gap=[0.0, 0.0],
         logp_delta=[0.1, 0.2], correct=True, rescored=True, token_ids=[7, 8]),
    dict(reward=None, length=2, finish="stop", repetition=None, entropy=[0.0, 0.0], clipped=[0, 0], logp_sampling=[0.0, 0.0], logp_gap=[0.0, 0.0],
         logp_delta=[-9.0, -9.0], correct=False, rescored=True, token_ids=[7, 8]),
]  # fmt: skip
BY_HAND = {
    "delta_correct": [(0, -0.5)],  # of the other group no correct rollout was scored again
    "conflict_net": [(1, -1.0), (0, 0.25)],
    "correct_share": [(0, 0.5), (1, 1.0)],  # one of two, one of the only one scored
    "failed_share": [(0, 0.0), (1, 0.5)],
    "unearned": [(1, 0.0), (0, 1.5)],
    "length": [(0, 2.0), (1, 3.0)],
    "truncated": [(1, 0.0), (0, 0.5)],
    "repetition": [(0, 0.5)],
    "length_corr": [],  # every length is the same
    "entropy": [(1, 0.0), (0, 1.0)],
    "clipped": [(0, 0.25), (1, 0.5)],
    "moved": [(0, (math.exp(-0.5) - 0.5 + math.exp(-2) + 1) / 2), (1, (math.exp(0.1) - 1.1 + math.exp(0.2) - 1.2 + 2 * (math.exp(-9) + 8)) / 4)],
    "mismatch": [(1, 0.0), (0, (1 - math.exp(-1)) / 4)],
}  # fmt: skip


@pytest.fixture
def recorded(store: Store, writer) -> Store:
    tables = make_step_tables(3, groups=2, group_size=2)
    for name, rows in (("groups", GROUPS), ("rollouts", ROLLOUTS)):
        made = [row | own for row, own in zip(tables[name].to_pylist(), rows, strict=True)]
        for row in made:
            row.update({key: [0.0] * 2 for key in ("advantages", "weights") if key in row})
        tables |= {name: type(tables[name]).from_pylist(made, schema=tables[name].schema)}
    writer.append_step(tables)
    writer.write_vocabulary(["a", "b"])
    return store


@pytest.mark.parametrize("figure", [*GROUP_FIGURES, *ROLLOUT_FIGURES])
def test_every_figure_ranks_the_groups(recorded: Store, figure: str) -> None:
    found = worst_groups(recorded, "r1", 3, figure, lowest=True)
    assert found["group_index"].tolist() == [group for group, _ in BY_HAND[figure]]
    assert found["value"].tolist() == pytest.approx([value for _, value in BY_HAND[figure]], rel=1e-3, abs=1e-6)
    highest = worst_groups(recorded, "r1", 3, figure, lowest=False, count=1)
    assert highest["group_index"].tolist() == [group for group, _ in BY_HAND[figure][-1:]]


def test_the_token_that_lost_most_is_of_a_correct_rollout(recorded: Store) -> None:
    row = lost_token(recorded, "r1", 3).iloc[0]
    assert (row["group_index"], row["rollout_index"], row["token_id"]) == (0, 0, 8) and row["value"] == pytest.approx(-2, rel=1e-3)


def test_a_groups_rollouts_as_conflicts_read_them(recorded: Store) -> None:
    found = pushed_rollouts_of_group(recorded, "r1", 3, 0)
    assert found["length"].tolist() == [2, 2] and np.concatenate(found["token_ids"].tolist()).tolist() == [7, 8, 7, 9]


def test_tokens_are_named_by_their_text(recorded: Store) -> None:
    assert (piece(recorded, "r1", 1), piece(recorded, "r1", 50)) == ("b", "⟨50⟩")


def test_rows_that_are_gone_name_no_place(recorded: Store, run_dir) -> None:
    for path in (run_dir / "rollouts").glob("*.parquet"):
        path.unlink()
    assert worst_groups(recorded, "r1", 3, "entropy", lowest=True).empty and lost_token(recorded, "r1", 3).empty
    assert pushed_rollouts_of_group(recorded, "r1", 3, 0).empty
    assert len(worst_groups(recorded, "r1", 3, "length", lowest=True)) == 2
    assert worst_groups(recorded, "r1", 99, "length", lowest=True).empty

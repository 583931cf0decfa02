import numpy as np
import pytest

from storage.queries.groups import rollouts_of_group
from storage.queries.likelihood import worst_tokens
from storage.reader import Store
from tests.factories import make_step_tables


def changed(tables: dict, rollouts: list[dict]) -> dict:
    """The tables with other rollouts."""
    return tables | {"rollouts": type(tables["rollouts"]).from_pylist(rollouts, schema=tables["rollouts"].schema)}


def test_the_worst_tokens_of_correct_rollouts_by_hand(store: Store, writer) -> None:
    tables = make_step_tables(0, groups=2)
    rows = tables["rollouts"].to_pylist()
    for n, row in enumerate(rows):
        row.update(correct=n in (0, 1, 5), rescored=True, token_ids=[7, 8], logp_sampling=[-0.5, -1.0], logp_gap=[0.0, 0.25], logp_delta=[0.1, -0.2])
        row.update({name: [0.0, 0.0] for name in ("entropy", "advantages", "weights")}, length=2, clipped=[0, 0], logp_ref=None)
    rows[0]["logp_delta"] = [-2.0, -0.2]  # and rollout 1 of the group loses the same 0.2 at position 1
    rows[5]["logp_delta"] = [0.0, -0.75]
    rows[6]["logp_delta"] = [-9.0, -9.0]  # wrong, so it does not count
    writer.append_step(changed(tables, rows))
    found = worst_tokens(store, "r1", 0)
    places = found[["group_index", "rollout_index", "alike", "position", "token_id"]].to_numpy().tolist()
    assert places == [[0, 0, 1, 0, 7], [1, 1, 1, 1, 8], [0, 0, 2, 1, 8]]
    assert found["logp_delta"].tolist() == pytest.approx([-2.0, -0.75, -0.2], rel=1e-3)
    assert found["logp_before"].tolist() == pytest.approx([-0.5, -0.75, -0.75], rel=1e-3)
    assert len(worst_tokens(store, "r1", 0, 1)) == 1


def test_without_rescored_rollouts_there_is_nothing_to_rank(store: Store, writer) -> None:
    tables = make_step_tables(0)
    writer.append_step(changed(tables, [row | {"rescored": False, "logp_delta": None} for row in tables["rollouts"].to_pylist()]))
    assert worst_tokens(store, "r1", 0).empty


def test_it_agrees_with_the_rollouts(store: Store, record) -> None:
    record(0, 1, groups=2)
    own = [rollouts_of_group(store, "r1", 1, group) for group in range(2)]
    least = min((float(np.min(row.logp_delta)) for frame in own for row in frame.itertuples() if row.correct and row.rescored), default=None)
    found = worst_tokens(store, "r1", 1)
    assert (found["logp_delta"].iloc[0] == pytest.approx(least)) if least is not None and least < 0 else found.empty

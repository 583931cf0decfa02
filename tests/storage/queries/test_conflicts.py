from storage.queries.conflicts import conflict_positions, pushed_rollouts
from storage.queries.groups import rollouts_of_group
from storage.reader import Store
from tests.factories import make_step_tables


def test_conflicts_stand_beside_the_tokens_of_their_bin(store: Store, writer) -> None:
    tables = make_step_tables(0)
    row = tables["steps"].to_pylist()[0]
    row["position_conflicts"] = [5 + bin["bin"] for bin in row["position_rows"]]
    writer.append_step(tables | {"steps": type(tables["steps"]).from_pylist([row], schema=tables["steps"].schema)})
    found = conflict_positions(store, "r1", 0)
    assert found["conflicts"].tolist() == [5, 6, 7]
    assert found[["first", "last", "tokens"]].values.tolist() == [[bin["first"], bin["last"], bin["tokens"]] for bin in row["position_rows"]]


def test_a_step_recorded_before_conflicts_has_none(store: Store, writer) -> None:
    tables = make_step_tables(0)
    row = tables["steps"].to_pylist()[0] | {"position_conflicts": None}
    writer.append_step(tables | {"steps": type(tables["steps"]).from_pylist([row], schema=tables["steps"].schema)})
    assert conflict_positions(store, "r1", 0).empty


def test_pushed_rollouts_are_those_of_all_groups(store: Store, record) -> None:
    record(0, 1, groups=2)
    found = pushed_rollouts(store, "r1", 1)
    assert list(zip(found.group_index, found.rollout_index)) == [(g, r) for g in range(2) for r in range(4)]
    own = rollouts_of_group(store, "r1", 1, 1)
    assert found.advantage[4:].tolist() == own.advantage.tolist()
    assert all((mine == its).all() for mine, its in zip(found.token_ids[4:], own.token_ids))

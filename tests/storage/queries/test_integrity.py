from storage.queries import integrity
from storage.queries.integrity import scored_rollouts
from storage.reader import Store
from storage.segments import RunWriter
from tests.factories import make_step_tables


def test_rollouts_of_kept_groups_in_the_newest_steps(run_dir, tmp_path, monkeypatch):
    tables = [make_step_tables(step) for step in range(5)]
    with RunWriter.open(run_dir) as writer:
        for step in tables:
            writer.append_step(step)
    store = Store(tmp_path)
    kept = [(step, g["group_index"]) for step, t in enumerate(tables) for g in t["groups"].to_pylist() if g["kept"]]
    assert kept, "the factory keeps some groups"
    found = scored_rollouts(store, "r1")
    assert list(dict.fromkeys(zip(found["step"], found["group_index"]))) == kept and len(found) == 4 * len(kept)
    assert (found["tokens"] == found["traced"]).all() and set(scored_rollouts(store, "r1", steps=2)["step"]) <= {3, 4}
    monkeypatch.setattr(integrity, "ROLLOUTS_CHECKED", 8)  # one step has eight
    assert set(scored_rollouts(store, "r1")["step"]) <= {4}


def test_a_run_without_steps_has_none(run_dir, tmp_path):
    with RunWriter.open(run_dir):
        assert scored_rollouts(Store(tmp_path), "r1").empty

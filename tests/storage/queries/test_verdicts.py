import math

from storage.queries.groups import rollouts_of_group, verdicts_of_step
from storage.reader import Store


def test_verdicts_are_those_of_the_rollouts_in_order(store: Store, record) -> None:
    record(0, 2, groups=3, group_size=4)
    verdicts = verdicts_of_step(store, "r1", 1)
    assert list(zip(verdicts.group_index, verdicts.rollout_index)) == [(g, r) for g in range(3) for r in range(4)]
    for group in range(3):
        rollouts = rollouts_of_group(store, "r1", 1, group)
        own = verdicts[verdicts.group_index == group]
        assert own.correct.tolist() == rollouts.correct.tolist()
        assert own.correct.iloc[-1] is None and math.isnan(own.reward.iloc[-1])  # the factory's last rollout failed scoring

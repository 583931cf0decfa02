"""Every random stream of a run, numbered in one list, so that no two are the same; numpy only.

A stream begins anew from (run seed, step, purpose), so nothing random is carried between steps; only the prompts' goes on from step to
step and is in every checkpoint. The numbers never change: a resumed run draws what an uninterrupted one would have.
"""

from __future__ import annotations

import numpy as np

SAMPLED = range(2**20)
"""Of a step, by sampling round: the rollouts of that round, each of which needs a stream of its own."""
SHUFFLED = 2**20
"""Of a step: the order of its groups over the minibatches of every epoch."""
RESCORED = 2**21
"""Of a step: which groups are scored again after its updates, apart from their order in them."""
TRIED = 2**22
"""Of a step: the rollouts by which a sampler scores its pool of prompts, which are not those that train."""
REPLAYED = 2**23
"""Of a step: which groups the replay buffer gives back."""
HELPED = 2**24
"""Of a step, by group: which stored success helps a hopeless group; by group, as how many need help may change with anything else."""
HINTED = 2**25
"""Of a step: the rollouts behind hints."""
PREFERRED = 2**26
"""Of a step, by update: which groups of a preference corpus the update reads."""
LEFT_OUT = 2**23
"""Of a step: which rollouts are left out of their group. Shares its number with REPLAYED and not its stream: `left_out` begins from the key itself."""

PROMPTS = 1
"""Of a run: the prompts it draws."""
POOL = 2
"""Of a run: which of a task's prompts are in a sampler's pool, whatever has been drawn."""


def seed_of(*key: int) -> int:
    """A seed of its own, below 2^63, for every (run seed, step, purpose), or those and a place in the step."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def of_step(*key: int) -> np.random.Generator:
    """The stream of (run seed, step, purpose), or of those and a place in the step."""
    return np.random.default_rng(seed_of(*key))


def left_out(seed: int, step: int) -> np.random.Generator:
    """The stream LEFT_OUT of a step."""
    return np.random.default_rng((seed, step, LEFT_OUT))


def of_run(seed: int, purpose: int) -> np.random.Generator:
    """The stream PROMPTS or POOL of a run."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose,)))

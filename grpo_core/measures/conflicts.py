"""Conflict tokens: the same token pushed up by one rollout of a group and down by another (GTPO, arXiv:2508.03772).

A raw conflict is a token that stands at the same place of a rollout with A > 0 and of one with A < 0 of the same group; the
text before it need not match. As published (and as in the authors' build_conflict_mask) only the unbroken runs of raw
conflicts from the first token on, and from the last token back, count. Besides, two kinds the method leaves alone: raw
conflicts in the middle, and tokens after an identical beginning, the only ones at which two gradients meet in the very same
conditional distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray

RESIDUE = 1e-5
"""A net advantage below this share of the advantages it is summed from is rounding, not a push."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflicts:
    """Per token (N,): `head` and `tail` are the published runs, `mid` raw conflicts outside them, `shared` those after an
    identical beginning (bool each). `net` is the sum of advantages over the group's rollouts with this token at this
    position, counted from the end where only the tail run meets (float64): below 0, the group as a whole pushes it down;
    exactly 0 where the pushes cancel up to rounding, and where nothing is shared or pushed.
    """

    head: Array
    tail: Array
    mid: Array
    shared: Array
    net: Array

    @property
    def run(self) -> Array:
        """Tokens in either published run (N,)."""
        return self.head | self.tail


def conflicts(ids_N: Array, length_R: Array, group_R: Array, advantage_R: Array) -> Conflicts:
    """Every kind of conflict among the rollouts of each group. Rollouts with advantage 0 take no part."""
    length_R = np.asarray(length_R, "i8")
    start_R = np.cumsum(length_R) - length_R
    rollout_N = np.repeat(np.arange(len(length_R)), length_R)
    out = {name: np.zeros(len(rollout_N), "?") for name in ("head", "tail", "mid", "shared")} | {"net": np.zeros(len(rollout_N))}
    among = np.flatnonzero((_divided(group_R, advantage_R) & (advantage_R != 0))[rollout_N])
    if len(among):
        rollout, ids = rollout_N[among], np.asarray(ids_N)[among].astype("i8")
        position = among - start_R[rollout]
        from_end = length_R[rollout] - 1 - position
        group, advantage = np.asarray(group_R)[rollout], np.asarray(advantage_R, "f8")[rollout]
        forward, net = _pushed_both_ways(_key(group, position, ids), advantage)
        backward, net_from_end = _pushed_both_ways(_key(group, from_end, ids), advantage)
        first = np.flatnonzero(np.diff(rollout, prepend=-1))
        head = _unbroken(forward, first)
        tail = _unbroken(backward[::-1], np.sort(len(rollout) - np.append(first[1:], len(rollout))))[::-1]
        shared, _ = _pushed_both_ways(_beginnings(group, position, ids, first), advantage)
        found = {"head": head, "tail": tail, "mid": forward & ~head & ~tail, "shared": shared, "net": np.where(forward, net, np.where(tail, net_from_end, 0.0))}
        for name, values in found.items():
            out[name][among] = values
    return Conflicts(**out)


def gtpo_weights(found: Conflicts, positive_N: Array, *, boost: float = 2.0) -> Array:
    """The λ of GTPO per token (N,): `boost` in each run of a rollout with A > 0 (so its square in both), 0 in a run of one with A < 0, else 1."""
    factor = np.where(positive_N, boost, 0.0)
    return np.where(found.head, factor, 1.0) * np.where(found.tail, factor, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTotals:
    """Per token id (K,) that is in conflict anywhere, the most frequent first, over its conflict tokens (head, tail and mid).

    `count` of them, of which `head`, `tail` (a token may be in both), `mid` and `shared`; `up` and `down` those of rollouts with
    A > 0 and A < 0; `net` the sum of their advantages, and `weighted` the same sum under GTPO's weights.
    """

    token: Array
    count: Array
    head: Array
    tail: Array
    mid: Array
    shared: Array
    up: Array
    down: Array
    net: Array
    weighted: Array


def by_token(found: Conflicts, ids_N: Array, advantage_N: Array) -> TokenTotals:
    """Which tokens are in conflict, how often, and which way they are pushed, over all groups given."""
    among = np.flatnonzero(found.run | found.mid)
    token, same, count = np.unique(np.asarray(ids_N)[among], return_inverse=True, return_counts=True)
    advantage = np.asarray(advantage_N, "f8")[among]

    def total(weights: Array) -> Array:
        return np.bincount(same, weights=weights, minlength=len(token))

    kinds = {name: total(getattr(found, name)[among]).astype(int) for name in ("head", "tail", "mid", "shared")}
    up, down = total(np.maximum(advantage, 0)), total(np.minimum(advantage, 0))
    sums = {
        "up": total(advantage > 0).astype(int),
        "down": total(advantage < 0).astype(int),
        "net": _without_residue(up, down),
        "weighted": total(gtpo_weights(found, np.asarray(advantage_N) > 0)[among] * advantage),
    }
    order = np.lexsort((token, -count))
    return TokenTotals(**{name: values[order] for name, values in {"token": token, "count": count, **kinds, **sums}.items()})


def _divided(group_R: Array, advantage_R: Array) -> Array:
    """Which rollouts are in a group with advantages of both signs (R,)."""
    n = int(np.max(group_R, initial=-1)) + 1
    up, down = (np.bincount(group_R, weights=side, minlength=n) > 0 for side in (advantage_R > 0, advantage_R < 0))
    return (up & down)[group_R]


def _key(group: Array, place: Array, ids: Array) -> Array:
    """One integer per (group, place, token)."""
    return (group * (place.max() + 1) + place) * (ids.max() + 1) + ids


def _pushed_both_ways(key: Array, advantage: Array) -> tuple[Array, Array]:
    """Per token: whether its key occurs with advantages of both signs, and the sum of advantages over its key."""
    _, same = np.unique(key, return_inverse=True)
    up, down = np.bincount(same, weights=np.maximum(advantage, 0)), np.bincount(same, weights=np.minimum(advantage, 0))
    return ((up > 0) & (down < 0))[same], _without_residue(up, down)[same]


def _without_residue(up: Array, down: Array) -> Array:
    """up + down, and 0 where the two cancel: advantages are float32, so a sum that should be 0 leaves a residue of either sign."""
    net = up + down
    return np.where(np.abs(net) > RESIDUE * (up - down), net, 0.0)


def _unbroken(raw: Array, first: Array) -> Array:
    """The part of each rollout's conflicts that starts with its first token and has no gap; `first` are the rollouts' starts."""
    gaps = np.cumsum(~raw)
    before = np.repeat(gaps[first] - ~raw[first], np.diff(first, append=len(raw)))
    return gaps == before


def _beginnings(group: Array, position: Array, ids: Array, first: Array) -> Array:
    """A 64-bit hash of each rollout's tokens up to and with this one, equal for equal beginnings in one group.

    A sum of mixed (position, token) pairs: sums of different pairs meet with probability 2^-64 a pair.
    """
    mixed = _mix(_mix(ids.astype("u8")) + position.astype("u8"))
    running = np.cumsum(mixed, dtype="u8")
    before = np.repeat(running[first] - mixed[first], np.diff(first, append=len(ids)))
    return _mix(running - before + _mix(group.astype("u8")))


def _mix(x: Array) -> Array:
    """SplitMix64's finaliser: every bit of the result depends on every bit of x."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

"""A run as the diagnosis sees it: the figures of every step as arrays, and what its config makes possible or impossible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from grpo_core.config import RunConfig, make_config
from grpo_core.errors import ConfigError
from grpo_core.measures.variance import half_of, mean_pass_at_k

Array = np.ndarray

PARTS, STDS = "reward_parts.", "reward_part_stds."


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a run besides its figures; None where it is not. `rewards` are the config's entries, the first of which decides what is correct."""

    method: str | None = None
    updates: int | None = None
    group_size: int | None = None
    max_new_tokens: int | None = None
    lr: float | None = None
    epochs: int | None = None
    planned_steps: int | None = None
    rewards: tuple[str, ...] = ()
    clips: bool | None = None
    penalised: bool | None = None
    reference: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Figures of S recorded steps in order: `columns` of storage's table `steps`, and pass_at_1 and pass_at_half of the steps' groups,
    as float64 (S,), NaN where not measured."""

    steps: Array
    columns: Mapping[str, Array]
    parts: Mapping[str, Array] = field(default_factory=dict)
    part_stds: Mapping[str, Array] = field(default_factory=dict)
    facts: Facts = Facts()

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, name: str) -> Array:
        """The column, or NaN throughout where the run has none."""
        found = self.columns.get(name)
        return np.full(len(self.steps), np.nan) if found is None else found

    def until(self, step: int) -> History:
        """What was known when this step had been recorded."""
        n = int(np.searchsorted(self.steps, step, "right"))
        cut = lambda named: {name: values[:n] for name, values in named.items()}  # noqa: E731
        return History(steps=self.steps[:n], columns=cut(self.columns), parts=cut(self.parts), part_stds=cut(self.part_stds), facts=self.facts)


def history_of(table: Mapping[str, Sequence[object]], facts: Facts = Facts(), outcomes: Mapping[str, Sequence[object]] | None = None) -> History:
    """From columns by name, a DataFrame of storage.queries.steps.step_series or a mapping of lists; `step` must be among them.

    Columns that are no numbers are left out. `outcomes` has the columns of storage.queries.variance.outcome_counts;
    without it nothing is known of pass@k.
    """
    steps = np.asarray(table["step"], "i8")
    columns = {name: values for name in table if name != "step" and (values := _numbers(table[name])) is not None}
    parts, stds = ({name.removeprefix(prefix): columns.pop(name) for name in list(columns) if name.startswith(prefix)} for prefix in (PARTS, STDS))
    return History(steps=steps, columns=columns | pass_rates(steps, outcomes, facts.group_size), parts=parts, part_stds=stds, facts=facts)


def facts_of(config: RunConfig) -> Facts:
    """What a config says; METHODS decide whether anything can be clipped, or penalised by LLDS with a weight above 0."""
    method = config.method_row
    return Facts(
        method=config.method,
        updates=config.updates_per_rollout,
        group_size=config.group_size,
        max_new_tokens=config.max_new_tokens,
        lr=config.lr,
        epochs=config.epochs,
        planned_steps=config.steps,
        rewards=config.rewards,
        clips=method.clip is not None and (config.updates_per_rollout > 1 or config.replays),
        penalised=any(p.knob == "llds_coef" and config.strength(p.knob, p.coef) > 0 for p in method.penalties),
        reference=config.strength("kl_coef", 0.0) > 0,
    )


def facts_of_settings(settings: Mapping[str, object]) -> Facts:
    """The same from the settings in a run folder, nothing where they are not those of a native run."""
    try:
        return facts_of(make_config(dict(settings)))
    except ConfigError:
        return Facts()


def pass_rates(steps: Array, outcomes: Mapping[str, Sequence[object]] | None, group_size: int | None) -> dict[str, Array]:
    """pass@1 and pass@k with k = half_of(group_size) over the groups of each of `steps` (S,), NaN where no group has k scored rollouts.

    Where the group size is not known, it is the size most scored groups have.
    """
    if outcomes is None or not len(outcomes["step"]):
        return {}
    step, correct, scored, groups = (np.asarray(outcomes[name], "f8") for name in ("step", "correct", "scored", "groups"))
    size = group_size or int(np.bincount(scored.astype("i8"), groups).argmax())
    found = {}
    for name, k in (("pass_at_1", 1), ("pass_at_half", half_of(size))):
        measured, chance = mean_pass_at_k(step, correct, scored, groups, k)
        found[name] = np.full(len(steps), np.nan)
        found[name][np.isin(steps, measured)] = chance[np.isin(measured, steps)]
    return found


def _numbers(values: Sequence[object]) -> Array | None:
    try:
        return np.asarray(values, "f8")  # None becomes NaN
    except (TypeError, ValueError):
        return None

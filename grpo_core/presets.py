"""PRESETS: named starting configs as data, for the demo, the launch form and `--preset`.

Settings not named here keep their defaults; reference figures are of 16 x 8 rollouts per step on one CPU core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from grpo_core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A starting point: `settings` are RunConfig options, `means` one sentence on what to expect."""

    name: str
    means: str
    settings: Mapping[str, object]


_OVERDRIVEN = {"steps": 150, "epochs": 4, "lr": 1e-3}

PRESETS: dict[str, Preset] = {
    p.name: p
    for p in (
        Preset(
            name="healthy",
            means="GRPO learns two-digit addition: the reward rises and both likelihoods stay where they should.",
            settings=dict(name="healthy", steps=150, epochs=2, lr=2e-4),
        ),
        Preset(
            name="collapse",
            means="The same with four passes over each batch at five times the learning rate: the likelihood of correct rollouts falls, then the reward.",
            settings=dict(name="collapse", **_OVERDRIVEN),
        ),
        Preset(
            name="llds",
            means="The collapsing settings with the LLDS penalty, which keeps most of the likelihood that the run would lose.",
            settings=dict(name="llds", method="grpo_llds", llds_coef=3.0, **_OVERDRIVEN),
        ),
    )
}


def preset(name: str) -> Preset:
    """The preset of that name; raises ConfigError with the known names."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]

"""Every number at which a sign changes level, beside where it comes from. "ours" were set on the tuning seeds of `bench diagnosis`
(docs/diagnosis.md) and are reported on others; published ones name their source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray

OURS = "ours: bench diagnosis, tuning seeds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """The value from which each level holds, in `unit`; None where a sign alone never reaches it. `falling`: lower is worse."""

    watch: float
    unhealthy: float | None
    collapsed: float | None
    unit: str
    source: str
    falling: bool = False

    def levels(self, values: Array) -> Array:
        """The level of each value (int8), −1 for NaN."""
        sign = -1.0 if self.falling else 1.0
        out = np.where(np.isnan(values), -1, 0)
        for level, bound in ((1, self.watch), (2, self.unhealthy), (3, self.collapsed)):
            if bound is not None:
                out = np.where(sign * values >= sign * bound, level, out)
        return out.astype("i1")


THRESHOLDS: dict[str, Threshold] = {
    "displacement": Threshold(watch=-0.05, unhealthy=-0.2, collapsed=None, unit="share of log-prob", falling=True, source=OURS),
    "probe": Threshold(watch=-0.03, unhealthy=-0.1, collapsed=-1.0, unit="nats/token", falling=True, source=OURS),
    "probe_times": Threshold(watch=2.0, unhealthy=3.0, collapsed=None, unit="× best", source=OURS),
    "entropy_rise": Threshold(watch=1.5, unhealthy=2.5, collapsed=None, unit="× start", source="ours; grpo-doctor's LLDSCallback warns at 1.5"),
    "policy_collapse": Threshold(
        watch=0.5 * float(np.log(2)), unhealthy=None, collapsed=float(np.log(2)), unit="nats/token", source="arXiv:2508.03772: mean entropy above ln 2"
    ),
    "entropy_fall": Threshold(watch=0.4, unhealthy=0.25, collapsed=0.05, unit="× start", falling=True, source=OURS),
    "hardening": Threshold(watch=1.5, unhealthy=None, collapsed=None, unit="share of log-prob", source=OURS),
    "gradient_spike": Threshold(watch=4.0, unhealthy=10.0, collapsed=None, unit="× usual", source="10× recent mean: practitioners' rule; watch ours"),
    "clipping": Threshold(watch=0.1, unhealthy=0.3, collapsed=None, unit="share of tokens", source=OURS),
    "step_kl": Threshold(watch=0.015, unhealthy=0.15, collapsed=None, unit="nats/token", source="1.5 × Spinning Up's target_kl of 0.01; 0.15 ours"),
    "ess": Threshold(watch=0.8, unhealthy=0.3, collapsed=None, unit="share", falling=True, source="verl rollout_corr: below 0.3; watch ours"),
    "mismatch": Threshold(watch=0.005, unhealthy=0.01, collapsed=None, unit="probability", source="verl FAQ: below 0.005 normal, above 0.01 an engine problem"),
    "reference_kl": Threshold(watch=0.5, unhealthy=2.0, collapsed=None, unit="nats/token", source=OURS),
    "length": Threshold(watch=1.3, unhealthy=1.7, collapsed=None, unit="× start", source="+30 %: practitioners' rule; 1.7 ours"),
    "truncation": Threshold(watch=0.1, unhealthy=0.5, collapsed=0.95, unit="share", source="0.1 and 0.5: practitioners' rules"),
    "repetition": Threshold(watch=0.15, unhealthy=0.35, collapsed=None, unit="share", source=OURS),
    "starvation": Threshold(watch=0.5, unhealthy=0.8, collapsed=0.97, unit="share of groups", source="0.5, 0.8: practitioners' rules; 0.97 ours"),
    "mastery": Threshold(watch=0.9, unhealthy=None, collapsed=None, unit="share of groups", source=OURS),
    "reward_fall": Threshold(watch=0.15, unhealthy=0.35, collapsed=0.7, unit="share of the best lost", source=OURS),
    "held_out_fall": Threshold(watch=0.15, unhealthy=0.35, collapsed=0.7, unit="share of the best lost", source=OURS),
    "hacking": Threshold(watch=0.15, unhealthy=0.3, collapsed=None, unit="share of the best lost", source=OURS),
    "length_bought": Threshold(watch=0.4, unhealthy=0.7, collapsed=None, unit="correlation", source=OURS),
    "paid_aside": Threshold(watch=2.0, unhealthy=None, collapsed=None, unit="standard errors", source=OURS),
    "inverted": Threshold(watch=0.01, unhealthy=None, collapsed=None, unit="share of pairs", source=OURS),
    "paid_by_length": Threshold(watch=0.95, unhealthy=None, collapsed=None, unit="correlation", source=OURS),
    "failures": Threshold(watch=0.02, unhealthy=0.3, collapsed=None, unit="share of rollouts", source=OURS),
    "conflicts": Threshold(watch=0.5, unhealthy=None, collapsed=None, unit="share of conflict tokens", source=OURS),
    "sharpening": Threshold(
        watch=-0.05, unhealthy=-0.15, collapsed=None, unit="share of prompts", falling=True,
        source="ours: three times the largest fall of a healthy run of tuning seed 0 (0.016); a run that crosses it is told below",
    ),
}

import dataclasses

import numpy as np
import pytest

from grpo_core.diagnosis.levels import Level, present_stretch
from grpo_core.diagnosis.panel import SIGNALS, examine
from grpo_core.diagnosis.signals.likelihood import spiralling
from grpo_core.diagnosis.thresholds import THRESHOLDS
from tests.diagnosis.made import FACTS, made

NAN = float("nan")


def signals(history):
    return {s.name: s for s in examine(history)}


def test_a_healthy_run_is_healthy_in_every_sign_it_has():
    found = signals(made())
    assert {name: s.level for name, s in found.items() if s.level not in (Level.HEALTHY, Level.NOT_AVAILABLE)} == {}
    unknown = {name for name, s in found.items() if s.level == Level.NOT_AVAILABLE}
    assert unknown == {"mismatch", "reference_kl", "hacking", "inverted", "paid_aside", "paid_by_length"}
    assert all(s.since_step is None and not s.evidence for s in found.values())


@pytest.mark.parametrize(
    ("name", "bent", "level"),
    [
        ("displacement", dict(delta_correct=lambda s: -0.01 if s >= 40 else 0.002), Level.UNHEALTHY),
        ("displacement", dict(delta_correct=lambda s: -0.001 if s >= 40 else 0.002), Level.WATCH),
        ("probe", dict(probe_logp=lambda s: NAN if s % 5 else -0.05 - max(0, s - 40) * 0.01), Level.UNHEALTHY),
        ("probe", dict(probe_logp=lambda s: NAN if s % 5 else -0.05 - max(0, s - 40) * 0.2), Level.COLLAPSED),
        ("probe", dict(probe_logp=lambda s: NAN if s % 5 else (-0.09, -0.05)[s > 0] + 0.038 * (5 < s <= 40)), Level.WATCH),  # 4 × its best, above its start
        ("probe", dict(probe_logp=lambda s: NAN if s % 5 else -0.05 + 0.038 * (5 < s <= 40) - 0.002 * (s > 40)), Level.UNHEALTHY),  # and below its start
        ("entropy_rise", dict(entropy=lambda s: 0.1 + max(0, s - 40) * 0.005), Level.WATCH),
        ("entropy_rise", dict(entropy=lambda s: 0.1 + max(0, s - 40) * 0.06), Level.COLLAPSED),
        ("entropy_fall", dict(entropy=lambda s: 0.1 if s < 30 else 0.02, correct_rate=0.5), Level.UNHEALTHY),
        ("entropy_fall", dict(entropy=lambda s: 0.1 if s < 30 else 0.004, correct_rate=0.5), Level.COLLAPSED),
        ("entropy_fall", dict(entropy=lambda s: 0.1 if s < 30 else 0.02, correct_rate=lambda s: 0.2 if s < 30 else 0.8), Level.HEALTHY),  # as sure as right
        ("entropy_fall", dict(entropy=lambda s: 0.1 if s < 30 else 0.004, correct_rate=NAN), Level.WATCH),  # right about what, nobody knows
        ("hardening", dict(delta_correct=0.1, entropy=lambda s: 0.1 - s / 1000), Level.WATCH),
        ("hardening", dict(delta_correct=0.1, entropy=lambda s: 0.1 + s / 1500), Level.WATCH),  # not well above its start yet
        ("hardening", dict(delta_correct=0.1, entropy=lambda s: 0.1 + s / 500), Level.HEALTHY),
        ("hardening", dict(delta_correct=0.01, entropy=lambda s: 0.1 - s / 1000), Level.HEALTHY),
        ("probe", dict(probe_logp=lambda s: NAN if s % 5 else -0.5 - max(0, s - 40) * 0.015), Level.WATCH),  # 0.2 nats of 0.5: drift
        ("paid_aside", dict(reward_mean=lambda s: 0.6 + s / 50, correct_rate=0.5), Level.WATCH),
        ("paid_aside", dict(reward_mean=lambda s: 0.9 + s / 50, correct_rate=lambda s: 0.4 + s / 120), Level.HEALTHY),  # both rise
        ("paid_aside", dict(reward_mean=lambda s: 0.9 - s / 100, correct_rate=lambda s: 0.8 - s / 75), Level.HEALTHY),  # nothing is earned instead
        ("inverted", dict(reward_mean=lambda s: 0.6 + s / 50, inverted_pairs=lambda s: 0.04 if s > 40 else 0.0), Level.WATCH),
        ("inverted", dict(reward_mean=lambda s: 0.6 + s / 50, inverted_pairs=lambda s: 0.04 if s < 40 else 0.0), Level.HEALTHY),
        ("paid_by_length", dict(reward_mean=lambda s: 0.6 + s / 50, correct_rate=0.5, paid_length_corr=0.99), Level.WATCH),
        ("paid_by_length", dict(reward_mean=lambda s: 0.6 + s / 50, correct_rate=0.5, paid_length_corr=0.8), Level.HEALTHY),
        ("paid_by_length", dict(reward_mean=lambda s: 0.7, correct_rate=0.5, paid_length_corr=0.99), Level.HEALTHY),  # it does not outweigh being correct
        ("paid_by_length", dict(reward_mean=lambda s: 0.7, correct_rate=0.5, paid_length_corr=0.99, inverted_pairs=0.05), Level.WATCH),
        ("gradient_spike", dict(grad_norm_max=lambda s: 30.0 if s == 58 else 0.5), Level.UNHEALTHY),
        ("gradient_spike", dict(grad_norm_max=lambda s: float("inf") if s == 58 else 0.5), Level.UNHEALTHY),
        ("step_kl", dict(kl_step=0.3), Level.UNHEALTHY),
        ("ess", dict(ess=0.2), Level.UNHEALTHY),
        ("clipping", dict(clip_low=0.2, clip_high=0.2), Level.UNHEALTHY),
        ("mismatch", dict(sampler_prob_diff=0.02), Level.UNHEALTHY),
        ("mismatch", dict(sampler_prob_diff=0.001), Level.HEALTHY),
        ("reference_kl", dict(kl_ref=3.0), Level.UNHEALTHY),
        ("length", dict(length_mean=lambda s: 18 + s, correct_rate=0.5), Level.UNHEALTHY),
        ("length", dict(length_mean=lambda s: 18 + s), Level.HEALTHY),  # longer, and better
        ("truncation", dict(truncated_rate=0.6), Level.UNHEALTHY),
        ("repetition", dict(repetition=lambda s: 0.6 if s > 30 else 0.01), Level.UNHEALTHY),
        ("starvation", dict(groups_all_fail=16), Level.COLLAPSED),
        ("mastery", dict(groups_all_pass=16), Level.WATCH),
        ("conflicts", dict(conflict_pushed_down=800), Level.WATCH),
        ("reward_fall", dict(correct_rate=lambda s: 0.8 if s < 40 else 0.1), Level.COLLAPSED),
        ("held_out_fall", dict(eval_correct=lambda s: NAN if s % 10 else (0.8 if s < 40 else 0.4)), Level.UNHEALTHY),
        ("hacking", dict(reward_mean=lambda s: 0.5 + s / 20, eval_correct=lambda s: NAN if s % 10 else max(0.0, 0.8 - s / 80)), Level.UNHEALTHY),
        ("length_bought", dict(reward_length_corr=0.9), Level.UNHEALTHY),
        ("failures", dict(rollouts_failed=64), Level.UNHEALTHY),
        ("sharpening", dict(pass_at_half=lambda s: 0.9 - 0.004 * s), Level.UNHEALTHY),
        ("sharpening", dict(pass_at_half=lambda s: 0.9 - 0.002 * s), Level.WATCH),
        ("sharpening", dict(pass_at_half=lambda s: 0.9 - 0.004 * s, pass_at_1=lambda s: 0.6 - 0.004 * s), Level.HEALTHY),  # worse, not sharper
        ("sharpening", dict(pass_at_half=lambda s: 0.6 + (-1) ** s * 0.4 - 0.002 * s), Level.HEALTHY),  # a few coins a step
    ],
)
def test_each_sign_sees_its_own(name, bent, level):
    found = signals(made(**bent))[name]
    assert found.level == level, found
    assert found.sentence and (level == Level.HEALTHY or (found.since_step is not None and found.evidence))


def test_since_says_where_the_present_trouble_began():
    found = signals(made(delta_correct=lambda s: -0.02 if s >= 40 else 0.002))["displacement"]
    assert 40 <= found.since_step <= 43
    again = signals(made(delta_correct=lambda s: -0.02 if 10 <= s < 20 or s >= 40 else 0.01))["displacement"]
    assert again.since_step >= 40
    steps = np.arange(10)
    assert present_stretch(steps, np.array([0, 1, 0, 0, 1, 1, 0, 2, 2, 2])) == 1  # two quiet steps do not end a stretch
    assert present_stretch(steps, np.array([1, 1, 0, 0, 0, 0, 0, 2, 2, 2])) == 7
    assert present_stretch(steps, np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 0])) is None


def test_levels_never_look_ahead():
    whole = made(n=60, delta_correct=lambda s: -0.02 if s >= 30 else 0.002, entropy=lambda s: 0.1 + max(0, s - 35) * 0.05, ess=lambda s: 0.99 - s / 80)
    for signal in examine(whole):
        for step in (5, 20, 33, 47):
            then = next(s for s in examine(whole.until(step)) if s.name == signal.name)
            assert then.levels.tolist() == signal.levels[: step + 1].tolist(), signal.name


def test_nothing_measured_is_never_healthy():
    empty = dataclasses.replace(made(), columns={})
    assert {s.level for s in examine(empty)} == {Level.NOT_AVAILABLE} and all(s.sentence for s in examine(empty))
    young = made(n=1)
    assert signals(young)["entropy_rise"].level == signals(young)["displacement"].level == Level.NOT_AVAILABLE
    nobody = dataclasses.replace(made(n=1), steps=np.zeros(0, "i8"), columns={})
    assert {s.level for s in examine(nobody)} == {Level.NOT_AVAILABLE}


def test_one_update_makes_ratios_void():
    once = dataclasses.replace(FACTS, updates=1, epochs=1, clips=False)
    found = signals(made(facts=once, ess=NAN, clip_low=NAN, clip_high=NAN))
    assert found["clipping"].level == found["ess"].level == Level.NOT_AVAILABLE
    assert "one update per rollout batch" in found["clipping"].sentence


def test_falling_entropy_alone_is_no_alarm():
    solved = made(entropy=lambda s: 0.1 * np.exp(-s / 8), correct_rate=lambda s: min(0.98, 0.4 + s / 40))
    assert signals(solved)["entropy_fall"].level == Level.HEALTHY


def test_the_death_spiral_counts_negative_and_falling_changes():
    assert spiralling(np.array([0.1, -0.1, NAN, -0.2, -0.3, -0.25, 0.1])).tolist() == [0, 1, 1, 2, 3, 1, 0]


def test_every_signal_has_a_threshold_of_its_own_with_a_source():
    names = [s.name for s in examine(made())]
    assert len(set(names)) == len(SIGNALS) and set(names) == set(THRESHOLDS) - {"policy_collapse", "probe_times"}
    assert all(t.source and t.unit for t in THRESHOLDS.values())
    for t in THRESHOLDS.values():
        bounds = [b for b in (t.watch, t.unhealthy, t.collapsed) if b is not None]
        assert bounds == sorted(bounds, reverse=t.falling)

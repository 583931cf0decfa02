import numpy as np
import pytest

from grpo_core.diagnosis.phases import displacement_phases
from tests.diagnosis.made import made, noise


def curve(n, *bends, slopes, scale=0.005):
    edges = [0, *bends, n]
    steps = np.arange(n)
    return sum(slope * np.clip(steps - a, 0, b - a) for a, b, slope in zip(edges, edges[1:], slopes)) - 0.2 + noise(5, n, scale)


def test_three_phases_are_placed_with_their_confidence():
    probe = curve(150, 50, 110, slopes=(0.0, -0.004, -0.04))
    phases = displacement_phases(made(n=150, probe_logp=probe, reward_mean=0.5)).phases
    assert [p.number for p in phases] == [1, 2, 3]
    assert phases[1].first == pytest.approx(50, abs=8) and phases[2].first == pytest.approx(110, abs=3)
    assert phases[1].from_low <= 50 <= phases[1].from_high and phases[2].from_low <= 110 <= phases[2].from_high
    assert phases[1].slope == pytest.approx(-0.004, abs=0.001) and phases[2].slope == pytest.approx(-0.04, abs=0.004)
    assert [p.name for p in phases] == ["early stagnation", "steady decay", "accelerated collapse"]


def test_a_phase_of_several_segments_has_their_mean_slope() -> None:
    found = displacement_phases(made(n=120, probe_logp=curve(120, 40, 80, slopes=(0.0, -0.03, 0.01)))).phases
    assert [p.number for p in found] == [1, 2]
    assert found[1].slope == pytest.approx((-0.03 * 40 + 0.01 * 40) / 80, abs=0.002)


def test_a_fall_together_with_the_reward_is_the_third_phase_at_once():
    probe = curve(80, 30, slopes=(0.001, -0.03))
    falling = made(n=80, probe_logp=probe, reward_mean=lambda s: 0.8 if s < 30 else 0.8 - (s - 30) * 0.012)
    assert [p.number for p in displacement_phases(falling).phases] == [1, 3]


def test_a_rising_curve_and_mere_noise_have_one_phase():
    for probe in (curve(100, slopes=(0.002,)), curve(100, slopes=(0.0,), scale=0.02)):
        assert [p.number for p in displacement_phases(made(n=100, probe_logp=probe)).phases] == [1]


def test_a_fall_too_small_to_matter_is_no_decay():
    assert [p.number for p in displacement_phases(made(n=100, probe_logp=curve(100, 50, slopes=(0.0, -0.0004), scale=1e-4))).phases] == [1]


def test_without_a_probe_set_the_paired_changes_are_summed():
    delta = lambda s: 0.001 if s < 40 else -0.02  # noqa: E731
    found = displacement_phases(made(n=80, probe_logp=np.nan, delta_correct=delta, reward_mean=0.5))
    assert found.column == "delta_correct" and [p.number for p in found.phases] == [1, 2]
    assert found.phases[1].first == pytest.approx(40, abs=3)


def test_too_little_data_is_an_answer():
    few = displacement_phases(made(n=6))
    assert few.phases == () and "not enough data" in few.reason
    none = displacement_phases(made(n=6, probe_logp=np.nan, delta_correct=np.nan))
    assert none.reason == "not measured"


def test_long_runs_are_thinned_first():
    found = displacement_phases(made(n=2000, probe_logp=curve(2000, 1500, slopes=(0.0, -0.001))))
    assert len(found.at) <= 60 and [p.number for p in found.phases] == [1, 2]
    assert found.phases[1].first == pytest.approx(1500, abs=60)

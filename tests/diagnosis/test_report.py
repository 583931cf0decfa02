import dataclasses

import numpy as np
import pytest

from grpo_core.config import make_config
from grpo_core.diagnosis.causes import SIGNATURES
from grpo_core.diagnosis.history import Facts, facts_of, facts_of_settings, history_of
from grpo_core.diagnosis.integrity import integrity
from grpo_core.diagnosis.levels import Level
from grpo_core.diagnosis.panel import examine
from grpo_core.diagnosis.report import causes_at, diagnose, level_at_every_step
from grpo_core.diagnosis.signals.reading import NO_STEP
from tests.diagnosis.made import FACTS, made

NAN = float("nan")
FALLING = dict(delta_correct=lambda s: -0.02 if s >= 30 else 0.002, probe_logp=lambda s: NAN if s % 5 else -0.05 - max(0, s - 30) * 0.02)


def test_a_healthy_run():
    report = diagnose(made())
    assert (report.level, report.causes, report.remedy, report.alarming) == (Level.HEALTHY, (), None, False)
    assert report.sentence == "Healthy: no sign of collapse."


@pytest.mark.parametrize(
    ("cause", "bent"),
    [
        ("displacement", FALLING),
        ("mismatch", dict(sampler_prob_diff=0.05, grad_norm_max=lambda s: 0.5 if s < 55 else 8.0)),
        ("entropy", dict(entropy=lambda s: 0.1 if s < 30 else 0.004, correct_rate=0.5, reward_mean=0.5)),
        ("length", dict(length_mean=lambda s: 18 + s, correct_rate=lambda s: 0.5, reward_length_corr=0.6)),
        ("hacking", dict(reward_mean=lambda s: 0.5 + s / 20, eval_correct=lambda s: NAN if s % 10 else max(0.0, 0.8 - s / 80))),
        (
            "entropy",  # known answers lose likelihood because the policy hardens on its own, before entropy is gone
            dict(
                delta_correct=lambda s: 0.002 if s < 40 else 0.1, probe_logp=lambda s: NAN if s % 5 else -0.05 - max(0, s - 40) * 0.02,
                entropy=lambda s: 0.1 - s / 1000, correct_rate=0.5, reward_mean=0.5, eval_correct=0.5,
            ),
        ),
        (
            "displacement",  # hardening too, and yet held-out accuracy is being lost: correct answers are pushed out, not settled on
            dict(
                delta_correct=lambda s: 0.002 if s < 40 else 0.1, probe_logp=lambda s: NAN if s % 5 else -0.05 - max(0, s - 40) * 0.02,
                entropy=lambda s: 0.1 - s / 1000, correct_rate=0.5, reward_mean=0.5, eval_correct=lambda s: NAN if s % 10 else (0.5 if s < 40 else 0.3),
            ),
        ),
        (
            "hacking",  # the same fall, and what is paid besides rises
            dict(reward_mean=lambda s: 0.6 + s / 50, correct_rate=0.5, eval_correct=NAN, probe_logp=lambda s: NAN if s % 5 else -0.05 - max(0, s - 40) * 0.02),
        ),
        (
            "length",  # the same, and it is length that is paid
            dict(
                reward_mean=lambda s: 0.6 + s / 300, correct_rate=0.5, eval_correct=NAN, paid_length_corr=0.99,
                probe_logp=lambda s: NAN if s % 5 else -0.05 - max(0, s - 40) * 0.02,
            ),
        ),
        ("hacking", dict(**FALLING, reward_mean=0.7, correct_rate=0.5, inverted_pairs=0.05)),  # the same fall, and wrong rollouts are paid above right ones
        ("length", dict(**FALLING, reward_mean=0.7, correct_rate=0.5, inverted_pairs=0.05, paid_length_corr=0.99)),
        ("displacement", dict(**FALLING, reward_mean=0.7, correct_rate=0.5, paid_length_corr=0.99)),  # length is paid a little; it turns no pair
        ("dead_data", dict(groups_all_fail=16, groups_all_pass=0, correct_rate=0.0, reward_mean=0.0, eval_correct=lambda s: NAN if s % 10 else 0.0)),
        ("broken_reward", dict(rollouts_failed=100)),
    ],
)
def test_each_cause_is_named_first_by_its_own_signature(cause, bent):
    report = diagnose(made(**bent))
    assert report.causes and report.causes[0].name == cause and report.alarming and report.remedy


def test_displacement_and_engine_mismatch_are_told_apart():
    """The two papers that blame different causes for the same reward curve: both signs at once is displacement only if likelihood falls."""
    both = diagnose(made(**FALLING, sampler_prob_diff=0.05))
    assert [c.name for c in both.causes] == ["displacement"]
    engine = diagnose(made(sampler_prob_diff=0.05, correct_rate=lambda s: 0.8 if s < 30 else 0.2))
    assert engine.causes[0].name == "mismatch"


def test_a_probe_alone_names_nothing_where_the_reward_is_more_than_being_correct():
    """What is paid besides may be what is learned; with held-out accuracy beside it, or a paired change where that is not measured, it is displacement."""
    paid = dict(probe_logp=FALLING["probe_logp"], reward_mean=lambda s: 0.7, correct_rate=0.5, delta_correct=0.0)
    assert diagnose(made(**paid)).level == Level.WATCH
    assert diagnose(made(**{**paid, "delta_correct": -0.001})).level == Level.WATCH
    assert diagnose(made(**{**paid, "delta_correct": -0.001}, eval_correct=NAN)).causes[0].name == "displacement"
    assert diagnose(made(**paid, eval_correct=lambda s: NAN if s % 10 else (0.8 if s < 40 else 0.4))).causes[0].name == "displacement"
    falling = dict(paid, eval_correct=lambda s: NAN if s % 10 else (0.8 if s < 40 else 0.64))
    assert diagnose(made(**falling)).causes[0].name == "displacement"  # less is enough where no wrong rollout is paid above a right one
    assert diagnose(made(**falling, inverted_pairs=NAN)).level == Level.WATCH


TOGETHER = [
    ("displacement", {}),
    ("displacement", dict(reward_mean=0.7, correct_rate=0.5, inverted_pairs=0.0)),
    ("hacking", dict(reward_mean=0.7, correct_rate=0.5, inverted_pairs=0.05)),
    ("length", dict(reward_mean=0.7, correct_rate=0.5, inverted_pairs=0.05, paid_length_corr=0.99)),
]


@pytest.mark.parametrize(("cause", "bent"), TOGETHER)
def test_two_signs_that_are_measured_apart_are_unhealthy_where_each_is_a_watch(cause, bent):
    known = dict(delta_correct=0.0, probe_logp=lambda s: NAN if s % 5 else -0.05 - (0.05 if s >= 40 else 0))
    held_out = dict(eval_correct=lambda s: NAN if s % 10 else (0.8 if s < 40 else 0.64))
    both = diagnose(made(**known, **held_out, **bent))
    assert {both.signal(name).level for name in ("probe", "held_out_fall")} == {Level.WATCH}
    assert both.level == Level.UNHEALTHY and both.causes[0].name == cause
    assert diagnose(made(**known, eval_correct=0.8, **bent)).level == Level.WATCH
    assert diagnose(made(probe_logp=-0.05, delta_correct=0.0, **held_out, **bent)).level == Level.WATCH


@pytest.mark.parametrize(("cause", "bent"), TOGETHER)
def test_large_steps_and_the_first_loss_are_unhealthy_before_held_out_accuracy_falls(cause, bent):
    known = dict(delta_correct=0.0, probe_logp=lambda s: NAN if s % 5 else -0.05 - (0.05 if s >= 40 else 0))
    early = diagnose(made(**known, kl_step=0.02, **bent))
    assert {early.signal(name).level for name in ("probe", "step_kl")} == {Level.WATCH} and early.signal("held_out_fall").level == Level.HEALTHY
    assert early.level == Level.UNHEALTHY and early.causes[0].name == cause
    assert diagnose(made(**known, **bent)).level == diagnose(made(kl_step=0.02, **bent)).level == Level.WATCH
    assert diagnose(made(4, kl_step=0.02)).signal("step_kl").level == Level.NOT_AVAILABLE  # the first steps are larger anyway


def test_entropy_that_falls_once_the_reward_is_lost_is_no_cause_of_it():
    lost = dict(probe_logp=lambda s: -0.03 if s < 10 else -2.0, correct_rate=lambda s: 0.6 if s < 12 else 0.05, reward_mean=lambda s: 0.6 if s < 12 else 0.05)
    late, early = (diagnose(made(**lost, entropy=lambda s, at=at: 0.1 if s < at else 0.03)) for at in (40, 7))
    assert late.signal("entropy_fall").level == early.signal("entropy_fall").level == Level.UNHEALTHY
    assert [cause.name for cause in late.causes] == ["displacement"] and early.causes[0].name == "entropy"


def test_likelihood_alone_is_a_watch_while_held_out_accuracy_stands():
    falling = dict(probe_logp=FALLING["probe_logp"], delta_correct=-0.001)
    assert diagnose(made(**falling)).level == Level.WATCH
    assert diagnose(made(**falling, eval_correct=NAN)).level == Level.UNHEALTHY  # nothing else can be asked
    never = diagnose(made(**falling, eval_correct=lambda s: NAN if s % 10 else 0.0))
    assert never.level == Level.UNHEALTHY and never.signal("held_out_fall").level == Level.NOT_AVAILABLE  # nothing that could be lost
    poorer = dict(correct_rate=lambda s: 0.8 if s < 40 else 0.6, reward_mean=lambda s: 0.8 if s < 40 else 0.6)
    assert diagnose(made(**falling, **poorer)).level == Level.UNHEALTHY  # training rollouts are judged at every step
    assert diagnose(made(**falling, delta_wrong=0.0, eval_correct=lambda s: NAN if s % 10 else (0.8 if s < 40 else 0.64))).level == Level.UNHEALTHY
    assert diagnose(made(**{**falling, "delta_correct": -0.02})).level == Level.UNHEALTHY  # correct rollouts lose much of what they had, at every step


def test_a_recording_that_contradicts_itself_comes_first():
    bad = integrity(made(**FALLING), {"step": [59, 59], "group_index": [0, 0], "reward": [1, 0], "advantage": [-1, 1], "tokens": [3, 3], "traced": [3, 3]})
    report = diagnose(made(**FALLING), more=[bad])
    assert report.causes[0].name == "recording" and report.remedy.changes == {} and report.signals[-1].name == "integrity"


def test_mastery_is_no_alarm():
    report = diagnose(made(groups_all_pass=16, groups_all_fail=0, correct_rate=0.99, reward_mean=0.99))
    assert report.level == Level.WATCH and report.causes[0].name == "mastered" and not report.alarming


def test_the_remedy_is_concrete_and_forks_from_before_the_trouble():
    report = diagnose(made(**FALLING), checkpoints=(10, 20, 50))
    assert report.remedy.fork_from == 20 and report.remedy.changes["method"] == "grpo_llds" and report.remedy.changes["llds_coef"] == 0.2
    assert report.remedy.sentence.startswith("Fork from step 20 with ")
    assert make_config({**report.remedy.changes})  # options of RunConfig, and a value each that it takes
    assert diagnose(made(**FALLING)).remedy.fork_from is None and diagnose(made(**FALLING)).remedy.sentence.startswith("Start again with ")
    assert report.healthy_until == report.since_step - 1


def test_a_reward_that_was_learned_instead_is_taken_out():
    """The part that rose, not the format that did not; a part of negative weight pays more when it falls; without any other part a person has to look."""
    facts = dataclasses.replace(FACTS, rewards=("exact", "my:format=0.2", "my:digits=8", "my:cost=-1"))
    bent = dict(**FALLING, reward_mean=0.7, correct_rate=0.5, inverted_pairs=0.05)
    parts = {"exact": np.full(60, 0.5), "my:format": np.full(60, 0.9), "my:digits": np.linspace(0, 0.1, 60), "my:cost": np.linspace(0, 0.1, 60)}
    run = dataclasses.replace(made(facts=facts, **bent), parts=parts)
    remedy = diagnose(run, checkpoints=[10, 20]).remedy
    assert dict(remedy.changes) == {"rewards": ("exact", "my:format=0.2", "my:cost=-1")} and "my:digits pays for" in remedy.sentence
    cheaper = dataclasses.replace(run, parts=parts | {"my:digits": np.full(60, 0.1), "my:cost": np.linspace(0.1, 0, 60)})
    assert diagnose(cheaper).remedy.changes["rewards"] == ("exact", "my:format=0.2", "my:digits=8")
    assert diagnose(dataclasses.replace(run, parts={})).remedy.changes["rewards"] == ("exact",)  # nobody knows which
    assert diagnose(made(**bent)).remedy.changes == {}
    long = dict(length_mean=lambda s: 18 + s, correct_rate=lambda s: 0.5, reward_length_corr=0.6)
    assert set(diagnose(dataclasses.replace(made(facts=facts, **long), parts=parts)).remedy.changes) == {"overlong_buffer"}  # length is not what is paid


def test_the_remedy_remembers_updates_that_were_too_large():
    """A policy that is gone moves no more, and what moved it is no less too large."""
    for still in (0.0, 0.1):
        report = diagnose(made(**FALLING, kl_step=np.where(np.arange(60) < 55, 0.1, still)))
        assert report.signal("step_kl").level == (Level.WATCH if still else Level.HEALTHY)
        assert report.remedy.changes["lr"] == FACTS.lr / 4


def test_tips_are_held_back_while_unhealthy():
    once = dataclasses.replace(FACTS, updates=1, epochs=1, clips=False)
    assert diagnose(made(facts=once)).tips and diagnose(made(facts=once, **FALLING)).tips == ()


def test_a_penalty_that_is_zero_by_construction_is_said_to_be_so():
    once = dataclasses.replace(FACTS, updates=1, epochs=1, clips=False, penalised=True)
    assert "LLDS penalty" in diagnose(made(facts=once)).tips[0]
    assert "LLDS penalty does nothing" in diagnose(made(facts=once, **FALLING)).signal("displacement").sentence
    for facts in (dataclasses.replace(once, penalised=False), dataclasses.replace(FACTS, penalised=True)):
        said = diagnose(made(facts=facts, **FALLING)).signal("displacement").sentence + " ".join(diagnose(made(facts=facts)).tips)
        assert "LLDS" not in said


@pytest.mark.parametrize(("reference", "said"), [(False, "no reference model (kl_coef is 0)"), (True, "no step recorded"), (None, "the trace has no")])
def test_why_there_is_no_distance_to_a_reference(reference, said):
    found = diagnose(made(facts=dataclasses.replace(FACTS, reference=reference))).signal("reference_kl")
    assert found.level == Level.NOT_AVAILABLE and said in found.sentence


def test_one_odd_figure_is_a_watch_not_an_alarm():
    report = diagnose(made(grad_norm_max=lambda s: 50.0 if s == 58 else 0.5))
    assert report.level == Level.WATCH and not report.alarming and "no known cause" in report.sentence


def test_collapsed_needs_the_outcome_lost():
    sick = diagnose(made(**FALLING))
    dead = diagnose(made(**FALLING, correct_rate=lambda s: 0.8 if s < 40 else 0.0))
    assert (sick.level, dead.level) == (Level.UNHEALTHY, Level.COLLAPSED)


def test_replaying_gives_what_was_said_then():
    history = made(**FALLING)
    levels = level_at_every_step(history)
    for step in (0, 4, 20, 36, 45, 59):
        then = diagnose(history.until(step))
        assert then.level == levels[step] and [c.name for c in then.causes] == [c.name for c in causes_at(history, step)]
    alarm = int(np.flatnonzero(levels >= Level.UNHEALTHY)[0])
    assert 31 <= alarm <= 40


def test_a_run_is_not_called_healthy_before_most_signals_can_answer():
    """The probe set and held-out prompts are scored in the first step, and one score is never below the best."""
    first = diagnose(made().until(0))
    assert first.level == Level.NOT_AVAILABLE and first.signal("probe").level == Level.HEALTHY and "1 step;" in first.sentence
    assert (diagnose(made().until(3)).level, diagnose(made().until(4)).level) == (Level.NOT_AVAILABLE, Level.HEALTHY)


def test_an_empty_run_says_when_an_answer_comes():
    nobody = dataclasses.replace(made(n=1), steps=np.zeros(0, "i8"), columns={})
    report = diagnose(nobody)
    assert report.level == Level.NOT_AVAILABLE and "Not enough data" in report.sentence and report.step is None
    assert report.tips == () and {s.sentence for s in report.signals} == {NO_STEP}  # nobody knows yet what the trace will have


def test_every_signature_reads_signals_that_exist():
    names = {s.name for s in examine(made())} | {"integrity"}
    for signature in SIGNATURES:
        used = {n for need in (*signature.needs, *signature.unless) for n in need} | set(signature.supports)
        assert used <= names, signature.name


def test_a_history_is_made_of_columns_with_gaps():
    history = history_of({"step": [0, 1], "entropy": [0.5, None], "text": ["a", "b"], "reward_parts.exact": [1.0, None], "reward_part_stds.exact": [0.5, 0.25]})
    assert history["entropy"].tolist()[0] == 0.5 and np.isnan(history["entropy"][1]) and np.isnan(history["nothing"]).all()
    assert set(history.columns) == {"entropy"} and history.parts["exact"][0] == 1.0 and history.part_stds["exact"].tolist() == [0.5, 0.25]
    assert len(history.until(0)) == 1


def test_facts_come_from_the_config():
    facts = facts_of(make_config({"method": "grpo_llds", "epochs": 3}))
    assert (facts.method, facts.updates, facts.clips, facts.penalised, facts.reference) == ("grpo_llds", 3, True, True, False)
    assert facts_of(make_config({"epochs": 1})).clips is False
    assert facts_of(make_config({"method": "grpo_llds", "llds_coef": 0.0})).penalised is False
    assert facts_of(make_config({"kl_coef": 0.1, "steps": 7})).reference is True
    assert facts_of_settings({"trainer": "somebody else's"}) == Facts()


def test_pass_rates_are_put_beside_their_steps():
    """Groups of 4, so k = 2: step 0 has 2 of 4 right, 1 - C(2,2)/C(4,2) = 5/6; no group of step 1 was read; step 2 has one scored rollout."""
    outcomes = {"step": [0, 2], "correct": [2, 1], "scored": [4, 1], "groups": [1, 1]}
    history = history_of({"step": [0, 1, 2]}, dataclasses.replace(FACTS, group_size=4), outcomes)
    assert history["pass_at_half"].tolist() == pytest.approx([5 / 6, NAN, NAN], nan_ok=True)
    assert history["pass_at_1"].tolist() == pytest.approx([0.5, NAN, 1.0], nan_ok=True)
    assert np.isnan(history_of({"step": [0]}, Facts())["pass_at_half"]).all()
    assert history_of({"step": [0]}, Facts(), {"step": [0], "correct": [2], "scored": [4], "groups": [1]})["pass_at_half"][0] == pytest.approx(5 / 6)


def test_groups_of_one_have_no_pass_at_k():
    history = history_of({"step": [0]}, dataclasses.replace(FACTS, group_size=1), {"step": [0], "correct": [1], "scored": [1], "groups": [8]})
    assert next(s for s in examine(history) if s.name == "sharpening").level == Level.NOT_AVAILABLE

"""The LaTeX of every registered name, and the equations composed of it."""

import re
from dataclasses import replace

import pytest

from grpo_core.algorithms import credit, group_objectives, normalisers, penalties, segments, surrogates, weights
from grpo_core.diagnosis.history import History
from grpo_core.diagnosis.panel import examine
from grpo_core.equation_pieces import CHOICES, PENALTIES, SURROGATES, WEIGHTS
from grpo_core.equations import advantage, defined, differences, equations, loss, slots
from grpo_core.method_row import HARMS, Component, Penalty
from grpo_core.methods import METHODS
from grpo_core.tasks.sampler import DATA_RULES

REGISTRIES = (
    credit.VALUES, credit.BASES, credit.NORMS, credit.SCALES, credit.DROPS, credit.WHOLES, segments.SPREADS, surrogates.SURROGATES, surrogates.LEVELS,
    group_objectives.GROUP_OBJECTIVES, weights.WEIGHTS, penalties.PENALTIES, normalisers.NORMALISERS, DATA_RULES,
)  # fmt: skip


def test_every_registered_name_has_its_piece_and_no_other_has():
    assert [set(choice.pieces) for choice in CHOICES] == [set(registry) for registry in REGISTRIES]
    assert all(piece.means for choice in CHOICES for piece in choice.pieces.values())


def test_constants_in_the_pieces_are_those_of_the_code():
    above, below = surrogates.SAPO_TEMPERATURES
    assert f"= {above:g} " in SURROGATES.pieces["soft_gate"].where and f" {below:g} " in SURROGATES.pieces["soft_gate"].where
    (k_up, rate_up), (k_down, rate_down) = surrogates.VESPO_SHAPES
    shapes = SURROGATES.pieces["gamma_gate"].where
    assert f"({k_up:g}, {rate_up:g}) \\text{{ if }} A_i \\ge 0" in shapes and f"({k_down:g}, {rate_down:g}) \\text{{ if not}}" in shapes
    assert "10^{-4}" in PENALTIES.pieces["llds_token"].where and penalties.DEAD_ZONE == 1e-4
    assert "10^{-4}" in PENALTIES.pieces["kl_hinge"].latex and penalties.KL_BOUND == 1e-4
    assert r"\le 0.4 " in SURROGATES.pieces["ring"].where and r"\ge 3 " in SURROGATES.pieces["ring"].where and surrogates.REC_RING == (0.6, 2.0)
    assert r"\lambda = 0.6" in WEIGHTS.pieces["reference"].where and weights.ALIGNMENT == 0.6
    assert "0.1 \\sum_t" in PENALTIES.pieces["gepo"].where and (penalties.GEPO_BETA, penalties.GEPO_SPREAD) == (0.1, 1.0)


def test_penalties_are_averaged_as_the_loss_averages_them():
    assert {name: piece.averaged for name, piece in PENALTIES.pieces.items()} == {
        name: penalties.PENALTIES[name].over == "method" for name in penalties.PENALTIES
    }


@pytest.mark.parametrize("name", METHODS)
def test_every_method_composes(name: str):
    for method in (METHODS[name], METHODS[name].as_released()):
        for text in (*equations(method), defined(method)):
            assert "$" not in text and text.count("{") == text.count("}")
            assert len(re.findall(r"\\begin", text)) == len(re.findall(r"\\end", text))
        assert all(slot.explains for slot in slots(method) if slot.names)


def test_the_equation_follows_the_row():
    grpo = METHODS["grpo"]
    assert "0.8,\\, 1.2)" in loss(grpo) and "0.8,\\, 1.28)" in loss(METHODS["dapo"]) and "0.9997" in loss(METHODS["gspo"])
    assert r"\frac{1}{B} \sum_i \frac{1}{|o_i|} \sum_t" in loss(grpo) and r"\frac{1}{B\, T_{\max}}" in loss(METHODS["dr_grpo"])
    assert r"\operatorname*{std}" in advantage(grpo) and r"\operatorname*{std}" not in advantage(METHODS["dr_grpo"])
    assert advantage(METHODS["w_reinforce"]) == r"A_i = 0.1\, \max\left(0,\ v_{i}\right) + \min\left(0,\ v_{i}\right)"
    assert r"w_{i,t}\, \delta_i\, " in loss(METHODS["gtpo"]) and r"w^{\text{head}}_{i,t}" in loss(METHODS["gtpo"].as_released())


def test_a_penalty_is_drawn_only_where_it_is_on():
    assert "+ 0.2 " in loss(METHODS["grpo_llds"]) and r"\pi_{\text{ref}}" not in loss(METHODS["grpo_llds"])
    with_kl = replace(METHODS["dapo"], penalties=(Penalty(name="kl_ref_k3", coef=0.04, knob="kl_coef"),))
    assert r"+ 0.04 \frac{1}{\sum_j |o_j|} \sum_i \sum_t \Bigl( \frac{\pi_{\text{ref}}}" in loss(with_kl)


def test_slots_that_differ():
    assert differences(METHODS["dapo"], METHODS["grpo"]) == ("surrogate", "normaliser", "data rule")
    assert differences(METHODS["grpo_llds"], METHODS["grpo"]) == ("regularisers",) and not differences(METHODS["grpo"], METHODS["grpo"])


def test_a_choice_from_outside_the_package_stands_as_its_name():
    own = replace(METHODS["grpo"], credit=(Component(norm="my_norm"),), surrogate="my_push", normaliser="mine", sampler="hard_first")
    assert r"\operatorname{my\_norm}" in advantage(own) and r"\operatorname{my\_push}" in loss(own) and r"\operatorname{mine}" in loss(own)
    assert "hard_first: registered outside the package" in slots(own)[5].explains


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_is_said_to_do_exists(name: str):
    method = METHODS[name]
    signals = {signal.name for signal in examine(History(steps=[], columns={}))}
    assert set(method.moves) <= signals and method.against and set(method.against) <= set(HARMS)
    assert all(text.endswith(".") and len(text) > 40 for text in (method.protects, method.costs))

"""Every row against numbers typed from the papers and their code, not taken from ours."""

import math

import pytest

from grpo_core.algorithms import penalties, surrogates, weights
from grpo_core.config import make_config
from grpo_core.errors import ConfigError
from grpo_core.methods import METHODS
from grpo_core.objectives import objective_of

GROUP, CENTRED, POPULATION = "mean/std", "mean/none", "mean/std_population"
PPO = {"clip_low": 0.2, "clip_high": 0.2}
REC = PPO | {"forward_kl_coef": 0.0}  # off by default in the code; its recipes with a pull take 0.1
DISCO = {"disco_beta": 1e3}

# kl_coef is 0 in every row that reads it. That is TRL's default; on purpose not the papers' 0.04 (DeepSeekMath), 1e-3 (R1, LLDS, Rank-GRPO), 0.1 (Reg-GRPO).
NO_KL = {"gpg", "gtpo", "opmd", "opmd_log_average", "opmd_kimi", "asymre", "red_drop", "red_weight", "grao"}
NO_KL |= {m for m in METHODS if m.startswith(("rec_", "disco"))}

# method: credit as value − base / norm, level of the ratio, normaliser, data rule, numbers of its own
ROWS = {
    "grpo": ([GROUP], "token", "sequence", "uniform", PPO),
    "dr_grpo": ([CENTRED], "token", "constant", "uniform", PPO),
    "dapo": ([GROUP], "token", "token", "dynamic", {"clip_low": 0.2, "clip_high": 0.28}),
    "gspo": ([GROUP], "sequence", "sequence", "uniform", {"clip_low": 3e-4, "clip_high": 4e-4}),
    "rloo": (["leave_one_out/none"], "token", "sequence", "uniform", PPO),  # the paper has no ratio: one update, where the clip changes nothing
    "cispo": ([GROUP], "token", "token", "uniform", {"clip_low": 1.0, "clip_high": 4.0}),  # no lower bound; cap 5, ScaleRL's, as the paper prints none
    "sapo": ([GROUP], "token", "sequence", "uniform", {}),
    "gmpo": ([GROUP], "token", "sequence", "uniform", {"clip_low": 0.4, "clip_high": 0.4}),  # the paper's e^±0.4; the reference's worked numbers take 0.2
    "luspo": ([GROUP], "sequence", "row_sum", "uniform", {"clip_low": 2e-3, "clip_high": 2.5e-3}),
    "vespo": ([GROUP], "sequence_sum", "token", "uniform", {}),
    "reinforce_pp": (["zero/token_whiten"], "token", "token", "uniform", PPO),
    "reinforce_pp_baseline": (["mean/token_whiten"], "token", "token", "uniform", PPO),
    "opo": (["length_weighted/none"], "token", "token", "uniform", PPO),  # any normaliser: verl's default
    "gpg": (["mean/nonzero_share"], "token", "token", "uniform", {}),
    "pass_at_k": (["second_best/std"], "token", "token", "uniform", PPO),
    "remax": (["greedy/none"], "token", "token", "uniform", PPO),
    "gdpo": ([GROUP], "token", "sequence", "uniform", PPO),
    "grpo_llds": ([GROUP], "token", "sequence", "uniform", PPO | {"llds_coef": 0.2}),
    "gtpo": ([CENTRED, "zero/none"], "token", "sequence", "uniform", {"gtpo_conflict_weight": 2.0, "gtpo_entropy_coef": 0.1}),
    "nthr": ([GROUP], "token", "sequence", "uniform", PPO | {"nthr_beta": 1.0}),
    "psr": (["zero/none"], "token", "token", "uniform", PPO),
    "nsr": (["zero/none"], "token", "token", "uniform", PPO),
    "w_reinforce": (["zero/none", "zero/none"], "token", "token", "uniform", PPO),
    "opmd": ([CENTRED], "token", "token", "uniform", {"opmd_tau": 1.0}),
    "opmd_log_average": (["log_average_exp/none"], "token", "token", "uniform", {"opmd_tau": 1.0}),
    "opmd_kimi": ([CENTRED], "token", "token", "uniform", {"k2_coef": 0.1}),
    "asymre": (["below_mean/none"], "token", "token", "uniform", {"asymre_shift": 0.1}),
    "rec_one_side": ([CENTRED], "token", "token", "uniform", REC),
    "rec_one_side_is": ([CENTRED], "token", "token", "uniform", REC),
    "rec_two_side": ([CENTRED], "token", "token", "uniform", REC),
    "rec_two_side_is": ([CENTRED], "token", "token", "uniform", REC),
    "rec_ring": ([CENTRED], "token", "token", "uniform", REC),
    "rec_ring_is": ([CENTRED], "token", "token", "uniform", REC),
    "red_drop": ([CENTRED], "token", "token", "uniform", {"forward_kl_coef": 0.0}),
    "red_weight": ([CENTRED], "token", "token", "uniform", {"forward_kl_coef": 0.0, "red_temperature": 1.0}),
    "reg_grpo": ([POPULATION], "sequence_sum", "sequence", "hinted", {"reg_floor": 0.01}),  # a guard of ours: the paper prints no ε, and 0 gives NaN
    "disco_b": (["mean/variance"], "token", "sequence", "uniform", DISCO),
    "disco_b_ratio": (["mean/variance"], "token", "sequence", "uniform", DISCO),
    "disco": (["mean/variance"], "token", "sequence", "uniform", DISCO | {"disco_tau": 10.0}),
    "disco_ratio": (["mean/variance"], "token", "sequence", "uniform", DISCO | {"disco_tau": 1.0}),
    "spo": (["tracked/batch_std"], "token", "token", "tracked", {"clip_low": 0.2, "clip_high": 0.28}),  # without the released dual clip of 10
    "arpo": ([GROUP], "token", "token", "replay_success", {"clip_low": 0.2, "clip_high": 0.3}),
    "grao": ([POPULATION], "token", "sequence", "demonstrated", {"grao_imitation": 0.5}),
    "gepo": (["zero/token_whiten"], "token", "token", "uniform", PPO | {"gepo_coef": 0.01}),
    "rank_grpo": ([GROUP], "segment", "sequence", "uniform", {"clip_low": 0.06, "clip_high": 0.08}),
}


def test_every_row_is_in_the_table():
    assert set(ROWS) == set(METHODS)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_what_the_reference_says(name):
    credit, level, normaliser, sampler, own = ROWS[name]
    row = METHODS[name]
    assert [f"{c.base}/{c.norm}" for c in row.credit] == credit
    assert (row.level, row.normaliser, row.sampler) == (level, normaliser, sampler)
    assert row.own_values == own | ({} if name in NO_KL else {"kl_coef": 0.0})


def test_what_rows_hold_beside_the_options():
    assert [c.weight for c in METHODS["w_reinforce"].credit] == [0.1, 1.0] and METHODS["opmd_log_average"].credit[0].at == 1.0
    assert [(w.name, w.value) for w in METHODS["gtpo"].weights] == [("conflict", 2.0), ("entropy_filter", math.log(2))]
    released = METHODS["gtpo"].as_released()
    assert [(w.name, w.value) for w in released.weights] == [("conflict_released", 2.0), ("entropy_filter_always", 0.7)]
    assert released.normaliser == "sequence_sum"
    assert {m.whole for m in METHODS.values() if m.name != "gdpo"} == {"none"} and METHODS["gdpo"].whole == "batch_std"


def test_constants_of_the_functions():
    """SAPO's temperatures, VESPO's shapes for A ≥ 0 and below, REC-Ring's outer bounds, ARPO's dual clip, δ of DisCO, λ of GRAO, β and λ of GEPO."""
    assert surrogates.SAPO_TEMPERATURES == (1.0, 1.05) and surrogates.VESPO_SHAPES == ((2.0, 3.0), (3.0, 2.0)) and surrogates.REC_RING == (0.6, 2.0)
    assert surrogates.DUAL_CLIP == 3 and penalties.KL_BOUND == 1e-4 and weights.ALIGNMENT == 0.6
    assert penalties.GEPO_SPREAD == 1.0 and penalties.GEPO_BETA == 0.1  # its β could not be read: DPO's


def test_a_cap_on_the_ratio_is_for_methods_that_clip_it_and_lies_above_their_bound():
    assert objective_of(make_config({"clip_cap": 4})).cap == 4 and objective_of(make_config({})).cap == math.inf
    with pytest.raises(ConfigError, match="clip_cap=1.1 lies below the upper clip bound of 1.2, which holds positive advantages already; try 4"):
        make_config({"clip_cap": 1.1})
    with pytest.raises(ConfigError, match="clip_cap is set but method gpg does not read it"):
        make_config({"method": "gpg", "clip_cap": 4})

from types import SimpleNamespace

import numpy as np
import pandas as pd

from pages.components import states
from pages.components.summary import group_sentence, run_sentences, step_sentence
from tests.factories import status_of


def test_where_a_run_stands() -> None:
    nothing = pd.DataFrame({"step": []})
    assert run_sentences(status_of(), nothing) == ["Running, step 84 of 150, about 2 min left."]
    assert run_sentences(status_of(state="finished", step=150, ended_at=125.0), nothing) == ["Finished all 150 steps in 2 min 5 s."]
    assert run_sentences(status_of(state="stopped", ended_at=60.0), nothing) == ["Stopped at step 84 of 150 in 1 min."]
    warming = status_of(state="starting", step=0, phase="warming up the tiny model", phase_done=120, phase_total=250)
    assert run_sentences(warming, nothing) == ["Warming up the tiny model, 120 of 250; the first step follows."]
    assert run_sentences(status_of(message="no step for 90 s"), nothing) == ["Running, step 84 of 150, no step for 90 s."]


def test_how_the_figures_moved() -> None:
    # reward 0 for 10 steps, then 1 for 30: mean of the last ten 1, 25 steps earlier (steps 5 to 14) 0.5
    reward = np.r_[np.zeros(10), np.ones(30)]
    steps = pd.DataFrame({"step": range(40), "reward_mean": reward, "correct_rate": reward, "logp_correct": -reward, "eval_correct": [0.25] + [np.nan] * 39})
    assert run_sentences(status_of(), steps)[1:] == [
        "Mean reward up 0.50 to 1.00 over 25 steps, 100\u00a0% of rollouts correct.",
        "Correct rollouts are 0.50 nats/token less likely than 25 steps ago.",
        "Held-out: 25\u00a0% correct at step 0.",
    ]


def test_a_step_in_a_sentence() -> None:
    groups = pd.DataFrame({"outcome": ["mixed", "mixed", "all_fail"], "kept": [True, True, False], "rewards": [[1, 0], [1, np.nan], [0, 0]]})
    assert step_sentence(7, groups) == "Step 7: 3 groups, of which 2 mixed and 1 all wrong; mean reward 0.40; 1 dropped from the loss."


def test_progress_in_words() -> None:
    assert states.progress(status_of()) == "84 of 150 · about 2 min left"
    assert states.progress(status_of(message="no step for 90 s")) == "84 of 150"
    assert states.progress(status_of(state="failed")) == "84 of 150"
    assert states.share_done(status_of(state="starting", step=0, phase="warming up", phase_done=9, phase_total=10)) == 0.0
    assert states.doing(status_of(state="starting", phase="warming up", phase_done=9, phase_total=10)) == "warming up 9 / 10"


def test_a_worked_answer_is_no_rollout_that_was_sampled() -> None:
    rollouts = pd.DataFrame({"reward": [1.0, 0.0, 1.0], "advantage": [0.7, -1.4, 0.7], "source": ["policy", "policy", "reference"]})
    group = SimpleNamespace(correct=1, size=3, reward_mean=0.67, reward_std=0.47)
    assert group_sentence(group, rollouts).startswith("1 of 2 correct; 1 worked answer beside them, not sampled; mean reward 0.67")

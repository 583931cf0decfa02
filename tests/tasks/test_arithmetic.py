import json

import numpy as np
import pytest

from grpo_core.config import make_config
from grpo_core.errors import ConfigError, TaskError
from grpo_core.tasks.arithmetic import worked_answer
from grpo_core.tasks.build import build_task
from tests.tasks.plain import Characters, completion


@pytest.mark.parametrize(
    ("a", "b", "worked"),
    [
        (36, 31, "6+1=7,3+3+0=6:67"),  # the reference's example
        (57, 68, "7+8=15,5+6+1=12:125"),  # both columns carry
        (4, 21, "4+1=5,0+2+0=2:25"),  # a missing ten is 0
        (0, 0, "0+0=0,0+0+0=0:0"),
        (99, 99, "9+9=18,9+9+1=19:198"),
    ],
)
def test_the_column_sum_is_written_out(a: int, b: int, worked: str) -> None:
    assert worked_answer(a, b) == worked


def test_every_character_is_in_the_alphabet_and_the_longest_answer_fits_the_default() -> None:
    spec = build_task(make_config({}))
    written = "".join(f"{a}+{b}=" + worked_answer(a, b) for a in range(100) for b in range(100))
    assert set(written) == set(spec.alphabet()) and len(spec.alphabet()) == 14
    assert max(len(worked_answer(a, b)) for a in range(100) for b in range(100)) + 1 <= make_config({}).max_new_tokens


def test_held_out_pairs_are_fixed_and_never_drawn_nor_taught() -> None:
    spec = build_task(make_config({"seed": 1}))
    task, again = spec.bind(Characters()), build_task(make_config({"seed": 2})).bind(Characters())
    held_out = {p.text for p in task.held_out(10_000)}
    assert len(held_out) == 512
    assert [p.text for p in task.held_out(128)] == [p.text for p in again.held_out(512)][:128]
    rng = np.random.default_rng(0)
    drawn = {p.text for _ in range(20) for p in task.draw(rng, 5000)}
    taught = {spec.warmup_example(rng)[0] for _ in range(50_000)}
    assert not held_out & (drawn | taught)
    assert len(drawn) == 10_000 - 512


def test_prompts_of_one_draw_are_distinct_and_come_from_the_generator_alone() -> None:
    task = build_task(make_config({})).bind(Characters())
    drawn = task.draw(np.random.default_rng(3), 9488)
    assert len({p.text for p in drawn}) == 9488
    assert [p.text for p in task.draw(np.random.default_rng(3), 9488)] == [p.text for p in drawn]
    assert len(task.draw(np.random.default_rng(3), 9489)) == 9489  # more than there are pairs: some come twice
    assert json.loads(json.dumps(task.state())) == task.state()


def test_a_prompt_carries_its_answer_its_worked_answer_and_its_operands() -> None:
    [drawn] = build_task(make_config({})).bind(Characters()).draw(np.random.default_rng(0), 1)
    a, b = drawn.row["a"], drawn.row["b"]
    assert (drawn.text, drawn.answer, drawn.gold, drawn.prompt_id) == (f"{a}+{b}=", str(a + b), worked_answer(a, b), f"{a}+{b}")
    assert drawn.token_ids == tuple(map(ord, drawn.text))


@pytest.mark.parametrize(
    ("text", "finish", "reward"),
    [
        ("6+1=7,3+3+0=6:67", "stop", 1.0),
        ("anything:67", "stop", 1.0),  # only the sum is judged
        ("6+1=7,3+3+0=6:67", "length", 0.0),  # did not end by itself
        ("6+1=7,3+3+0=6:67", "stop_string", 0.0),
        ("6+1=7,3+3+0=6:067", "stop", 0.0),
        ("6+1=7,3+3+0=6:67:67", "stop", 0.0),
        ("67", "stop", 0.0),
        ("", "stop", 0.0),
    ],
)
def test_the_reward_is_the_exact_sum_after_the_colon_of_an_ended_completion(text: str, finish: str, reward: float) -> None:
    task = build_task(make_config({})).bind(Characters())
    asked = next(p for p in (q for seed in range(999) for q in task.draw(np.random.default_rng(seed), 1000)) if p.answer == "67")
    judged = task.judge(asked, completion(text, finish=finish))
    assert (judged.parts, judged.total, judged.correct, judged.failure) == ({"exact": reward}, reward, bool(reward), None)


@pytest.mark.parametrize(
    ("text", "finish", "form"),
    [
        ("6+1=7,3+3+0=6:67", "stop", 1.0),
        ("9+9=1,0+0+1=88:5", "stop", 1.0),  # wrong throughout, but a column sum in form
        ("6+1=7,3+3+0=6:67", "length", 0.0),
        ("67", "stop", 0.0),
        ("6+1=7,3+3+2=6:67", "stop", 0.0),  # a carry is 0 or 1
    ],
)
def test_the_form_of_a_worked_sum_is_a_reward_of_its_own(text: str, finish: str, form: float) -> None:
    task = build_task(make_config({"rewards": ["exact", "form=0.3"]})).bind(Characters())
    asked = task.draw(np.random.default_rng(0), 1)[0]
    judged = task.judge(asked, completion(text, finish=finish))
    assert judged.parts == {"exact": 0.0, "form": form} and judged.total == pytest.approx(0.3 * form) and judged.correct is False
    right = task.judge(asked, completion(asked.gold))
    assert right.parts == {"exact": 1.0, "form": 1.0} and right.total == pytest.approx(1.3) and right.correct is True


def test_rewards_the_task_does_not_have_are_refused() -> None:
    with pytest.raises(TaskError, match="unknown reward 'forms'; known: exact, form, or your own module:function; did you mean form"):
        build_task(make_config({"rewards": ["exact", "forms"]}))
    with pytest.raises(ConfigError, match="rewards: not read by the ranking task"):
        make_config({"task": "ranking", "rewards": ["exact"]})


def test_a_context_too_short_for_the_completion_is_refused() -> None:
    spec = build_task(make_config({"max_new_tokens": 59}))
    spec.bind(Characters(context_limit=65))
    with pytest.raises(TaskError, match="99\\+99= has 6 tokens.*max_new_tokens=59.*context of 64 tokens; set max_new_tokens to at most 58"):
        spec.bind(Characters(context_limit=64))

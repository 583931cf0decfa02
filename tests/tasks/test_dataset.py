import json
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest

from grpo_core.errors import TaskError
from grpo_core.tasks.base import Task
from grpo_core.tasks.build import build_task
from tests.tasks.plain import Characters, completion, dataset_config, jsonl

ROWS = [{"prompt": f"{i}+1=", "answer": str(i + 1)} for i in range(40)]


def read(path: Path | str, **changes: object) -> Task:
    return build_task(dataset_config(path, **changes)).bind(Characters())


def one(tmp_path: Path, row: object, **changes: object) -> Task:
    return read(jsonl(tmp_path / "data.jsonl", [row]), **changes)


def first_prompt(task: Task):
    return task.draw(np.random.default_rng(0), 1)[0]


def test_a_row_becomes_a_prompt_with_its_columns(tmp_path: Path) -> None:
    prompt = first_prompt(one(tmp_path, {"prompt": "2+2=", "answer": "4", "level": 3}))
    assert (prompt.text, prompt.answer, prompt.prompt_id, prompt.gold) == ("2+2=", "4", "data.jsonl line 1", None)
    assert prompt.row["level"] == 3 and prompt.token_ids == tuple(map(ord, "2+2="))


def test_other_columns_can_be_named(tmp_path: Path) -> None:
    prompt = first_prompt(one(tmp_path, {"question": "2+2=", "solution": 4}, prompt_column="question", answer_column="solution"))
    assert (prompt.text, prompt.answer) == ("2+2=", "4")


@pytest.mark.parametrize(("answer", "text"), [("4", "4"), (4, "4"), (4.0, "4"), (4.5, "4.5"), (-3, "-3"), (10**20, "1" + "0" * 20)])
def test_numbers_become_text(tmp_path: Path, answer: object, text: str) -> None:
    assert first_prompt(one(tmp_path, {"prompt": "p", "answer": answer})).answer == text


def test_a_file_may_have_a_byte_order_mark_and_blank_lines(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_bytes(b'\xef\xbb\xbf{"prompt": "\xc3\xa9", "answer": "1"}\r\n\r\n{"prompt": "b", "answer": "2"}')
    spec = build_task(dataset_config(data))
    assert [(row.where, row.text) for row in (*spec.training, *spec.evaluation)] == [("data.jsonl line 1", "é"), ("data.jsonl line 3", "b")]


GOOD = {"prompt": "p", "answer": "1"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "anser": 1}, "data.jsonl line 7 has no column 'answer'; its columns are prompt, anser; did you mean answer_column=anser?"),
        ({"prompt": "p", "x": 1}, "data.jsonl line 7 has no column 'answer'; its columns are prompt, x; set answer_column"),
        ({"question": "p", "answer": 1}, "data.jsonl line 7 has no column 'prompt'; its columns are question, answer; set prompt_column"),
        ({}, "data.jsonl line 7 has no column 'prompt'; its columns are none; set prompt_column"),
        ({"prompt": "p", "answer": None}, "data.jsonl line 7: column 'answer' is null; an answer must be a text or a number"),
        ({"prompt": "p", "answer": [1]}, "data.jsonl line 7: column 'answer' is [1]; an answer must be a text or a number"),
        ({"prompt": "p", "answer": True}, "data.jsonl line 7: column 'answer' is true; an answer must be a text or a number"),
        ({"prompt": "p", "answer": " "}, "data.jsonl line 7: the answer is empty, not a text to compare with, which the exact reward needs"),
        ({"prompt": "", "answer": "1"}, "data.jsonl line 7: column 'prompt' is an empty text; write the prompt there or remove the row"),
        ({"prompt": 5, "answer": "1"}, "data.jsonl line 7: column 'prompt' is neither a text nor chat messages like"),
        ({"prompt": [], "answer": "1"}, "data.jsonl line 7: column 'prompt' is neither a text nor chat messages like"),
        ({"prompt": [{"role": "user"}], "answer": "1"}, 'chat messages like [{"role": "user", "content": "…"}] but [{"role": "user"}]'),
        ('{"prompt": "p", "answer"}\n', "data.jsonl line 7 is not JSON: Expecting ':' delimiter at column 25; every line must be one JSON object"),
        ("[1, 2]\n", "data.jsonl line 7 is not a JSON object but a list"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_by_file_and_line(tmp_path: Path, row: object, message: str) -> None:
    data = jsonl(tmp_path / "data.jsonl", [GOOD] * 6 + [row, GOOD])
    with pytest.raises(TaskError) as raised:
        read(data)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_answers_that_a_reward_cannot_use_are_refused_before_training(tmp_path: Path) -> None:
    data = jsonl(tmp_path / "data.jsonl", [GOOD, {"prompt": "p", "answer": "three"}])
    with pytest.raises(TaskError, match="data.jsonl line 2: the answer 'three' holds no number, which the numeric reward needs"):
        read(data, rewards=["exact", "numeric=0.5"])
    read(data, rewards=["exact"])


@pytest.mark.parametrize("name", ["data.jsonl", "data.parquet"])
def test_files_that_are_missing_or_empty(tmp_path: Path, name: str) -> None:
    with pytest.raises(TaskError, match=f"cannot read .*{name}: No such file"):
        read(tmp_path / name)
    if name.endswith("jsonl"):
        (tmp_path / name).write_text("\n\n")
    else:
        pd.DataFrame({"prompt": [], "answer": []}).to_parquet(tmp_path / name)
    with pytest.raises(TaskError, match=f"{name} has no rows"):
        read(tmp_path / name)


def test_files_that_are_not_what_they_are_called(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("no parquet at all")
    (tmp_path / "b.jsonl").write_bytes(b'{"prompt": "\xff"}')
    (tmp_path / "c.csv").write_text("prompt,answer\n")
    for name, message in [
        ("a.parquet", "a.parquet is not a readable Parquet file"), ("b.jsonl", "b.jsonl is not UTF-8 text"), ("c.csv", "c.csv is neither .jsonl nor .parquet"),
    ]:
        with pytest.raises(TaskError, match=message):
            read(tmp_path / name)


def test_parquet_rows_are_named_too(tmp_path: Path) -> None:
    data = tmp_path / "data.parquet"
    pd.DataFrame({"prompt": ["a", "b", "c"], "answer": [1.0, 2.5, None]}).to_parquet(data)
    with pytest.raises(TaskError, match="data.parquet row 3: column 'answer' is null"):
        read(data)
    pd.DataFrame({"prompt": ["a", "b"], "answer": [1.0, 2.5]}).to_parquet(data)
    spec = build_task(dataset_config(data))
    assert [row.answer for row in (*spec.training, *spec.evaluation)] == ["1", "2.5"]


def test_parquet_chat_messages(tmp_path: Path) -> None:
    data = tmp_path / "data.parquet"
    pd.DataFrame({"prompt": [[{"role": "user", "content": "2+2="}]] * 2, "answer": [4, 4]}).to_parquet(data)
    task = build_task(dataset_config(data)).bind(Characters(has_chat_template=True))
    assert first_prompt(task).text == "<user>2+2=<assistant>"


def test_a_folder_goes_through_the_datasets_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "folder"
    folder.mkdir()
    jsonl(folder / "train.jsonl", ROWS)
    jsonl(folder / "test.jsonl", ROWS[:1])
    spec = build_task(dataset_config(folder))
    assert len(spec.training) == 36 and spec.training[0].where == f"{folder}[train] row 1"
    assert len(build_task(dataset_config(folder, split="test")).training) == 1
    with pytest.raises(TaskError, match="cannot load the dataset .* split 'dev': Unknown split"):
        build_task(dataset_config(folder, split="dev"))
    with pytest.raises(TaskError, match="cannot load the dataset 'no/such:main', split 'train': "):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        build_task(dataset_config("no/such:main"))


@pytest.mark.parametrize(("rows", "eval_prompts", "held_out"), [(1, 128, 0), (2, 128, 1), (19, 128, 1), (20, 128, 2), (40, 3, 3), (40, 128, 4)])
def test_the_last_rows_are_held_out(tmp_path: Path, rows: int, eval_prompts: int, held_out: int) -> None:
    task = read(jsonl(tmp_path / "data.jsonl", ROWS[:rows]), eval_prompts=eval_prompts)
    assert [p.text for p in task.held_out(eval_prompts)] == [row["prompt"] for row in ROWS[rows - held_out : rows]]
    drawn = {p.text for p in task.draw(np.random.default_rng(0), 500)}
    assert drawn == {row["prompt"] for row in ROWS[: rows - held_out]}


def test_an_epoch_has_every_training_row_once_and_the_next_is_shuffled_anew(tmp_path: Path) -> None:
    task, rng = read(jsonl(tmp_path / "data.jsonl", ROWS)), np.random.default_rng(0)
    first, second = ([p.text for n in (10, 20, 6) for p in task.draw(rng, n)] for _ in range(2))
    assert sorted(first) == sorted(second) == sorted(row["prompt"] for row in ROWS[:36])
    assert first != second and first != [row["prompt"] for row in ROWS[:36]]


def test_a_cursor_does_not_survive_other_data(tmp_path: Path) -> None:
    state = read(jsonl(tmp_path / "a.jsonl", ROWS)).state()
    read(jsonl(tmp_path / "b.jsonl", ROWS)).restore(json.loads(json.dumps(state)))  # the same rows from elsewhere are the same data
    with pytest.raises(TaskError, match="c.jsonl has changed since the checkpoint was written"):
        read(jsonl(tmp_path / "c.jsonl", ROWS[1:])).restore(state)


CHAT = Characters(has_chat_template=True)
MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}, {"role": "user", "content": "2+2="}]


def test_chat_templates(tmp_path: Path) -> None:
    data = jsonl(tmp_path / "data.jsonl", [{"prompt": "2+2=", "answer": "4"}])

    def text(encoder: Characters, **changes: object) -> str:
        return first_prompt(build_task(dataset_config(data, **changes)).bind(encoder)).text

    assert text(CHAT) == text(CHAT, chat_template="always") == "<user>2+2=<assistant>"
    assert text(CHAT, chat_template="never") == text(Characters()) == "2+2="
    assert text(CHAT, system_prompt="Be brief.") == "<system>Be brief.<user>2+2=<assistant>"
    with pytest.raises(TaskError, match="chat_template=always but the model's tokenizer has no chat template"):
        text(Characters(), chat_template="always")
    with pytest.raises(TaskError, match="system_prompt is set but the model's tokenizer has no chat template"):
        text(Characters(), system_prompt="Be brief.")
    with pytest.raises(TaskError, match="system_prompt is set but chat_template=never"):
        text(CHAT, system_prompt="Be brief.", chat_template="never")


def test_chat_messages_need_a_template_unless_there_is_only_one(tmp_path: Path) -> None:
    many = dataset_config(jsonl(tmp_path / "many.jsonl", [{"prompt": MESSAGES, "answer": "4"}]))
    assert first_prompt(build_task(many).bind(CHAT)).text == "<user>hi<assistant>ho<user>2+2=<assistant>"
    with pytest.raises(TaskError, match="the prompt of many.jsonl line 1 has 3 chat messages but the model's tokenizer has no chat template"):
        build_task(many).bind(Characters())
    assert first_prompt(one(tmp_path, {"prompt": MESSAGES[-1:], "answer": "4"})).text == "2+2="


def test_a_second_system_message_is_refused(tmp_path: Path) -> None:
    row = {"prompt": [{"role": "system", "content": "s"}, *MESSAGES], "answer": "4"}
    with pytest.raises(TaskError, match="data.jsonl line 1 brings its own system message and system_prompt is set too"):
        one(tmp_path, row, system_prompt="Be brief.")


@pytest.mark.parametrize(("encoder", "added"), [(Characters(), 0), (CHAT, len("<user><assistant>"))])
def test_a_prompt_longer_than_the_context_is_named_before_training(tmp_path: Path, encoder: Characters, added: int) -> None:
    rows = [*ROWS, {"prompt": "x" * 200, "answer": "1"}, *ROWS]
    spec = build_task(dataset_config(jsonl(tmp_path / "data.jsonl", rows), max_new_tokens=24))
    spec.bind(Characters(encoder.has_chat_template, context_limit=224 + added))
    with pytest.raises(TaskError) as raised:
        spec.bind(Characters(encoder.has_chat_template, context_limit=223 + added))
    assert str(raised.value).startswith(f"the prompt of data.jsonl line 41 has {200 + added} tokens, which with max_new_tokens=24 is more than the model's")
    assert str(raised.value).endswith("set max_new_tokens to at most 23")
    with pytest.raises(TaskError, match="shorten or remove that prompt"):
        spec.bind(Characters(encoder.has_chat_template, context_limit=150))


def test_what_the_tiny_model_learns_from(tmp_path: Path) -> None:
    spec = build_task(dataset_config(jsonl(tmp_path / "data.jsonl", [*ROWS, {"prompt": "é\n", "answer": "ß"}] * 2)))
    assert spec.alphabet() == "\n+0123456789=ßé"
    taught = {spec.warmup_example(np.random.default_rng(seed)) for seed in range(500)}
    assert taught <= {(row.text, row.answer) for row in spec.training}
    assert not taught & {(row.text, row.answer) for row in spec.evaluation} - {(row.text, row.answer) for row in spec.training}


def test_the_rewards_of_the_config_judge(tmp_path: Path) -> None:
    task = one(tmp_path, {"prompt": "2+2=", "answer": "4"}, rewards=["numeric", "exact=0.5"], overlong_buffer=8)
    reward = task.judge(first_prompt(task), completion("it is 4", length=20))
    assert reward.parts == {"numeric": 1.0, "exact": 0.0, "overlong": -0.5}
    assert reward.total == 0.5 and reward.correct is True

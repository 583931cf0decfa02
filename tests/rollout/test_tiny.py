import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from grpo_core.config import make_config
from grpo_core.errors import ModelError
from grpo_core.rollout.generate import Sampling, sample_groups
from grpo_core.rollout.policy import Policy, load_policy
from grpo_core.rollout.tiny import WAITING, WARMING_UP, character_tokenizer, load_tiny, warm_up
from grpo_core.tasks.build import build_task
from grpo_core.tasks.scoring import score
from tests.rollout.small_models import writer
from tests.tasks.plain import dataset_config, jsonl

ARITHMETIC = build_task(make_config({}))


def silent(phase: str, done: int, total: int) -> None:
    pass


def test_characters_are_tokens_and_unknown_ones_are_unk() -> None:
    tokenizer = character_tokenizer("+=01 \né")
    ids = tokenizer.encode("1 + é\n7=")
    assert tokenizer.convert_ids_to_tokens(ids) == ["1", " ", "+", " ", "é", "\n", "<unk>", "="]
    assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == "1 + é\n="
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id, len(tokenizer)) == (0, 1, 2, 10)


def test_the_warm_up_is_reproducible_and_leaves_global_random_state_alone() -> None:
    torch.manual_seed(5)
    before, before_numpy = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    reported: list[tuple[str, int, int]] = []
    first, _ = warm_up(ARITHMETIC, 3, lambda *now: reported.append(now))
    assert torch.equal(torch.random.get_rng_state(), before) and (np.random.get_state()[1] == before_numpy).all()
    assert reported == [(WARMING_UP, done, 3) for done in range(4)]
    torch.manual_seed(6)
    torch.set_num_threads(2)
    second, _ = warm_up(ARITHMETIC, 3, silent)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
    assert 200_000 < first.num_parameters() < 400_000 and not first.training


def test_the_cached_model_is_the_one_that_was_made(tmp_path: Path) -> None:
    made, _ = load_tiny(ARITHMETIC, 2, tmp_path, silent)
    reported: list[tuple[str, int, int]] = []
    loaded, tokenizer = load_tiny(ARITHMETIC, 2, tmp_path, lambda *now: reported.append(now))
    assert reported == []
    assert all(torch.equal(a, b) for a, b in zip(made.state_dict().values(), loaded.state_dict().values()))
    assert tokenizer.encode("9:") == character_tokenizer(ARITHMETIC.alphabet()).encode("9:")
    ids = torch.tensor([tokenizer.encode("1+2=")])
    assert torch.equal(made(ids).logits, loaded(ids).logits)


def test_everything_that_shapes_the_model_is_in_its_key(tmp_path: Path) -> None:
    rows = [{"prompt": "1+1=", "answer": "2"}, {"prompt": "2+1=", "answer": "3"}]
    swapped = [{"prompt": "1+1=", "answer": "3"}, {"prompt": "2+1=", "answer": "2"}]  # the same characters, other answers
    specs = [
        (ARITHMETIC, 1),
        (ARITHMETIC, 2),
        (build_task(dataset_config(jsonl(tmp_path / "a.jsonl", rows))), 1),
        (build_task(dataset_config(jsonl(tmp_path / "b.jsonl", swapped))), 1),
    ]
    for spec, steps in specs:
        load_tiny(spec, steps, tmp_path / "cache", silent)
    assert len(list((tmp_path / "cache").glob("tiny-*/config.json"))) == 4
    load_tiny(build_task(make_config({"seed": 9, "lr": 0.1})), 1, tmp_path / "cache", silent)
    load_tiny(build_task(dataset_config(jsonl(tmp_path / "copy.jsonl", rows))), 1, tmp_path / "cache", silent)
    assert len(list((tmp_path / "cache").glob("tiny-*/config.json"))) == 4


def test_a_damaged_cache_says_what_to_delete(tmp_path: Path) -> None:
    load_tiny(ARITHMETIC, 1, tmp_path, silent)
    [weights] = tmp_path.glob("tiny-*/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=f"the cached tiny model in {weights.parent} cannot be read .*delete that folder"):
        load_tiny(ARITHMETIC, 1, tmp_path, silent)


@pytest.fixture
def children() -> Iterator[Callable[[Path, int], subprocess.Popen]]:
    started: list[subprocess.Popen] = []

    def start(cache: Path, steps: int) -> subprocess.Popen:
        command = [sys.executable, "-m", "tests.rollout.warming", str(cache), str(steps)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]))
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.communicate()


def test_two_processes_at_once_warm_up_once(tmp_path: Path, children) -> None:
    first, second = (children(tmp_path, 10) for _ in range(2))
    spoken = [child.communicate(timeout=200)[0].splitlines() for child in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert sum(WARMING_UP in lines for lines in spoken) == 1
    assert spoken[0][-1] == spoken[1][-1] and spoken[0][-1].startswith("checksum ")
    assert len(list(tmp_path.glob("tiny-*/config.json"))) == 1 and not list(tmp_path.glob(".tiny-*"))


def test_the_second_waits_says_so_and_takes_over_when_the_first_is_killed(tmp_path: Path, children) -> None:
    first = children(tmp_path, 100_000)
    assert first.stdout.readline().strip() == WARMING_UP
    reported: list[tuple[str, int, int]] = []

    def watch(phase: str, done: int, total: int) -> None:
        reported.append((phase, done, total))
        if phase == WAITING:
            first.kill()
        else:
            raise InterruptedError  # it has taken over; no need to train 100 000 steps

    with pytest.raises(InterruptedError):
        load_tiny(ARITHMETIC, 100_000, tmp_path, watch)
    assert reported[0] == (WAITING, 0, 100_000) and reported[-1] == (WARMING_UP, 0, 100_000)


def test_leftovers_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    load_tiny(ARITHMETIC, 1, tmp_path, silent)
    [made] = tmp_path.glob("tiny-*/")
    leftover = tmp_path / f".{made.name}.left"
    made.rename(leftover)
    load_tiny(ARITHMETIC, 1, tmp_path, silent)
    assert made.is_dir() and not leftover.exists()


def held_out_accuracy(policy: Policy, task, n: int) -> float:
    groups = sample_groups(
        writer(policy.model, decode=policy.decode, eos_ids=policy.eos_ids, pad_id=policy.pad_id, context_limit=policy.context_limit),
        task.held_out(n), group_size=1, sampling=Sampling(max_new_tokens=24, temperature=0.0), seed=0,
    )
    return float(np.mean([scored.rewards[0].correct for scored in score(groups, task)]))


def test_tiny_learns_enough_of_a_dataset_to_start_from(tmp_path: Path) -> None:
    """Single characters to copy, in 60 steps: a fresh model gets about none of them."""
    rows = [{"prompt": f"say {c}: ", "answer": c} for c in "abcdefgh"] * 10
    config = dataset_config(jsonl(tmp_path / "data.jsonl", rows), warmup_steps=60)
    spec = build_task(config)
    policy = load_policy(config, spec, device="cpu", cache_dir=tmp_path / "cache", progress=silent)
    task = spec.bind(policy)
    assert held_out_accuracy(policy, task, 8) == 1.0
    assert policy.decode(task.held_out(1)[0].token_ids) == "say a: "
    assert policy.encode("Ω") == [policy.tokenizer.unk_token_id]

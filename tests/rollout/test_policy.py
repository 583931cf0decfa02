import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from grpo_core.config import make_config
from grpo_core.errors import ModelError, TaskError
from grpo_core.rollout.policy import LOADING, Policy, load_policy
from grpo_core.tasks.build import build_task
from tests.tasks.plain import dataset_config, jsonl

TEXT = "What is 12+30? The answer, naïve 日本語, is 42.\n"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPE = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=96)


def silent(phase: str, done: int, total: int) -> None:
    pass


def byte_level(*special: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=list(special), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer


def save_qwen2(folder: Path) -> Path:
    """A chat model: ChatML template, several end tokens, padding of its own, more embeddings than tokens."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level("<|endoftext|>", "<|im_start|>", "<|im_end|>"), pad_token="<|endoftext|>", eos_token="<|im_end|>", chat_template=CHATML
    )
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer) + 5, bos_token_id=None, eos_token_id=2, **SHAPE))
    model.generation_config.eos_token_id = [2, 0]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_llama(folder: Path) -> Path:
    """A base model as of SentencePiece: ▁ for spaces, a start token before every prompt, no padding, no template."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator([TEXT] * 2, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    LlamaForCausalLM(LlamaConfig(vocab_size=len(fast), bos_token_id=1, eos_token_id=2, attention_dropout=0.1, **SHAPE)).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("models")
    return {"qwen2": save_qwen2(root / "qwen2"), "llama": save_llama(root / "llama")}


def load(folder: Path | str, progress: Callable[[str, int, int], None] = silent, cache: Path = Path("unused"), **changes: object) -> Policy:
    config = make_config({"model": str(folder), **changes})
    return load_policy(config, build_task(config), device="cpu", cache_dir=cache, progress=progress)


def test_a_local_model_is_loaded_ready_to_train(folders: dict[str, Path]) -> None:
    reported: list[tuple[str, int, int]] = []
    policy = load(folders["llama"], lambda *now: reported.append(now))
    assert reported == [(LOADING, 0, 1), (LOADING, 1, 1)]
    assert not policy.model.training and policy.model.dtype == torch.float32 and policy.model.config._attn_implementation == "sdpa"
    assert all(p.requires_grad for p in policy.model.parameters())
    assert load(folders["llama"], dtype="bfloat16").model.dtype == torch.bfloat16


def test_the_ids_that_matter(folders: dict[str, Path]) -> None:
    qwen2, llama = load(folders["qwen2"]), load(folders["llama"])
    assert (qwen2.eos_ids, qwen2.pad_id) == ((2, 0), 0)
    assert qwen2.banned_ids == (), "its padding also ends a completion"
    assert (llama.eos_ids, llama.pad_id, llama.banned_ids) == ((2,), 2, ())
    assert qwen2.context_limit == llama.context_limit == 96


def test_padding_of_its_own_is_banned(folders: dict[str, Path], tmp_path: Path) -> None:
    tiny = load("tiny", cache=tmp_path, warmup_steps=0)
    assert (tiny.pad_id, tiny.eos_ids, tiny.banned_ids, tiny.context_limit) == (0, (1,), (0,), 4096)


def test_prompts_get_the_start_token_and_pieces_of_text_do_not(folders: dict[str, Path]) -> None:
    llama = load(folders["llama"])
    assert llama.encode_prompt("12+30")[0] == 1 and llama.encode_prompt("12+30")[1:] == llama.encode("12+30")
    assert 1 not in llama.encode("12+30")
    assert llama.decode([*llama.encode_prompt("is 42."), 2]) == "is 42."


def test_an_end_token_that_the_tokenizer_adds_is_taken_off(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "ends"
    shutil.copytree(folders["llama"], folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    tokenizer.save_pretrained(folder)
    policy = load(folder)
    assert policy.tokenizer.encode("42")[-1] == 2
    assert policy.encode_prompt("42") == [1, *policy.encode("42")]


def test_chat_prompts_are_the_template_and_nothing_more(folders: dict[str, Path]) -> None:
    text, ids = load(folders["qwen2"]).encode_chat([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "12+30?"}])
    assert text == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n12+30?<|im_end|>\n<|im_start|>assistant\n"
    assert (ids.count(1), ids.count(2)) == (3, 2)
    assert load(folders["qwen2"]).tokenizer.decode(ids) == text


def test_a_template_that_refuses_is_one_sentence(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["qwen2"], tmp_path / "m")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "m")
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    tokenizer.save_pretrained(tmp_path / "m")
    with pytest.raises(ModelError, match=r"chat template refuses the messages \['system'\]: System role not supported"):
        load(tmp_path / "m").encode_chat([{"role": "system", "content": "x"}])


def test_the_dataset_task_meets_a_real_template(folders: dict[str, Path], tmp_path: Path) -> None:
    data = jsonl(tmp_path / "d.jsonl", [{"prompt": "12+30?", "answer": 42}] * 3)
    spec = build_task(dataset_config(data, system_prompt="Be brief."))
    prompt = spec.bind(load(folders["qwen2"])).held_out(1)[0]
    assert prompt.text.endswith("<|im_start|>user\n12+30?<|im_end|>\n<|im_start|>assistant\n") and prompt.token_ids[0] == 1
    with pytest.raises(TaskError, match="system_prompt is set but the model's tokenizer has no chat template"):
        spec.bind(load(folders["llama"]))
    with pytest.raises(TaskError, match="model's context of 96 tokens"):
        build_task(dataset_config(data, max_new_tokens=90)).bind(load(folders["qwen2"]))


def test_pieces_have_the_text_of_every_id(folders: dict[str, Path]) -> None:
    qwen2, llama = load(folders["qwen2"]), load(folders["llama"])
    for policy in (qwen2, llama):
        pieces = policy.pieces()
        assert len(pieces) == policy.vocabulary_size
        ids = policy.encode("What is 12+30?")
        assert "".join(pieces[i] for i in ids).strip() == "What is 12+30?"
    assert qwen2.pieces()[:3] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert qwen2.pieces()[-5:] == [f"<{i}>" for i in range(len(qwen2.tokenizer), len(qwen2.tokenizer) + 5)]
    spaced = {llama.pieces()[i]: token for token, i in llama.tokenizer.get_vocab().items() if token.startswith("▁")}
    assert len(spaced) > 1 and all(piece == token.replace("▁", " ") for piece, token in spaced.items()), "the space in front belongs to the piece"


def test_lora_trains_adapters_only_and_starts_as_the_base(folders: dict[str, Path], tmp_path: Path) -> None:
    base, state = load(folders["qwen2"]), torch.random.get_rng_state()
    first, again, other = (load(folders["qwen2"], lora_rank=4, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    trainable = {name: p for name, p in first.model.named_parameters() if p.requires_grad}
    assert trainable and all("lora_" in name for name in trainable)
    assert {name.split(".")[-4] for name in trainable} == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    ids = torch.tensor([first.encode("What is 12+30?")])
    assert torch.equal(first.model(ids).logits, base.model(ids).logits)
    parameters = [dict(p.model.named_parameters()) for p in (again, other)]
    assert all(torch.equal(p, parameters[0][name]) for name, p in trainable.items())
    assert any(not torch.equal(p, parameters[1][name]) for name, p in trainable.items())
    assert (first.eos_ids, first.context_limit, first.vocabulary_size) == (base.eos_ids, 96, base.vocabulary_size)
    assert load("tiny", cache=tmp_path, warmup_steps=0, lora_rank=2).model.get_nb_trainable_parameters()[0] > 0


def copy_without(source: Path, target: Path, *names: str) -> Path:
    shutil.copytree(source, target)
    for name in names:
        (target / name).unlink()
    return target


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (["config.json"], "has no config.json, so it is not a saved model"),
        (["model.safetensors"], "cannot load the weights of model .*no file named model.safetensors"),
        (["tokenizer.json", "tokenizer_config.json"], r"cannot load the tokenizer of model .*\(are its tokenizer files there\?\)"),
    ],
)
def test_a_folder_that_lacks_a_file(folders: dict[str, Path], tmp_path: Path, missing: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message) as raised:
        load(copy_without(folders["llama"], tmp_path / "m", *missing))
    assert "\n" not in str(raised.value)


def test_damaged_or_incomplete_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy_without(folders["llama"], tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if k != "model.norm.weight"}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack model.norm.weight \(1 missing in all\), which would start at random"):
        load(folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot load the weights of model"):
        load(folder)


def test_a_tokenizer_with_more_tokens_than_the_model_has_embeddings(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy_without(folders["llama"], tmp_path / "m")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    size = len(tokenizer)
    tokenizer.add_tokens(["<think>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=f"has embeddings for {size} tokens but its tokenizer knows {size + 1}; resize"):
        load(folder)


def test_a_model_without_an_end(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy_without(folders["llama"], tmp_path / "m", "generation_config.json")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    config = LlamaConfig.from_pretrained(folder)
    config.eos_token_id = None
    config.save_pretrained(folder)
    with pytest.raises(ModelError, match="has no end-of-sequence token"):
        load(folder)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("/nowhere/model", "/nowhere/model is not a folder with a saved model"),
        ("./nowhere", "./nowhere is not a folder with a saved model"),
        ("a/b/c", "cannot load model 'a/b/c': Repo id must be in the form"),
        ("no-such-user/no-such-model", "cannot load model 'no-such-user/no-such-model': .*; use tiny, another Hugging Face id, or a local path"),
    ],
)
def test_models_that_are_not_there(monkeypatch: pytest.MonkeyPatch, model: str, message: str) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # as without a network, and without its retries
    with pytest.raises(ModelError, match=message) as raised:
        load(model)
    assert "\n" not in str(raised.value)

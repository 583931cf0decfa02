"""Lines of a completion, token by token, under tokenizers of whole characters, of bytes, and of bytes only where characters are unknown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from grpo_core.rollout.tiny import character_tokenizer
from grpo_core.trainer.answers import line_items
from tests.tasks.plain import completion


def byte_level() -> Tokenizer:
    """As of Qwen: every token is some bytes, which need not be whole characters."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    learn = trainers.BpeTrainer(vocab_size=290, special_tokens=["<eos>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(["naïve 日本語\n42\n\n"] * 3, learn)
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As of Llama 2: one token per byte for what is in no other; a run of them that is no text loses its line breaks."""
    pieces = ["<unk>", "<eos>", "▁", "a", "▁naïve", "日", "42\n", "\n\n", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE({piece: n for n, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(["<unk>", "<eos>"])
    return tokenizer


TOKENIZERS = {"characters": character_tokenizer("\n 0123456789>").backend_tokenizer, "bytes": byte_level(), "fallback": byte_fallback()}


def lines(tokenizer: Tokenizer, ids: Sequence[int]) -> tuple[list[int], int]:
    """What line_items says of a completion cut at the limit, and how many tokens it decoded for that."""
    decoded = []

    def decode(some: Sequence[int]) -> str:
        decoded.append(len(some))
        return tokenizer.decode([int(one) for one in some], skip_special_tokens=True)

    made = completion("", finish="length", length=len(ids))
    made.token_ids[:] = ids
    return line_items(made, decode).tolist(), sum(decoded)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_they_are_counted_as_in_the_text_so_far(name, data):
    """Of any tokens, whole characters or not, a few kinds of them most of the time."""
    tokenizer = TOKENIZERS[name]
    size = tokenizer.get_vocab_size()
    breaks = [n for n in range(size) if "\n" in tokenizer.decode([n])]
    cut = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in "本é".encode()] if name == "fallback" else tokenizer.encode("日本é").ids or [0]
    ids = data.draw(st.lists(st.one_of(st.sampled_from([0, 1, *breaks]), st.sampled_from(cut), st.integers(0, size - 1)), max_size=14))
    wanted = [tokenizer.decode(ids[:t], skip_special_tokens=True).count("\n") for t in range(len(ids))]
    assert lines(tokenizer, ids)[0] == wanted


def test_a_break_among_byte_tokens_counts_only_while_they_are_text():
    """\\n, then 本 in three bytes: after its first two the four bytes are no text, and the break is lost until the third."""
    tokenizer = TOKENIZERS["fallback"]
    ids = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in "\n本\n".encode()]
    assert lines(tokenizer, [*ids, 3])[0] == [0, 1, 0, 0, 1, 2]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_every_token_of_a_list_is_decoded_once(name):
    tokenizer = TOKENIZERS[name]
    ids = [token for piece in ("42", "\n", "42", "\n") for token in tokenizer.encode(piece, add_special_tokens=False).ids] * 50
    items, decoded = lines(tokenizer, ids)
    assert items[-1] > 98 and decoded <= len(set(ids)) and np.all(np.diff(items) >= 0)

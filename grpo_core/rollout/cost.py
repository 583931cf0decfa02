"""When computing a prompt once for its whole group pays: floating-point work with and without sharing, by count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedModel

from grpo_core.rollout.batch import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """FLOPs of a model's layers in a forward pass: per token, and per half pair of a query and a key (causal attention over L tokens is L² of these)."""

    per_token: float
    per_half_pair: float


def flop_ratio(groups: Sequence[tuple[int, Sequence[int]]], work: Work) -> float:
    """FLOPs with every prompt computed once over FLOPs with it repeated for every completion; `groups` are (prompt, completions) in tokens.

    For one group of G completions of C tokens on a prompt of P (Prefix Grouper, arXiv:2506.05433): tokens (P + G·C) / (G·(P + C)), attention
    (P² + G·C·(2P + C)) / (G·(P + C)²). Both are 1 for a group of one, and approach 1/G as the prompt outgrows the completions. The head is left
    out: either way it reads one hidden state per completion token. Raises ZeroDivisionError without a completion.
    """
    shared = repeated = 0.0
    for prompt, completions in groups:
        shared += prompt * work.per_token + prompt**2 * work.per_half_pair
        for completion in completions:
            shared += completion * work.per_token + completion * (2 * prompt + completion) * work.per_half_pair
            repeated += (prompt + completion) * work.per_token + (prompt + completion) ** 2 * work.per_half_pair
    return shared / repeated


def work_of(model: PreTrainedModel) -> Work:
    """Two FLOPs per weight of the layers and token; scores and weighted values, 2 · heads · head dimension per layer each, for a pair.

    Of a mixture of experts every expert is counted, which overstates the share of what is done per token.
    """
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    outside = {id(p) for module in (model.get_input_embeddings(), model.get_output_embeddings()) for p in module.parameters()}
    weights = sum(p.numel() for p in model.parameters() if p.dim() > 1 and id(p) not in outside)
    return Work(per_token=2.0 * weights, per_half_pair=2.0 * config.num_hidden_layers * width)


def groups_of(rows: Rows) -> list[tuple[int, list[int]]]:
    """(prompt, completions) in tokens that a forward reads: nothing is predicted from a completion's last token."""
    inputs_B = (rows.mask_BT.sum(1).long() - 1).tolist()
    groups = [(length, []) for length in rows.prompt_lengths_P.tolist()]
    for prompt, inputs in zip(rows.prompt_of_row_B.tolist(), inputs_B, strict=True):
        groups[prompt][1].append(inputs)
    return groups

"""Sampling: batched, one prefill per prompt, log-prob and entropy of every sampled token kept, finished rows dropped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from grpo_core.errors import ConfigError
from grpo_core.records import Completion, Group, Prompt
from grpo_core.rollout.batch import Rows, pad
from grpo_core.rollout.forward import Forward
from grpo_core.rollout.head import BANNED

COMPACT_EVERY = 4
"""Decoding steps between looks at which rows have finished; copying the cache costs about one step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to write: `temperature` 0 is greedy. `stop` strings end a completion and stay in its text."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    batch: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """What generation needs of a policy: its forward, how ids become text, the ids that end a text and those that are never sampled."""

    forward: Forward
    decode: Callable[[Sequence[int]], str]
    eos_ids: tuple[int, ...]
    pad_id: int
    banned: tuple[int, ...]
    context_limit: int | None
    device: torch.device


def sample_groups(writer: Writer, prompts: Sequence[Prompt], *, group_size: int, sampling: Sampling, seed: int) -> list[Group]:
    """`group_size` completions of every prompt. The same seed gives the same completions whatever the batch size.

    Raises ConfigError when a prompt and max_new_tokens do not fit the model's context.
    """
    _check_context(writer, prompts, sampling)
    generator = torch.Generator().manual_seed(seed)
    uniforms = torch.rand(len(prompts) * group_size, sampling.max_new_tokens, generator=generator, dtype=torch.float64)
    per_batch = max(1, sampling.batch // group_size)
    completions: list[Completion] = []
    # inference mode saves a tenth of the time, but a model's own modules may keep what they compute here and train with it
    with torch.inference_mode(writer.forward.name == "fused"), torch.no_grad():
        for start in range(0, len(prompts), per_batch):
            part = prompts[start : start + per_batch]
            draws = uniforms[start * group_size : (start + len(part)) * group_size].to(writer.device)
            completions += _decode_batch(writer, part, group_size, sampling, draws)
    return [
        Group(prompt=prompt, completions=tuple(completions[i * group_size : (i + 1) * group_size])) for i, prompt in enumerate(prompts)
    ]


def _check_context(writer: Writer, prompts: Sequence[Prompt], sampling: Sampling) -> None:
    longest = max(len(p.given_ids) for p in prompts)
    if writer.context_limit is not None and longest + sampling.max_new_tokens > writer.context_limit:
        raise ConfigError(
            f"a prompt of {longest} tokens and max_new_tokens={sampling.max_new_tokens} exceed the model's context of {writer.context_limit} tokens; "
            f"try max_new_tokens={max(1, writer.context_limit - longest)} or shorter prompts"
        )


def _decode_batch(writer: Writer, prompts: Sequence[Prompt], group_size: int, sampling: Sampling, draws_BT: Tensor) -> list[Completion]:
    rows = _prompt_rows(writer, prompts, group_size)
    room = sampling.max_new_tokens
    B, device = len(rows), writer.device
    ids_BT = torch.full((B, room), writer.pad_id, device=device)
    scores_BT3 = torch.zeros(B, room, 3, device=device)
    ended = torch.tensor(writer.eos_ids, device=device)
    stops = _StopStrings(writer, sampling.stop)
    done_B = torch.zeros(B, dtype=torch.bool, device=device)
    alive = torch.arange(B, device=device)
    logits, decoding = writer.forward.start(rows, room)
    for t in range(room):
        tokens, scores = _sample(logits, draws_BT[alive, t], sampling, writer.banned)
        ids_BT[alive, t], scores_BT3[alive, t] = tokens, scores
        done_B[alive] |= torch.isin(tokens, ended) | stops.hit(ids_BT, alive, t)
        if t + 1 == room:
            break
        if (t + 1) % COMPACT_EVERY == 0 or B <= COMPACT_EVERY:
            going = (~done_B[alive]).nonzero().squeeze(1)
            if len(going) == 0:
                break
            if len(going) < len(alive):
                alive, tokens = alive[going], tokens[going]
                decoding.keep(going)
        logits = decoding.step(tokens)
    return _cut(writer, ids_BT.cpu().numpy(), scores_BT3.cpu().numpy(), stops)


def _prompt_rows(writer: Writer, prompts: Sequence[Prompt], group_size: int) -> Rows:
    ids, mask = pad([p.given_ids for p in prompts], fill=writer.pad_id, dtype=np.int64)
    owner = torch.arange(len(prompts), device=writer.device).repeat_interleave(group_size)
    return Rows(
        prompt_ids_PL=torch.from_numpy(ids).to(writer.device),
        prompt_lengths_P=torch.from_numpy(mask.sum(1)).to(writer.device),
        prompt_of_row_B=owner,
        completion_ids_BT=torch.empty(len(owner), 0, dtype=torch.long, device=writer.device),
        mask_BT=torch.empty(len(owner), 0, device=writer.device),
    )


def _sample(logits_BV: Tensor, draws_B: Tensor, sampling: Sampling, banned: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Tokens (B,) by inverting the cumulative distribution at `draws_B`, and (B, 3): log-prob as sampled, log-prob untruncated, entropy."""
    z = logits_BV.float()
    if sampling.temperature not in (0.0, 1.0):
        z = z / sampling.temperature
    for token in banned:
        z[:, token] = BANNED
    logp_BV = z.log_softmax(-1)
    p = logp_BV.exp()
    entropy = -torch.linalg.vecdot(p, logp_BV)
    if sampling.temperature == 0.0:
        tokens, kept = z.argmax(-1), torch.ones_like(entropy)
    else:
        q = _nucleus(p, sampling.top_p) if sampling.top_p < 1.0 else p
        cumulative = q.double().cumsum(-1)
        total = cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, draws_B[:, None] * total, right=True).squeeze(1).clamp(max=z.shape[1] - 1)
        kept = total.squeeze(1).float() if sampling.top_p < 1.0 else torch.ones_like(entropy)
    logp = logp_BV.gather(1, tokens[:, None]).squeeze(1)
    return tokens, torch.stack((logp - kept.log(), logp, entropy), dim=1)


def _nucleus(p: Tensor, top_p: float) -> Tensor:
    """Probabilities with all but the smallest set of tokens reaching `top_p` set to 0; the token that crosses the line stays."""
    ordered, index = p.sort(dim=-1, descending=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    return p * torch.zeros_like(p).scatter(1, index, (~outside).to(p.dtype))


class _StopStrings:
    """Ends rows whose text contains a stop string; looks only at tokens that can complete one."""

    def __init__(self, writer: Writer, stop: tuple[str, ...]) -> None:
        self.writer, self.stop = writer, stop
        self.window = max((len(s) for s in stop), default=0) + 8

    def hit(self, ids_BT: Tensor, alive: Tensor, t: int) -> Tensor:
        if not self.stop:
            return torch.zeros(len(alive), dtype=torch.bool, device=ids_BT.device)
        tails = ids_BT[alive, max(0, t + 1 - self.window) : t + 1].tolist()
        return torch.tensor([self.ends(ids) for ids in tails], device=ids_BT.device)

    def ends(self, ids: Sequence[int]) -> bool:
        text = self.writer.decode(ids)
        return any(s in text for s in self.stop)


def _cut(writer: Writer, ids_BT: np.ndarray, scores_BT3: np.ndarray, stops: _StopStrings) -> list[Completion]:
    """Completions up to and including their end-of-sequence token or stop string."""
    completions = []
    for ids, scores in zip(ids_BT, scores_BT3, strict=True):
        length, finish = len(ids), "length"
        ends = np.isin(ids, writer.eos_ids).nonzero()[0]
        if len(ends):
            length, finish = int(ends[0]) + 1, "stop"
        if stops.stop:
            stopped = next((t + 1 for t in range(length) if stops.ends(ids[max(0, t + 1 - stops.window) : t + 1])), None)
            length, finish = (stopped, "stop_string") if stopped else (length, finish)
        written = np.ascontiguousarray(ids[:length], "i4")
        kept = scores[:length].astype("f4")
        completions.append(
            Completion(
                token_ids=written, text=writer.decode(written), finish=finish,
                logp_sampling=kept[:, 0].copy(), logp=kept[:, 1].copy(), entropy=kept[:, 2].copy(),
            )
        )
    return completions

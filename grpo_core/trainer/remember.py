"""After the updates: how far the policy has drifted on what it wrote to these prompts before, and what the run now remembers of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from grpo_core.records import POLICY, Completion, Group, Prompt
from grpo_core.rollout.batch import rows_of
from grpo_core.trainer.batch import TrainBatch, score_quietly
from grpo_core.trainer.collect import Judged
from grpo_core.trainer.state import TrainState


def remember(state: TrainState, judged: Sequence[Judged], batch: TrainBatch | None) -> tuple[Mapping[str, float], ...]:
    """Tell the tracker what came of the step's rollouts; returns what is now known of each group's prompt."""
    if state.memories.tracker is not None and batch is not None:
        _track(state, judged, batch)
    prompts = [j.scored.group.prompt for j in judged]
    return tuple({**state.sampler.of(prompt), **state.memories.of(prompt)} for prompt in prompts)


def _track(state: TrainState, judged: Sequence[Judged], batch: TrainBatch) -> None:
    """One more forward pass, over the previous completions of the step's prompts; replayed groups are no news."""
    tracker, logp = state.memories.tracker, batch.unpad(batch.policy_BT)
    kept = [j.scored for j in judged if j.kept]
    first_rows = np.cumsum([0, *(len(scored.rewards) for scored in kept)])
    news = [(scored, row) for scored, row in zip(kept, first_rows.tolist(), strict=False) if scored.group.completions[0].source == POLICY]
    earlier = {scored.group.prompt.hash: (scored.group.prompt, tracker.last(scored.group.prompt)) for scored, _ in news}
    drifts = _drifts(state, [(prompt, completion) for prompt, completion in earlier.values() if completion is not None])
    for scored, row in news:
        tracker.observe(
            scored.group.prompt,
            [bool(reward.correct) for reward in scored.rewards if not reward.failed],
            drift=drifts.get(scored.group.prompt.hash, 0.0),
            token_ids=scored.group.completions[0].token_ids,
            logp=logp[row],
        )


def _drifts(state: TrainState, written: Sequence[tuple[Prompt, Completion]]) -> dict[str, float]:
    """Mean |log-prob now − when written| over the tokens of each prompt's completion, in nats, by prompt hash."""
    if not written:
        return {}
    groups = [Group(prompt=prompt, completions=(completion,)) for prompt, completion in written]
    rows = rows_of(groups, pad_id=state.writer.pad_id, device=state.writer.device)
    now_BT = score_quietly(state, rows).cpu().numpy()
    return {
        prompt.hash: float(np.abs(now_T[: len(completion.logp)] - completion.logp).mean())
        for (prompt, completion), now_T in zip(written, now_BT, strict=True)
    }

"""The laboratory against the trainer itself, on steps that were trained, stored and read again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from grpo_core.algorithms.loss import loss_batch, policy_loss
from grpo_core.lab.batch import RecordedBatch, recorded_batch
from grpo_core.lab.push import push_of
from grpo_core.methods import METHODS
from grpo_core.trace.tables import to_tables
from grpo_core.trainer.batch import train_batch
from grpo_core.trainer.clock import Clock
from grpo_core.trainer.collect import collect_groups
from grpo_core.trainer.step import run_step
from storage.queries import lab
from storage.reader import Store
from storage.segments import RunWriter
from tests.trainer.small_runs import small_config, small_state

SETTINGS = dict(prompts_per_step=6, max_sampling_rounds=3)


def stored(root: Path, cache: Path, **changes) -> RecordedBatch:
    """One step, through the recorder's tables and the store."""
    folder = root / "runs" / "one"
    state = small_state(cache, **SETTINGS, **changes)
    with RunWriter.open(folder, precision="exact") as writer:
        writer.append_step(to_tables(run_step(state, 0)))
    (folder / "config.json").write_text("{}")
    store = Store(root)
    rollouts, more = lab.rollouts_of_step(store, "one", 0), dict(part_weights=lab.part_weights(store, "one", 0), step=0)
    return recorded_batch(rollouts, first_entropy=lab.first_entropy(store, "one"), max_length=state.config.max_new_tokens, **more)


def trained(cache: Path, **changes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Advantages of all loss tokens, their weights W and −∂loss/∂logp in the first update of the same step, as the trainer has them."""
    state = small_state(cache, **SETTINGS, **changes)
    batch = train_batch(state, [j.scored for j in collect_groups(state, 0, Clock()) if j.kept], 0)
    names = ("before_BT", "advantages_BT", "mask_BT", "ref_BT", "multipliers_BT", "answer_BT", "group_B", "segment_BT")
    inputs = {name: getattr(batch, name) for name in names}
    logp_BT = batch.before_BT.clone().requires_grad_()
    policy_loss(state.objective, logp_BT, loss_batch(state.objective, max_length=state.config.max_new_tokens, **inputs)).total.backward()
    mine = batch.rows.mask_BT > 0
    weights_BT = torch.ones_like(batch.mask_BT) if batch.multipliers_BT is None else batch.multipliers_BT
    return batch.advantages_BT[mine].numpy(), weights_BT[mine].numpy(), -logp_BT.grad[mine].numpy()


@pytest.fixture(scope="module")
def batch(tmp_path_factory, model_cache) -> RecordedBatch:
    return stored(tmp_path_factory.mktemp("store"), model_cache, epochs=2)


TWO_PARTS = dict(method="gdpo", overlong_buffer=10)
RELEASED = dict(method="gtpo", gtpo_code="released", gtpo_entropy_coef=0.01)


@pytest.mark.parametrize("changes", [*(dict(method=m) for m in sorted(set(METHODS) - {"nthr"})), dict(kl_coef=0.1), RELEASED, TWO_PARTS], ids=str)
def test_the_first_update_is_the_trainers_own(tmp_path, model_cache, changes):
    batch = stored(tmp_path, model_cache, **changes)
    push = push_of(batch, small_config(**SETTINGS, **changes), after=False)
    advantages, weights, pushed = trained(model_cache, **changes)
    in_loss = push.taken_R[batch.rollout_N]
    assert push.missing == ""
    of_tokens = np.bincount(batch.rollout_N[in_loss], weights=advantages, minlength=len(batch.length_R)) / batch.length_R
    np.testing.assert_allclose(push.advantage_R, of_tokens, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(push.advantage_N[in_loss], advantages, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(push.weight_N[in_loss], weights, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(push.push_N[in_loss], pushed, rtol=1e-4, atol=1e-8)
    assert not any(values_N[~in_loss].any() for values_N in (push.advantage_N, push.weight_N, push.push_N)) and (len(pushed) == in_loss.sum())


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"spo"}))
def test_every_method_weighs_what_another_recorded(batch, method):
    before, after = (push_of(batch, small_config(method=method), after=after) for after in (False, True))
    if METHODS[method].needs_greedy:
        assert "greedy completion" in before.missing and np.isnan(after.push_N).all()
        return
    if METHODS[method].needs_hidden_states:
        assert "hidden states" in before.missing and np.isnan(after.push_N).all()
        return
    if any(p.name == "gepo" for p in METHODS[method].penalties):
        assert "reference model" in before.missing and np.isnan(after.push_N).all()
        return
    if METHODS[method].spread == "ranks":
        assert "ranked lists" in before.missing and np.isnan(after.push_N).all()
        return
    if METHODS[method].sampler == "demonstrated":
        assert "worked answers" in before.missing and np.isnan(after.push_N).all()
        return
    assert before.missing == after.missing == ""
    assert np.isfinite(before.push_N).all() and np.isfinite(after.push_N).all()
    assert METHODS[method].clip is None or not before.clipped_N.any()  # at the first update every ratio is 1
    if METHODS[method].credit[0].base == "mean" and METHODS[method].surrogate not in ("reinforce", "log_prob"):  # else it is the same under any policy
        assert np.abs(before.push_N).sum() > 0 and not np.array_equal(before.push_N, after.push_N)


def test_a_token_held_at_a_bound_gets_no_push(batch):
    tight = push_of(batch, small_config(clip_low=1e-4, clip_high=1e-4), after=True)
    moved_N, advantage_N = np.nan_to_num(batch.delta_N), tight.advantage_R[batch.rollout_N]
    held = ((moved_N > 1e-3) & (advantage_N > 0)) | ((moved_N < -1e-3) & (advantage_N < 0))
    assert held.any() and (tight.clipped_N[held] != 0).all() and not tight.push_N[held].any()


def test_sampling_again_leaves_tied_groups_out(batch):
    first = batch.group_R == batch.group_R[0]
    tied = replace(batch, reward_R=np.where(first, 1.0, batch.reward_R), verdict_R=np.where(first, 1.0, batch.verdict_R))
    grpo, dapo = (push_of(tied, small_config(method=m), after=False) for m in ("grpo", "dapo"))
    assert grpo.taken_R[first].all() and not dapo.taken_R[first].any()
    assert not grpo.push_N[first[batch.rollout_N]].any()


def test_a_failed_reward_takes_no_part(batch):
    failed = replace(batch, reward_R=np.where(np.arange(len(batch.reward_R)) == 2, np.nan, batch.reward_R))
    for method in ("grpo", "psr", "gtpo"):
        push = push_of(failed, small_config(method=method), after=False)
        assert push.advantage_R[2] == 0 and not push.push_N[batch.rollout_N == 2].any() and np.isfinite(push.push_N).all()


@pytest.mark.parametrize(
    ("changes", "lost", "says"),
    [
        (dict(method="gtpo"), "entropy_N", "entropies"),
        (dict(kl_coef=0.1), "ref_N", "reference model"),
        (dict(), "delta_N", "after the step's updates"),
        (dict(method="psr"), "verdict_R", "correct"),
        (dict(method="spo"), "tracked_R", "tracked"),
        (dict(method="dapo"), "reward_R", "different rewards"),
        (dict(method="disco"), "verdict_R", "correct"),
    ],
)
def test_what_was_not_recorded_is_said_and_never_guessed(batch, changes, lost, says):
    nothing = np.zeros_like(batch.reward_R) if lost in ("verdict_R", "reward_R") else np.full_like(getattr(batch, lost), np.nan)
    push = push_of(replace(batch, **{lost: nothing}), small_config(**changes), after=lost == "delta_N")
    assert says in push.missing and all(np.isnan(values).all() for values in (push.advantage_R, push.advantage_N, push.weight_N, push.push_N))


def test_the_record_of_someone_else_will_do():
    """Only text, rewards and log-probs, as an adapter may leave them; GRPO by hand: A = ±0.7071 with n−1, N over two completions."""
    nan = np.full(5, np.nan)
    batch = RecordedBatch(
        group_R=np.array([0, 0]), index_R=np.array([0, 1]), reward_R=np.array([1.0, 0.0]), verdict_R=np.zeros(2), length_R=np.array([2, 3]),
        first_round_R=np.ones(2, "?"), surplus_R=np.zeros(2, "?"), token_ids_N=np.arange(5), logp_N=np.full(5, -1.0), delta_N=nan, ref_N=nan, entropy_N=nan,
        first_entropy=float("nan"), max_length=8,
    )  # fmt: skip
    push = push_of(batch, small_config(), after=False)
    np.testing.assert_allclose(push.advantage_R, [0.7071, -0.7071], atol=1e-4)
    np.testing.assert_allclose(push.push_N, [0.7071 / 4] * 2 + [-0.7071 / 6] * 3, atol=1e-4)
    assert push.missing == ""


def test_reward_parts_are_taken_as_recorded_or_not_at_all(tmp_path, model_cache):
    batch = stored(tmp_path, model_cache, **TWO_PARTS)
    assert set(batch.parts) == {"exact", "overlong"} and batch.part_weights == {"exact": 1.0, "overlong": 1.0}
    config = small_config(**TWO_PARTS)
    assert push_of(batch, config, after=False).missing == ""
    edited = replace(batch, reward_R=batch.reward_R + np.arange(len(batch.reward_R)))
    assert "add up to the rewards" in push_of(edited, config, after=False).missing
    assert "no weights were" in push_of(replace(batch, part_weights={}), config, after=False).missing
    single = replace(batch, parts={}, part_weights={})  # a reward without parts is its own single part, edited or not
    typed = replace(single, reward_R=np.arange(len(batch.reward_R), dtype="f8"))
    assert push_of(single, config, after=False).missing == "" and not push_of(typed, config, after=False).missing
    np.testing.assert_allclose(push_of(typed, config, after=False).advantage_R[:4].sum(), 0, atol=1e-6)


def test_what_is_drawn_at_random_needs_the_steps_number(batch):
    config = small_config(method="red_drop")
    assert "number of the step" in push_of(replace(batch, step=None), config, after=False).missing
    drawn = [push_of(batch, small_config(method="red_drop", seed=seed), after=False).advantage_R.tolist() for seed in (0, 0, 1, 2, 3, 4)]
    assert drawn[0] == drawn[1] and any(one != drawn[0] for one in drawn)


def test_a_replayed_token_is_weighed_against_the_policy_that_wrote_it(batch):
    """Its ratio at the first update is how far the policy has moved since, e^0.5 here: past the clip for A > 0, so no push; a stronger one for A < 0."""
    moved = replace(batch, old_N=batch.logp_N - 0.5)
    fresh, old = (push_of(one, small_config(), after=False) for one in (batch, moved))
    advantage_N = fresh.advantage_R[batch.rollout_N]
    assert not old.push_N[advantage_N > 0].any() and (old.clipped_N[advantage_N > 0] == 1).all()
    np.testing.assert_allclose(old.push_N[advantage_N < 0], fresh.push_N[advantage_N < 0] * np.exp(0.5), rtol=1e-6)


def test_the_first_update_behind_hints_is_the_trainers_own(tmp_path, model_cache):
    """Step 1 of a run that hints, through the store: its own groups for its own method, those without a hint for another."""
    changes = SETTINGS | dict(method="reg_grpo", hint_strength=2.0)
    config, state, other = small_config(**changes), small_state(model_cache, **changes), small_state(model_cache, **changes)
    with RunWriter.open(tmp_path / "runs" / "one", precision="exact") as writer:
        for step in range(2):
            writer.append_step(to_tables(run_step(state, step)))
    (tmp_path / "runs" / "one" / "config.json").write_text("{}")
    store = Store(tmp_path)
    recorded = recorded_batch(lab.rollouts_of_step(store, "one", 1), first_entropy=lab.first_entropy(store, "one"), max_length=config.max_new_tokens)
    run_step(other, 0)
    judged = collect_groups(other, 1, Clock())
    batch = train_batch(other, [j.scored for j in judged if j.kept], 1)
    inputs = {name: getattr(batch, name) for name in ("before_BT", "advantages_BT", "mask_BT", "ref_BT", "multipliers_BT", "answer_BT", "group_B")}
    logp_BT = batch.before_BT.clone().requires_grad_()
    policy_loss(other.objective, logp_BT, loss_batch(other.objective, max_length=config.max_new_tokens, **inputs)).total.backward()
    push = push_of(recorded, config, after=False)
    assert push.missing == "" and any(j.scored.group.prompt.hint_ids for j in judged) and np.abs(push.push_N).sum() > 0
    np.testing.assert_allclose(push.push_N[push.taken_R[recorded.rollout_N]], -logp_BT.grad[batch.rows.mask_BT > 0].numpy(), rtol=1e-4, atol=1e-7)
    plain_G = [not j.scored.group.prompt.hint_ids for j in judged]
    for method in ("grpo", "dapo"):
        taken_R = push_of(recorded, small_config(method=method), after=False).taken_R
        assert not taken_R[recorded.hinted_R].any() and (method == "dapo" or taken_R.sum() == 4 * sum(plain_G))


def test_the_first_update_on_replays_is_the_trainers_own(tmp_path, model_cache):
    """Step 2 of a run with a replay buffer, through the store: the same pushes as the trainer's, replays among them."""
    changes = dict(replay_size=8, replay_share=0.5)
    writer_of, config = tmp_path / "runs" / "one", small_config(**SETTINGS, **changes)
    state = small_state(model_cache, **SETTINGS, **changes)
    with RunWriter.open(writer_of, precision="exact") as writer:
        for step in range(3):
            if step == 2:
                other = small_state(model_cache, **SETTINGS, **changes)
                for earlier in range(2):
                    run_step(other, earlier)
            writer.append_step(to_tables(run_step(state, step)))
    (writer_of / "config.json").write_text("{}")
    store = Store(tmp_path)
    recorded = recorded_batch(lab.rollouts_of_step(store, "one", 2), first_entropy=lab.first_entropy(store, "one"), max_length=config.max_new_tokens)
    assert (~np.isnan(recorded.old_N)).any()
    trained_batch = train_batch(other, [j.scored for j in collect_groups(other, 2, Clock()) if j.kept], 2)
    logp_BT = trained_batch.policy_BT.clone().requires_grad_()
    inputs = {name: getattr(trained_batch, name) for name in ("before_BT", "advantages_BT", "mask_BT", "ref_BT", "multipliers_BT", "answer_BT")}
    policy_loss(other.objective, logp_BT, loss_batch(other.objective, max_length=config.max_new_tokens, **inputs)).total.backward()
    push = push_of(recorded, config, after=False)
    np.testing.assert_allclose(push.push_N, -logp_BT.grad[trained_batch.rows.mask_BT > 0].numpy(), rtol=1e-4, atol=1e-7)

"""Forks: real parents, real checkpoints, real processes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from grpo_core.cli import main
from grpo_core.config import make_config
from grpo_core.errors import ConfigError, LaunchError
from grpo_core.launch.folder import RunFolder
from grpo_core.launch.fork import Fork, create_fork, fork_run, forked_config, read_fork
from grpo_core.launch.start import create_run, resume_run
from grpo_core.launch.status import RunStatus, log_tail, run_status
from grpo_core.running import run_training
from storage.catalog import Catalog
from storage.queries.steps import step_series
from storage.reader import Store
from tests.collapsing import recorded
from tests.launch.conftest import wait_for
from tests.trainer.small_runs import small_config

pytestmark = pytest.mark.xdist_group("processes")

SAME = ["step", "reward_mean", "entropy", "logp_mean", "delta_correct", "grad_norm_max", "kl_step", "length_mean"]


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> RunFolder:
    """A run of six steps with checkpoints at 2, 4 and 6."""
    root = tmp_path_factory.mktemp("parent")
    (root / "cache").symlink_to(model_cache)
    folder = create_run(root, small_config(name="parent", steps=6, checkpoint_every=2, checkpoints_kept=5, device="cpu"))
    assert run_training(folder, folder.read_config(), bar=False) == 0
    return folder


def over(store_root: Path, run_id: str) -> RunStatus:
    status = wait_for(RunFolder.open(store_root, run_id), lambda status: not status.alive, patience_s=200)
    assert status.state == "finished", log_tail(store_root, run_id)
    return status


def series(folder: RunFolder, run_id: str, first: int) -> pd.DataFrame:
    frame = step_series(Store(folder.store_root), run_id)
    return frame[[c for c in SAME if c in frame]].query("step >= @first").reset_index(drop=True)


def test_a_fork_without_changes_repeats_its_parent_bit_for_bit_and_goes_on(parent: RunFolder) -> None:
    store_root = parent.store_root
    run_id = fork_run(store_root, parent.run_id, step=2, changes={}, nonce="one press")
    assert fork_run(store_root, parent.run_id, step=2, changes={}, nonce="one press") == run_id
    folder, status = RunFolder.open(store_root, run_id), over(store_root, run_id)
    assert (status.step, status.attempt, status.missing_steps) == (6, 0, 0)
    pd.testing.assert_frame_equal(series(parent, run_id, 0), series(parent, parent.run_id, 2), check_exact=True)
    assert read_fork(folder) == Fork(parent.run_id, 2, {}) and read_fork(parent) is None
    launches = Catalog(store_root).launches(run_id)["command"].tolist()
    assert launches == [f"python -m grpo_core fork {parent.run_id} --step 2"]
    assert folder.read_config().name == "parent, from step 2"

    resume_run(store_root, run_id, steps=8)  # a fork is a run like any other
    assert over(store_root, run_id).step == 8
    frame = step_series(Store(store_root), run_id)
    assert frame["step"].tolist() == [2, 3, 4, 5, 6, 7] and frame["missing_before"].sum() == 0


def test_changed_settings_take_effect_and_are_said(parent: RunFolder, capsys) -> None:
    store = ["--store", str(parent.store_root)]
    assert main(["fork", "parent", "--step", "4", "--lr", "1e-5", "--method", "grpo_llds", "--llds-coef", "0.2", "--steps", "5", "--name", "calm", *store]) == 0
    folder = RunFolder.open(parent.store_root, max(p.name for p in parent.path.parent.iterdir() if read_fork(RunFolder(parent.store_root, p.name))))
    fork = read_fork(folder)
    assert fork == Fork(parent.run_id, 4, {"name": "calm", "steps": 5, "method": "grpo_llds", "llds_coef": 0.2, "lr": 1e-5})
    updates = Store(parent.store_root).frame(folder.run_id, "select step, lr from updates order by step, update")
    assert updates["step"].tolist() == [4, 4] and updates["lr"].tolist() == [1e-5, 1e-5]
    capsys.readouterr()
    assert main(["runs", *store]) == 0
    assert f"step 4 of {parent.run_id}" in next(line for line in capsys.readouterr().out.splitlines() if line.startswith(folder.run_id))
    assert main(["show", "calm", *store]) == 0
    shown = capsys.readouterr().out
    assert f"parent            {parent.run_id}\nparent_step       4\n" in shown
    assert f"python -m grpo_core fork {parent.run_id} --step 4 --name calm --steps 5 --method grpo_llds --llds-coef 0.2 --lr 1e-05" in shown
    assert main(["show", "parent", *store]) == 0
    assert "parent_step" not in capsys.readouterr().out


def test_a_fork_keeps_its_checkpoint_when_the_parent_is_deleted(parent: RunFolder, store_root: Path) -> None:
    folder = create_fork(parent.store_root, parent.run_id, step=4, changes={"steps": 9})
    assert folder.checkpoint_steps() == [4] and run_status(parent.store_root, folder.run_id).step == 4
    weights = [f.checkpoints / "step-00000004" / "model.safetensors" for f in (parent, folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    weights[1].unlink()
    assert weights[0].exists()


def test_what_cannot_be_is_refused_in_one_sentence_and_leaves_nothing(parent: RunFolder) -> None:
    before = sorted(parent.path.parent.iterdir())
    refuse = [
        (2, {"model": "gpt2"}, ConfigError, "so model cannot change; start a new run with `train`"),
        (2, {"lora_rank": 4, "task": "dataset", "data": "x.jsonl"}, ConfigError, "lora_rank, task, data cannot change"),
        (2, {"steps": 2}, ConfigError, "steps=2 leaves nothing to do after step 2"),
        (2, {"lr": 7}, ConfigError, "lr: "),
        (3, {}, LaunchError, "has no checkpoint at step 3; it has some at 2, 4, 6, and step 0 starts again"),
    ]
    for step, changes, error, sentence in refuse:
        with pytest.raises(error, match=sentence):
            create_fork(parent.store_root, parent.run_id, step=step, changes=changes)
    assert sorted(parent.path.parent.iterdir()) == before


def test_knobs_that_a_new_method_does_not_read_are_left_behind() -> None:
    config = forked_config(make_config({"method": "grpo_llds", "llds_coef": 3.0, "clip_high": 0.4}), 0, {"method": "dapo"})
    assert (config.method, config.llds_coef, config.clip_high) == ("dapo", None, 0.4)  # dapo reads clip_high
    with pytest.raises(ConfigError, match="llds_coef is set but method dapo does not read it"):
        forked_config(make_config({}), 0, {"method": "dapo", "llds_coef": 0.2})


def test_the_proposal_is_the_default_and_a_run_without_trouble_has_none(store_root: Path, model_cache: Path, capsys) -> None:
    sick = recorded(store_root, model_cache)
    assert main(["fork", sick.run_id, "--steps", "1", "--as-proposed"]) == 0  # no checkpoint is from before, so it starts again
    run_id = next(run_id for run_id in Store(store_root).run_ids() if run_id != sick.run_id)
    fork = read_fork(RunFolder.open(store_root, run_id))
    assert (fork.parent, fork.step) == (sick.run_id, 0)
    assert fork.changes["steps"] == 1 and fork.changes["method"] == "grpo_llds" and fork.changes["epochs"] == 2
    capsys.readouterr()
    assert main(["fork", run_id]) == 1
    assert f"there is no change to propose for run {run_id}" in capsys.readouterr().err
    assert main(["fork", sick.run_id, "--lr", "1e-4"]) == 1
    assert "has no checkpoint to go on from; --step 0 starts it again" in capsys.readouterr().err

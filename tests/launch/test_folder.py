from __future__ import annotations

import re
from pathlib import Path

import pytest

from grpo_core.config import make_config
from grpo_core.errors import ConfigError, LaunchError
from grpo_core.launch.folder import RunFolder, read_json, replace_file
from storage.errors import RunNotFound


def test_a_new_run_holds_a_config_that_reproduces_it(store_root: Path) -> None:
    config = make_config({"method": "dapo", "lr": 3e-4, "stop": ["a", "-b"], "name": "an ä name"})
    folder = RunFolder.create(store_root, config)
    assert re.fullmatch(r"\d{8}-\d{6}-dapo-arithmetic-[0-9a-f]{8}", folder.run_id)
    assert RunFolder.open(store_root, folder.run_id).read_config() == config


@pytest.mark.parametrize("run_id", ["", "..", "../up", "a/b", ".hidden", "a\nb", "nul\0", "x" * 300])
def test_no_id_leaves_the_store(store_root: Path, run_id: str) -> None:
    with pytest.raises(RunNotFound, match="cannot be a run id"):
        RunFolder.open(store_root, run_id)


def test_an_unknown_run_is_named(store_root: Path) -> None:
    with pytest.raises(RunNotFound, match="no run 'nobody'"):
        RunFolder.open(store_root, "nobody")


def test_a_damaged_config_is_a_sentence(store_root: Path) -> None:
    folder = RunFolder.create(store_root, make_config({}))
    folder.config.write_text('{"steps": "many"}')
    with pytest.raises(ConfigError, match="steps"):
        folder.read_config()


def test_a_store_that_cannot_be_written_is_a_sentence(store_root: Path) -> None:
    (store_root / "runs").touch()
    with pytest.raises(LaunchError, match="cannot make a run folder in .*store: .*; mend that, or choose another folder with --store"):
        RunFolder.create(store_root, make_config({}))


def test_replacing_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "word.json"
    replace_file(path, '{"a": 1}')
    replace_file(path, '{"a": 2}', durable=True)
    assert read_json(path) == {"a": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["word.json"]


@pytest.mark.parametrize("content", ["", "{", "[1]", "\udcff"])
def test_damaged_json_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "word.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert read_json(path) is None
    assert read_json(tmp_path / "missing.json") is None


def test_checkpoints_count_only_when_whole(store_root: Path) -> None:
    folder = RunFolder.create(store_root, make_config({}))
    assert not folder.has_checkpoint()
    draft, whole = folder.checkpoints / ".step-00000009.77", folder.checkpoints / "step-00000009"
    draft.mkdir(parents=True)
    (draft / "trainer.pt").touch()
    assert not folder.has_checkpoint()
    draft.rename(whole)
    assert folder.has_checkpoint()

"""Trainers on several machines write to one place with one catalogue, and another machine reads them; here a machine is processes with a home of their own."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import storage.queries
from grpo_core.launch.status import run_status
from storage.layout import read_layout
from storage.reader import Store
from tests.servers import S3, Postgres

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[1]
QUICK = ["--warmup-steps", "3", "--prompts-per-step", "2", "--group-size", "2", "--max-new-tokens", "8", "--eval-every", "0", "--device", "cpu"]
PATIENCE_S = 300.0


@dataclass
class Machine:
    """A home, a folder for temporary files and a store that no other has."""

    home: Path
    environment: dict[str, str]
    children: list[subprocess.Popen] = field(default_factory=list)

    @property
    def store(self) -> Path:
        return self.home / "runs here"

    def start(self, *arguments: str, **more: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "grpo_core", *arguments]
        environment = {**self.environment, **more}
        child = subprocess.Popen(command, cwd=self.home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
        self.children.append(child)
        return child

    def say(self, *arguments: str, **more: str) -> str:
        child = self.start(*arguments, **more)
        said, complaint = child.communicate(timeout=PATIENCE_S)
        assert child.returncode == 0, complaint
        return said

    def the_run(self, child: subprocess.Popen) -> str:
        wait(lambda: child.poll() is not None or Store(self.store).run_ids(), "a run begins")
        return Store(self.store).run_ids()[-1]


@pytest.fixture
def machine(tmp_path: Path, model_cache: Path, s3: S3) -> Iterator[Callable[..., Machine]]:
    made: list[Machine] = []

    def make(name: str, **more: str) -> Machine:
        home = tmp_path / name
        (home / "tmp").mkdir(parents=True)
        (home / "runs here").mkdir()
        (home / "runs here" / "cache").symlink_to(model_cache)
        foreign = {key: value for key, value in os.environ.items() if not key.startswith(("GROUPSCOPE_", "XDG_"))}
        own = {"HOME": str(home), "TMPDIR": str(home / "tmp"), "GROUPSCOPE_STORE": str(home / "runs here"), "PYTHONPATH": str(ROOT)}
        made.append(Machine(home, {**foreign, **own, **more}))
        return made[-1]

    yield make
    for one in made:
        for child in one.children:
            if child.poll() is None:
                child.kill()
            child.communicate()


def wait(reached: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not reached():
        assert time.monotonic() < deadline, f"{what} within {patience_s:.0f} s"
        time.sleep(0.1)


def status_of(machine: Machine, run_id: str):
    return run_status(machine.store, run_id)


def answers(store: Store, run_id: str) -> dict[str, object]:
    """What every function of storage.queries says of a run, with its last step, first group and first prompt."""
    last = store.last_step(run_id)
    given = {"step": last, "group_index": 0, "prompt_hash": prompt_hash(store, run_id), "figure": "length", "lowest": False, "token_id": 0}
    said = {}
    for module in pkgutil.iter_modules(storage.queries.__path__):
        if module.name in ("export", "examples"):
            continue
        for name, function in vars(importlib.import_module(f"storage.queries.{module.name}")).items():
            if inspect.isfunction(function) and function.__module__.endswith(f".{module.name}") and not name.startswith("_") and name != "run_size":
                found = list(inspect.signature(function).parameters.values())
                if [p.name for p in found[:2]] != ["store", "run_id"]:
                    continue
                parameters = found[2:]
                assert {p.name for p in parameters if p.default is p.empty} <= given.keys(), name
                said[f"{module.name}.{name}"] = function(store, run_id, **{p.name: given[p.name] for p in parameters if p.name in given})
    return said


def prompt_hash(store: Store, run_id: str) -> str:
    return store.frame(run_id, "select min(prompt_hash) as first from groups")["first"].iloc[0]


def assert_same_answers(here: Store, there: Store, run_id: str) -> None:
    ours, theirs = answers(here, run_id), answers(there, run_id)
    assert len(ours) > 20 and ours.keys() == theirs.keys()
    for name, said in ours.items():
        if isinstance(said, pd.DataFrame):
            pd.testing.assert_frame_equal(said, theirs[name], obj=name)
        else:
            np.testing.assert_equal(theirs[name], said, err_msg=name)


def test_two_trainers_one_bucket_one_catalogue_and_a_reader_elsewhere(machine, s3: S3, postgres: Postgres, tmp_path: Path, monkeypatch) -> None:
    url, catalogue = f"{s3.make_bucket('two-trainers')}/team", postgres.url()
    shared = {"GROUPSCOPE_MIRROR": url, "GROUPSCOPE_CATALOG": catalogue}
    one, two = machine("one", **shared), machine("two", **shared)
    reader = machine("reader", GROUPSCOPE_STORE=url, GROUPSCOPE_CATALOG=catalogue)
    training = {m.home.name: m.start("train", *QUICK, "--steps", "60") for m in (one, two)}
    monkeypatch.setenv("GROUPSCOPE_CACHE", str(tmp_path / "cache here"))

    there, seen = Store(url), []
    while any(child.poll() is None for child in training.values()):
        for run_id in there.run_ids():
            steps = there.frame(run_id, "select step, count(*) as n from rollouts group by step order by step")
            assert steps["n"].tolist() == [4] * len(steps), "a step that is seen is whole"
            seen.append((run_id, len(steps)))
        time.sleep(0.3)
    assert any(0 < count < 60 for _, count in seen), "it was read while it trained"

    runs = json.loads(reader.say("runs", "--json"))
    ids = {m.home.name: Store(m.store).run_ids() for m in (one, two)}
    assert sorted(row["run_id"] for row in runs) == sorted(ids["one"] + ids["two"])
    assert [(row["state"], row["step"], bool(row["name"])) for row in runs] == [("finished", 60, True)] * 2, "the name is in the catalogue only"
    for m in (one, two):
        [run_id] = ids[m.home.name]
        assert_same_answers(Store(m.store), there, run_id)
        assert "mirrored to " + url in (m.store / "runs" / run_id / "log.txt").read_text()
    both = ["--run", ids["one"][0], "--run", ids["two"][0]]
    assert reader.say("sql", *both, "--csv", "select count(*) as n, count(distinct run_id) as runs from rollouts").splitlines()[1] == "480,2"
    refused = reader.start("train", *QUICK)
    _, complaint = refused.communicate(timeout=PATIENCE_S)
    assert refused.returncode != 0 and complaint.startswith(f"error: runs in {url} are only read from here")
    assert not list((reader.home / "runs here").glob("runs/*"))


def test_a_place_that_is_away_costs_nothing_but_its_copy(machine, s3: S3, tmp_path: Path, monkeypatch) -> None:
    url = f"{s3.make_bucket('away-for-a-while')}/team"
    trainer = machine("trainer", GROUPSCOPE_MIRROR=url)
    child = trainer.start("train", *QUICK, "--steps", "2000")
    run_id = trainer.the_run(child)
    monkeypatch.setenv("GROUPSCOPE_CACHE", str(tmp_path / "cache here"))
    there = Store(url)
    wait(lambda: there.run_ids() and (there.last_step(run_id) or 0) >= 3, "steps are there")
    s3.away("refuses")
    try:
        wait(lambda: "not mirrored to" in status_of(trainer, run_id).message, "the trouble is told")
        before = status_of(trainer, run_id)
        assert before.state == "running"
        wait(lambda: status_of(trainer, run_id).step > before.step + 5, "training goes on")
        missed = status_of(trainer, run_id).step
    finally:
        s3.back()
    wait(lambda: (there.last_step(run_id) or 0) >= missed, "what was missed is there")
    wait(lambda: not status_of(trainer, run_id).message, "the trouble is over")

    os.killpg(child.pid, signal.SIGKILL)  # the trainer and what shares its group; the process that mirrors goes on to the end
    child.wait()
    assert status_of(trainer, run_id).state == "lost"
    run_dir = trainer.store / "runs" / run_id
    last = read_layout(run_dir).last_step
    wait(lambda: there.last_step(run_id) == last, "the last steps of a killed trainer arrive")
    assert_same_answers(Store(trainer.store), there, run_id)
    log = (run_dir / "log.txt").read_text()
    assert log.count("not mirrored: ") == 1 and log.count("mirroring works again") == 1

    said = trainer.say("mirror", run_id)
    assert f"in {url} already" in said or said.startswith("mirrored: ")

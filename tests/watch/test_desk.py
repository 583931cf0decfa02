"""What the desk says about a run that is recorded already, and which checkpoints stay while it is in trouble."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from grpo_core.beside import PROJECT_ROOT
from grpo_core.config import make_config
from grpo_core.launch.folder import RunFolder
from grpo_core.watch.desk import Desk
from grpo_core.watch.reading import recorded_history
from grpo_core.watch.watcher import Watcher
from storage.catalog import Catalog
from storage.reader import Store
from tests.collapsing import STEPS, recorded


def desk_of(folder: RunFolder, said: list[str], **changes: object) -> Desk:
    return Desk(folder, folder.read_config().with_changes(**changes), say=said.append)


def test_an_alarm_is_raised_once_recorded_and_stops_the_run_only_if_asked(store_root: Path, model_cache: Path) -> None:
    folder, said = recorded(store_root, model_cache), []
    history = recorded_history(Store(store_root), folder.run_id)
    quiet, strict = desk_of(folder, said), desk_of(folder, [], on_collapse="stop")
    assert quiet.diagnose(history.until(0)).level in ("not available", "healthy", "watch") and not said
    first, second = quiet.diagnose(history), quiet.diagnose(history)
    assert (first.level, first.stop, second.stop) == ("collapsed", False, False)
    assert len(said) == 1 and said[0] == f"alert after step {STEPS - 1}: {first.sentence}"
    [alert] = Catalog(store_root).alerts(folder.run_id).to_dict("records")
    assert (alert["step"], alert["level"], alert["cause"], alert["sentence"]) == (STEPS - 1, "collapsed", "displacement", first.sentence)
    assert alert["link"] == f"/diagnosis?run={folder.run_id}&step={STEPS - 1}"
    assert first.onsets and min(first.onsets) <= 6
    assert strict.diagnose(history).stop and not strict.diagnose(history).stop

    recovered = quiet.diagnose(history.until(0))
    if recovered.level != "not available":
        assert len(said) == 2 and Catalog(store_root).alerts()["level"].tolist()[0] == recovered.level


def test_what_a_resumed_run_knew_before_raises_no_alarm_again(store_root: Path, model_cache: Path) -> None:
    folder, said = recorded(store_root, model_cache), []
    desk = desk_of(folder, said, on_collapse="stop")
    desk.take_up(STEPS)
    assert not desk.diagnose(recorded_history(Store(store_root), folder.run_id)).stop and not said
    assert Catalog(store_root).alerts().empty


def heard(watcher: Watcher, step: int, *onsets: int) -> None:
    watcher._hear({"step": step, "onsets": list(onsets), "sentence": "", "stop": False})


def test_the_checkpoint_from_before_each_trouble_stays_and_so_do_those_not_judged_yet(store_root: Path) -> None:
    watcher = Watcher(RunFolder.create(store_root, make_config({})), make_config({}))
    there = [50, 100, 150, 200, 250]
    assert watcher.needed(there) == set(there)  # nothing is known yet
    heard(watcher, 249)
    assert watcher.needed(there) == {250}  # trouble that begins with step 250 would want it
    heard(watcher, 220)
    assert watcher.needed(there) == {200, 250}
    heard(watcher, 249, 99, 130)
    assert watcher.needed(there) == {50, 100, 250}
    heard(watcher, 249, 100, 30)
    assert watcher.needed(there) == {100, 250}  # there is none from before step 30
    watcher.close()
    assert watcher.needed(there) == {100}


def test_without_a_diagnosis_nothing_is_held_back(store_root: Path) -> None:
    folder = RunFolder.create(store_root, make_config({}))
    for changes in ({"diagnose_every": 0}, {"record": "off"}):
        watcher = Watcher(folder, make_config(changes))
        watcher.step_done(100)
        assert watcher.needed([50, 100]) == set() and watcher._desk is None
    unused = Watcher(folder, make_config({}))
    unused.close()
    assert unused.needed([1, 2, 3]) == set()


def test_lines_told_by_several_threads_stay_whole() -> None:
    script = (
        "import sys, threading\nfrom grpo_core.watch.desk import _tell\nsys.setswitchinterval(1e-6)\n"
        "def tell(): [_tell({'log': 'x' * 50}) for _ in range(300)]\n"
        "threads = [threading.Thread(target=tell) for _ in range(4)]\n[t.start() for t in threads]\n[t.join() for t in threads]"
    )
    told = subprocess.run([sys.executable, "-c", script], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=120)
    assert told.stderr == "" and [json.loads(line) for line in told.stdout.splitlines()] == [{"log": "x" * 50}] * 1200

"""The process beside a training run that diagnoses what the run records, raises alerts, and says when to stop.

It reads the store like any other reader and is a process of its own, so that a diagnosis of half a second takes none of the
trainer's. Its stdin ends when the trainer does; on stdout it says one JSON object per line, which watcher.py reads.

    python -m grpo_core.watch.desk STORE RUN FIRST_STEP
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlencode

from grpo_core.beside import NICE
from grpo_core.config import RunConfig
from grpo_core.diagnosis.history import History
from grpo_core.diagnosis.levels import Level
from grpo_core.diagnosis.report import Report
from grpo_core.errors import GroupscopeError
from grpo_core.launch.folder import RunFolder, catalog_place
from grpo_core.watch.reading import recorded_history, report_on
from grpo_core.watch.webhook import TIMEOUT_S, post
from storage.catalog import Catalog
from storage.errors import StoreError
from storage.reader import Store

LOOK_S = 0.5
REST = 3.0
"""After a diagnosis it rests this many times as long as that took, so that a run of 10,000 steps does not cost a core."""

_telling = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A level that was reached, or left again: what the catalogue and the webhook get. `link` is a path of the app."""

    run_id: str
    step: int
    level: str
    cause: str
    sentence: str
    link: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the trainer is told after each diagnosis. `onsets` are the steps at which the present troubles began, each sign by itself."""

    step: int
    level: str
    sentence: str
    onsets: tuple[int, ...]
    stop: bool


class Desk:
    """Diagnoses a run again and again, and remembers what it has said. `say` takes sentences for the run's log."""

    def __init__(self, folder: RunFolder, config: RunConfig, *, say: Callable[[str], None]) -> None:
        self._folder, self._config, self._say = folder, config, say
        self._store = Store(folder.store_root)
        self._reached = Level.HEALTHY  # the alarm that people know of
        self._posts: list[threading.Thread] = []

    def take_up(self, first_step: int) -> None:
        """What an earlier attempt recorded before `first_step` is known already and raises no alert."""
        before = recorded_history(self._store, self._folder.run_id).until(first_step - 1)
        if len(before):
            self._reached = _alarm(report_on(self._store, self._folder.run_id, before), Level.HEALTHY)

    def diagnose(self, history: History) -> Verdict:
        """Diagnose what is recorded, raising an alert where the alarm has risen or fallen."""
        report = report_on(self._store, self._folder.run_id, history)
        alarm = _alarm(report, self._reached)
        risen, changed, self._reached = alarm > self._reached, alarm != self._reached, alarm
        if changed:
            self._raise(report)
        onsets = {s.since_step for s in report.signals if s.since_step is not None} | {report.since_step} - {None}
        return Verdict(
            step=report.step,
            level=report.level.word,
            sentence=report.sentence,
            onsets=tuple(sorted(onsets)),
            stop=risen and self._config.on_collapse != "alert",
        )

    def _raise(self, report: Report) -> None:
        run_id = self._folder.run_id
        alert = Alert(
            run_id=run_id,
            step=report.step,
            level=report.level.word,
            cause=report.causes[0].name if report.causes else "",
            sentence=report.sentence,
            link=f"/diagnosis?{urlencode({'run': run_id, 'step': report.step})}",
            at=time.time(),
        )
        self._say(f"alert after step {alert.step}: {alert.sentence}")
        try:
            Catalog(catalog_place(self._folder.store_root)).record_alert(**asdict(alert))
        except StoreError as error:
            self._say(f"the alert is not in the catalogue: {error}")
        if self._config.webhook:
            content = {"run_name": self._config.title, "remedy": report.remedy.sentence if report.remedy else "", **asdict(alert)}
            self._posts.append(threading.Thread(target=self._post, args=(content,), daemon=True, name="webhook"))
            self._posts[-1].start()

    def _post(self, content: dict[str, object]) -> None:
        if failure := post(self._config.webhook, content):
            self._say(failure)

    def close(self) -> None:
        """Wait until the webhook has been told everything, or has let its time pass."""
        deadline = time.monotonic() + TIMEOUT_S
        for thread in self._posts:
            thread.join(max(0.0, deadline - time.monotonic()))


def _alarm(report: Report, before: Level) -> Level:
    """Unhealthy, collapsed, or healthy for everything below; what cannot be told changes nothing."""
    if report.level == Level.NOT_AVAILABLE:
        return before
    return report.level if report.alarming else Level.HEALTHY


def main(store_root: str, run_id: str, first_step: str) -> None:
    """Watch until the trainer closes our stdin, then diagnose what is left and end."""
    os.nice(NICE)
    folder = RunFolder.open(Path(store_root), run_id)
    config = folder.read_config()
    desk = Desk(folder, config, say=lambda sentence: _tell({"log": sentence}))
    desk.take_up(int(first_step))
    trainer, trainer_there = os.getppid(), True
    store, diagnosed, pause_s = Store(folder.store_root), int(first_step) - 1, 0.0
    while trainer_there:
        ended = select.select([sys.stdin], [], [], max(LOOK_S, pause_s))[0]
        trainer_there = not ended and os.getppid() == trainer  # what the trainer's reward functions started may hold our stdin open
        began = time.monotonic()
        try:
            diagnosed = _look(desk, store, run_id, diagnosed, config.diagnose_every if trainer_there else 1)
        except (GroupscopeError, StoreError) as error:
            _tell({"log": f"not diagnosed: {error}"})
        pause_s = REST * (time.monotonic() - began)
    desk.close()


def _look(desk: Desk, store: Store, run_id: str, diagnosed: int, every: int) -> int:
    """Diagnose the run if it has recorded `every` steps more; returns the newest step that has been diagnosed."""
    last = store.last_step(run_id)
    if last is None or last < diagnosed + every:
        return diagnosed
    if len(history := recorded_history(store, run_id)):
        _tell(asdict(desk.diagnose(history)))
    return last


def _tell(content: dict[str, object]) -> None:
    """One line, whole: the webhook's thread tells things too, and two lines run into each other would end the watcher's hearing.

    A trainer that was killed hears nothing; what is recorded and posted of its end does not depend on that.
    """
    with _telling:
        try:
            print(json.dumps(content), flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The trainer's side of the diagnosis desk: starts it beside the run, hears its verdicts, and lets it go at the end.

Nothing here waits for the desk while the run trains, and nothing that happens to the desk ends or slows the run.
"""

from __future__ import annotations

import json
import logging
import subprocess
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from grpo_core.beside import start_beside
from grpo_core.config import RunConfig
from grpo_core.launch.folder import RunFolder

PATIENCE_S = 20.0
"""How long the end of a run waits for the last diagnosis and its alerts."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Heard:
    """The newest verdict: the step it was reached after, and the steps at which the present troubles began."""

    step: int
    onsets: tuple[int, ...]


class Watcher:
    """Has one run diagnosed while it trains. `stop` is why the loop is to stop, in one sentence; empty while it is not."""

    def __init__(self, folder: RunFolder, config: RunConfig) -> None:
        self._folder, self._every = folder, config.diagnose_every
        self._watching = config.record == "full" and config.diagnose_every > 0
        self._first_step = 0
        self._desk: subprocess.Popen | None = None
        self._listener: threading.Thread | None = None
        self._heard: Heard | None = None
        self.stop = ""

    def begin(self, first_step: int) -> None:
        """The step loop starts, at this step; what was recorded before is known and raises no alert."""
        self._first_step = first_step

    def step_done(self, steps_done: int) -> None:
        """Start the desk once there is something to diagnose: a run of a few steps needs none."""
        if self._watching and self._desk is None and steps_done >= self._first_step + self._every:
            self._open()

    def needed(self, checkpoints: Iterable[int]) -> set[int]:
        """Which of the checkpoints (by steps done) a fork may want: for each present trouble the newest from before it began.

        Steps that are not diagnosed yet may hold the beginning of one, so checkpoints that such a trouble would need stay too.
        """
        there, heard = sorted(checkpoints), self._heard
        if heard is None:
            return set(there) if self._watching else set()
        unjudged = {c for c in there if c > heard.step} if self._watching else set()
        onsets = (*heard.onsets, heard.step + 1) if self._watching else heard.onsets
        return unjudged.union(*([c for c in there if c <= onset][-1:] for onset in onsets))

    def close(self, patience_s: float = PATIENCE_S) -> None:
        """Let the desk diagnose what is left and tell its alerts, for at most this long."""
        self._watching = False
        if self._desk is None:
            return
        self._desk.stdin.close()
        try:
            self._desk.wait(patience_s)
        except subprocess.TimeoutExpired:
            log.warning("the last diagnosis took over %.0f s and is given up", patience_s)
            self._desk.kill()
        self._listener.join(1.0)

    def _open(self) -> None:
        run = str(self._folder.store_root), self._folder.run_id, str(self._first_step)
        try:
            with self._folder.log.open("ab") as errors:
                self._desk = start_beside("grpo_core.watch.desk", *run, text=True, errors=errors)
        except OSError as error:
            self._watching = False
            log.warning("this run is not diagnosed while it trains: %s", error)
            return
        self._listener = threading.Thread(target=self._listen, args=(self._desk,), daemon=True, name="watcher")
        self._listener.start()

    def _listen(self, desk: subprocess.Popen) -> None:
        try:
            for line in desk.stdout:
                self._hear(json.loads(line))
        finally:
            if self._watching:
                self._watching = False
                log.warning("the diagnosis beside this run has ended before the run; the lines above may say why")

    def _hear(self, said: dict) -> None:
        if "log" in said:
            log.info("%s", said["log"])
            return
        self._heard = Heard(said["step"], tuple(said["onsets"]))
        self.stop = self.stop or (said["sentence"] if said["stop"] else "")

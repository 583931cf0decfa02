"""Training as a process: the one place that wires task, trainer, recorder and run folder together.

Torch and the recorder are imported inside, so that whoever only needs the names here starts at once.
"""

from __future__ import annotations

import errno
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from grpo_core.config import RunConfig
from grpo_core.errors import GroupscopeError, TrainingStopped
from storage.errors import StoreError

if TYPE_CHECKING:
    from tqdm import tqdm

    from grpo_core.launch.folder import RunFolder
    from grpo_core.launch.status import Heartbeat
    from grpo_core.launch.stop import StopRequests
    from grpo_core.records import StepTrace
    from grpo_core.trace.recorder import Recorder
    from grpo_core.trainer.loop import Start

OK, FAILED, BAD_INPUT, UNHEALTHY = 0, 1, 2, 3
"""Exit codes: done, the run failed or is in no state for it, bad input, the run that was diagnosed is unhealthy or collapsed."""
FLUSH_PATIENCE_S = 60.0
INTERRUPTED_PATIENCE_S = 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: finished, stopped or failed, the exit code, and one sentence."""

    state: str
    exit_code: int
    sentence: str


def run_training(folder: RunFolder, config: RunConfig, *, bar: bool) -> int:
    """Train on a prepared folder, record it, and leave a truthful status whatever happens; returns the exit code."""
    from grpo_core.launch.status import Heartbeat
    from grpo_core.launch.stop import StopRequests
    from grpo_core.watch.mirroring import Mirroring

    heartbeat = Heartbeat(folder)
    requests = StopRequests(folder)
    mirroring = Mirroring(folder)
    with logging_to(folder.log):
        progress = Progress(heartbeat, config.steps, bar=bar)
        try:
            ending = _train_and_record(folder, config, heartbeat, requests, progress)
        except TrainingStopped:
            ending = Ending("stopped", OK, f"Stopped {progress.amid}; steps finished before that: {heartbeat.step_count}.")
        except KeyboardInterrupt:
            ending = Ending("stopped", FAILED, f"Stopped {progress.amid}; steps finished before that: {heartbeat.step_count}.")
        except (GroupscopeError, StoreError) as error:
            ending = Ending("failed", BAD_INPUT, str(error))
        except BaseException as error:  # SystemExit too: a reward function is user code
            logger.exception("the run failed")
            ending = Ending("failed", FAILED, _failure(error, folder))
        requests.ending = True
        progress.close()
        heartbeat.finish(ending.state, ending.exit_code, ending.sentence)
        logger.info("%s: %s", ending.state, ending.sentence)
        mirroring.close()
    if bar:
        click.echo(f"error: {ending.sentence}" if ending.state == "failed" else ending.sentence, err=True)
    return ending.exit_code


def _failure(error: BaseException, folder: RunFolder) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"the disk that holds {folder.path} is full; free some space, then: python -m grpo_core resume {folder.run_id}"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]} (details in {folder.log})"


def _train_and_record(folder: RunFolder, config: RunConfig, heartbeat: Heartbeat, requests: StopRequests, progress: Progress) -> Ending:
    from grpo_core.launch.folder import catalog_place
    from grpo_core.launch.fork import read_fork
    from grpo_core.launch.retain import retention_of
    from grpo_core.trace.recorder import Recorder
    from grpo_core.watch.watcher import Watcher

    progress.phase("loading")
    fork = read_fork(folder)
    first_step = fork.step if fork else 0
    recorder = Recorder(
        folder.path,
        precision=config.precision,
        queue_steps=config.queue_steps,
        first_step=first_step,
        retention=retention_of(config),
        catalog=catalog_place(folder.store_root),
    )
    watcher = Watcher(folder, config)
    try:
        from transformers.utils.logging import disable_progress_bar

        from grpo_core.trainer.checkpoint import prune
        from grpo_core.trainer.loop import train as train_loop

        def on_start(start: Start) -> None:
            disable_progress_bar()  # a download is worth a bar of its own, a checkpoint is not
            recorder.set_vocabulary(start.pieces)
            if heartbeat.attempt:
                recorder.resume_at(start.first_step)
            watcher.begin(start.first_step)
            progress.begin(start.first_step)

        def record(trace: StepTrace) -> None:
            if config.record == "full":
                recorder.record(trace)
            progress.step(trace, recorder)
            watcher.step_done(trace.step + 1)

        def on_phase(name: str, done: int, total: int) -> None:
            progress.phase(name, done, total)
            if not progress.training and requests.asked():  # from the first step on, the loop asks for itself
                raise TrainingStopped

        result = train_loop(
            config,
            cache_dir=folder.store_root / "cache",
            checkpoint_dir=folder.checkpoints,
            record=record,
            flush=lambda: recorder.flush(timeout_s=FLUSH_PATIENCE_S),
            on_start=on_start,
            progress=on_phase,
            should_stop=lambda: requests.asked() or bool(watcher.stop),
            save_when_stopped=lambda: requests.asked() or config.on_collapse != "stop",
            needed=watcher.needed,
            resume=heartbeat.attempt > 0 or first_step > 0,
            attempt=heartbeat.attempt,
        )
    except BaseException:
        requests.ending = True
        recorder.close(seal=False)
        watcher.close(INTERRUPTED_PATIENCE_S)
        raise
    requests.ending = True
    progress.phase("sealing")
    recorder.close(seal=True)
    watcher.close()
    prune(folder.checkpoints, config.checkpoints_kept, watcher.needed)
    trouble = f" Recording: {recorder.failure}" if recorder.failure else ""
    if result.stopped:
        saved = "checkpoint written" if result.saved else "no checkpoint written"
        verdict = f" on_collapse={config.on_collapse}: {watcher.stop}" if watcher.stop else ""
        return Ending("stopped", OK, f"Stopped after step {result.steps_done}; {saved}.{verdict}{trouble}")
    return Ending("finished", OK, f"All {result.steps_done} steps done.{trouble}")


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """What the modules log goes to the run's log.txt."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    handler.handleError = lambda record: None  # a full disk must not end a run for its log
    machine = logging.getLogger("grpo_core")
    machine.addHandler(handler)
    machine.setLevel(logging.INFO)
    try:
        yield
    finally:
        machine.removeHandler(handler)
        handler.close()


class Progress:
    """Tells the heartbeat, the log and, in the foreground, a progress bar how far the run is."""

    def __init__(self, heartbeat: Heartbeat, steps: int, *, bar: bool) -> None:
        self._heartbeat = heartbeat
        self._steps = steps
        self._show = bar
        self.busy_with = ""
        self._bar = self._new_bar("", 0)
        self.training = False
        self._pace_s: float | None = None
        self._last = time.monotonic()

    def phase(self, name: str, done: int = 0, total: int = 0) -> None:
        """Busy with something other than a step; before the first step it has a bar of its own."""
        self._heartbeat.phase(name, done, total)
        if self.training:
            self._bar.set_description_str(name)
            return
        if name != self.busy_with:
            self._bar.close()
            self.busy_with, self._bar = name, self._new_bar(name, total)
        self._bar.update(done - self._bar.n)

    @property
    def amid(self) -> str:
        """What an interruption interrupts."""
        return "in the middle of a step" if self.training else f"while {self.busy_with or 'starting'}"

    def begin(self, first_step: int) -> None:
        """The step loop starts, at this step."""
        self._heartbeat.step(first_step, None)
        self._bar.close()
        self._bar = self._new_bar("training", self._steps, first_step)
        self.training = True
        self._last = time.monotonic()

    def step(self, trace: StepTrace, recorder: Recorder) -> None:
        """A step is done and handed to the recorder."""
        now = time.monotonic()
        took_s, self._last = now - self._last, now
        self._pace_s = took_s if self._pace_s is None else 0.9 * self._pace_s + 0.1 * took_s
        self._heartbeat.step(trace.step + 1, self._pace_s, missing_steps=recorder.missing, message=recorder.failure or "")
        reward = mean_reward(trace)
        logger.info("step %d: reward %.3f, %.2f s", trace.step, reward, took_s)
        self._bar.set_description_str("training")
        self._bar.set_postfix_str(f"reward {reward:.3f}", refresh=False)
        self._bar.update(trace.step + 1 - self._bar.n)

    def close(self) -> None:
        self._bar.close()

    def _new_bar(self, name: str, total: int, initial: int = 0) -> tqdm:
        from tqdm import tqdm

        return tqdm(
            desc=name,
            total=total,
            initial=initial,
            unit="step",
            disable=not self._show,
            bar_format=None if total else "{desc}",
            leave=total > 0,
            mininterval=0.1 if sys.stderr.isatty() else 10.0,
            dynamic_ncols=True,
        )


def mean_reward(trace: StepTrace) -> float:
    """Mean total reward of the step's scored rollouts, NaN if none was scored."""
    totals = [r.reward.total for group in trace.groups for r in group.rollouts if not r.reward.failed]
    return sum(totals) / len(totals) if totals else float("nan")

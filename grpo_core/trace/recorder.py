"""The recorder: a bounded queue and one thread that leaves each step in the store. Training never waits for it, nor fails with it.

In a run of more than a few steps a process beside it encodes them and merges segments (encoder.py) while the thread waits for it.
Steps shorter than two seconds are written together, so a step is in the store about two seconds after it was handed over at the latest.

One of the two places that may fail softly, and there it leaves a mark: a step that cannot be kept is counted, the next
step that is kept says how many are missing before it, and `failure` says why.
"""

from __future__ import annotations

import atexit
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from grpo_core.records import StepTrace
from grpo_core.trace.encoder import StepEncoder
from grpo_core.trace.flat import flatten
from storage import segments
from storage.errors import StoreError
from storage.retention import Retention

COMPACT_EVERY = 64
EXIT_PATIENCE_S = 10.0
KEEP_ALL = Retention()
TOGETHER_S = 2.0
"""Steps within this time are written together: writing costs about 10 ms of CPU for one step as for ten, and pages look every two seconds."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Gathered:
    """A step that waits in the encoder to be written."""

    step: int
    missing_before: int


class Recorder:
    """Writes the steps of one run in the background. Its methods may be called from any thread.

    It holds at most `queue_steps` steps and writes those together that come within `together_s`. A fork's `first_step` is not 0.
    `retention` says which tokens of old steps the process beside thins, sparing those near alerts, which are in `catalog` (a store's folder or a URL).
    Opening the run is loud: raises RunLocked, NewerStore, DiskFull and the other errors of RunWriter.open.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        precision: str = "rounded",
        queue_steps: int = 64,
        together_s: float = TOGETHER_S,
        first_step: int = 0,
        retention: Retention = KEEP_ALL,
        catalog: Path | str | None = None,
    ) -> None:
        self._run_dir = Path(run_dir)
        self._writer = segments.RunWriter.open(self._run_dir, precision=precision)  # from here on the thread's alone
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(queue_steps)
        self._lock = threading.Lock()  # guards the next five
        self._failure: str | None = None
        self._missing = 0
        self._dropped = 0  # since the last step that was let in
        self._closed = False
        self._pieces: tuple[str, ...] | None = None
        self._together_s = together_s
        self._first_step = first_step
        self._retention, self._catalog = retention, catalog
        self._most_together = max(1, queue_steps // 2)  # what is gathered takes room in the queue
        self._encoder = StepEncoder(precision)  # this and the next four are the thread's alone
        self._gathered: list[_Gathered] = []
        self._unwritten = 0  # steps just before the next one that will be missing
        self._uncompacted = 0
        self._written_at = -math.inf
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()
        atexit.register(self._stop, EXIT_PATIENCE_S)

    @property
    def missing(self) -> int:
        """Steps handed over to this recorder that are not in the store, for lack of room in the queue or on the disk."""
        return self._missing

    @property
    def failure(self) -> str | None:
        """What could not be kept and why, in one sentence; None while recording works."""
        return self._failure

    def record(self, trace: StepTrace) -> None:
        """Hand over a step; its arrays must not change afterwards. Never waits and never raises: a full queue drops and counts it."""
        with self._lock:
            if self._closed or not self._room.acquire(blocking=False):
                self._dropped += 1
                self._missing += 1
                return
            self._jobs.put(partial(self._gather, trace, self._dropped))
            self._dropped = 0

    def set_vocabulary(self, pieces: Sequence[str]) -> None:
        """Keep the text of every token id; tried again with later steps if it cannot be written now."""
        with self._lock:
            self._pieces = tuple(pieces)
        self._jobs.put(self._write_vocabulary)

    def flush(self, timeout_s: float) -> bool:
        """Wait until every step handed over so far is in the store or counted as missing; False if that takes longer."""
        done = threading.Event()
        self._jobs.put(self._write)
        self._jobs.put(done.set)
        return not self._thread.is_alive() or done.wait(timeout_s)

    def resume_at(self, step: int) -> int:
        """Training goes on with `step` from an older checkpoint: set aside every recorded step from there on; says how many.

        Steps the checkpoint knows but the store does not are missing before `step`.
        Waits for it and raises what RunWriter.supersede raises: without this, the steps made again could not be recorded.
        """
        assert not self._closed, "resume_at comes before close"
        answer: Future[int] = Future()
        self._jobs.put(partial(self._supersede, step, answer))
        return answer.result()

    def close(self, *, seal: bool) -> None:
        """Write what is queued, merge the segments, give the run free, and seal it if asked. A failure here is in `failure`."""
        if not self._stop():
            return
        self._try("the run's segments are not merged", self._writer.compact)
        self._writer.close()
        if seal:
            self._try("the run is complete but not sealed", partial(segments.seal, self._run_dir))

    def _stop(self, patience_s: float | None = None) -> bool:
        """Let nothing more in and wait for the thread; False if that had been done before. At exit, what is queued is still written."""
        with self._lock:
            if self._closed:
                return False
            self._closed = True
        atexit.unregister(self._stop)
        self._jobs.put(None)
        self._thread.join(patience_s)
        return True

    def _work(self) -> None:
        while (job := self._next_job()) is not None:
            job()
        self._write()
        self._encoder.close()

    def _next_job(self) -> Callable[[], None] | None:
        """The next job, or writing if none comes before that is due; None at the end."""
        try:
            return self._jobs.get(timeout=self._due_in_s() if self._gathered else None)
        except queue.Empty:
            return self._write

    def _due_in_s(self) -> float:
        return max(0.0, self._written_at + self._together_s - time.monotonic())

    def _gather(self, trace: StepTrace, dropped: int) -> None:
        self._unwritten += dropped
        out_of_order = trace.step <= (self._gathered[-1].step if self._gathered else self._writer.last_step)
        if out_of_order:
            self._write()  # it will be refused, and must not take others with it
        if not self._try(f"step {trace.step} is not recorded", partial(self._encode, trace)):
            self._unwritten += 1
            self._gone(steps=1, missing=1)
        elif out_of_order or len(self._gathered) >= self._most_together or not self._due_in_s():
            self._write()

    def _encode(self, trace: StepTrace) -> None:
        try:
            self._encoder.add(flatten(trace), missing_before=self._unwritten)
        except Exception:
            self._write()  # only a step after this one may end the failure
            raise
        self._gathered.append(_Gathered(trace.step, self._unwritten))
        self._unwritten = 0

    def _write(self) -> None:
        """What is gathered is in the store afterwards, all of it, or all of it counts as missing."""
        vocabulary_kept = self._write_vocabulary()
        steps, self._gathered = self._gathered, []
        if not steps:
            return
        which = f"step {steps[0].step} is" if len(steps) == 1 else f"steps {steps[0].step} to {steps[-1].step} are"
        if self._try(f"{which} not recorded", lambda: self._writer.append(self._encoder.encoded())):
            if vocabulary_kept:
                self._recovered()
            self._compact_now_and_then(len(steps))
            self._gone(steps=len(steps), missing=0)
        else:
            self._unwritten += sum(s.missing_before + 1 for s in steps)
            self._gone(steps=len(steps), missing=len(steps))
        self._written_at = time.monotonic()

    def _gone(self, *, steps: int, missing: int) -> None:
        """These steps take no more room in the queue."""
        with self._lock:
            self._missing += missing
        self._room.release(steps)

    def _compact_now_and_then(self, steps: int) -> None:
        self._uncompacted += steps
        if self._uncompacted >= COMPACT_EVERY:
            self._uncompacted = 0
            self._try("the run's segments are not merged", partial(self._encoder.compact, self._writer))
            if self._retention.keep != "all":
                self._try("old tokens are not thinned", self._thin)

    def _thin(self) -> None:
        for line in self._encoder.thin(self._writer.thinning(self._retention, self._catalog)):
            log.info("%s", line)

    def _write_vocabulary(self) -> bool:
        with self._lock:
            pieces, self._pieces = self._pieces, None
        kept = pieces is None or self._try("the vocabulary is not recorded", partial(self._writer.write_vocabulary, pieces))
        if not kept:
            with self._lock:
                self._pieces = self._pieces or pieces
        return kept

    def _supersede(self, step: int, answer: Future[int]) -> None:
        self._write()
        try:
            moved = self._writer.supersede(step - 1)
            self._unwritten = step - 1 - max(self._writer.last_step, self._first_step - 1)
            answer.set_result(moved)
        except Exception as error:  # handed to resume_at, which raises it
            answer.set_exception(error)

    def _try(self, what: str, do: Callable[[], object]) -> bool:
        """Run a part of recording; a failure of any kind is kept in `failure` and told once, and training goes on."""
        try:
            do()
        except Exception as error:
            why = str(error) if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
            with self._lock:
                first, self._failure = self._failure is None, f"{what}: {why}"
            if first:
                log.warning("%s; training goes on, and recording is tried again with every step", self._failure)
            return False
        return True

    def _recovered(self) -> None:
        with self._lock:
            failure, self._failure = self._failure, None
        if failure is not None:
            log.warning("recording works again; %d steps are missing so far", self._missing)


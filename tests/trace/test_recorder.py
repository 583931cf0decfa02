from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grpo_core.trace.recorder import Recorder
from grpo_core.trace.tables import to_tables
from storage.errors import RunLocked
from storage.layout import list_segments, visible
from storage.queries import groups, steps
from storage.reader import Store
from storage.retention import Retention
from storage.segments import is_sealed
from storage.thinning import read_record
from tests.trace.worked import EVALUATION, WORKED, A, B, step_trace, with_rollouts

PROJECT = Path(__file__).parents[2]
RUN = "run-1"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "runs" / RUN).mkdir(parents=True)
    (tmp_path / "runs" / RUN / "config.json").write_text("{}")
    return Store(tmp_path)


@pytest.fixture
def run_dir(store: Store) -> Path:
    return store.root / "runs" / RUN


def plain(value: object) -> object:
    """Python values as Arrow gives them: arrays and tuples as lists, maps as dicts, anything missing as None."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list) and value and all(isinstance(v, tuple) for v in value):
        return {k: plain(v) for k, v in value}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(v) for v in value]
    return None if value is None or value is pd.NA or value != value else value


def rows(store: Store, table: str) -> list[dict]:
    frame = store.frame(RUN, f"select * from {table} order by all")
    return [{k: plain(v) for k, v in row.items()} for row in frame.to_dict("records")]


def missing_before(store: Store) -> dict[int, int]:
    return steps.step_series(store, RUN).set_index("step").missing_before.astype(int).to_dict()


@pytest.mark.parametrize("sealed", [False, True])
def test_what_goes_in_comes_out(store: Store, run_dir: Path, sealed: bool) -> None:
    odd_text = replace(A, completion=replace(A.completion, text='<script>"\n\t’🙂\\'), logp_ref=np.array([-9, -8], "f4"))
    traces = [replace(WORKED, step=0, evaluation=EVALUATION), with_rollouts(odd_text, B, step=1, updates=())]
    recorder = Recorder(run_dir, precision="exact")
    recorder.set_vocabulary(["<pad>", "a", " b", '"'])
    for trace in traces:
        recorder.record(trace)
    assert recorder.flush(30)
    recorder.close(seal=sealed)
    assert (recorder.missing, recorder.failure, is_sealed(run_dir)) == (0, None, sealed)
    for table in ("steps", "groups", "rollouts"):
        put_in = [{k: plain(v) for k, v in row.items()} for trace in traces for row in to_tables(trace)[table].to_pylist()]
        assert rows(store, table) == put_in, table
    assert groups.vocabulary(store, RUN) == ["<pad>", "a", " b", '"']


def test_a_full_queue_drops_and_the_next_step_tells_how_many(store: Store, run_dir: Path) -> None:
    recorder = Recorder(run_dir, queue_steps=1)
    for step in range(100):  # handed over in microseconds, written in milliseconds
        recorder.record(step_trace(step))
    assert recorder.flush(60)
    recorder.record(step_trace(100))
    recorder.close(seal=False)
    told = missing_before(store)
    assert 1 < len(told) < 100 and 0 in told and 100 in told
    assert recorder.missing == 101 - len(told) == sum(told.values())
    recorded = sorted(told)
    assert [told[s] for s in recorded] == [0] + [later - earlier - 1 for earlier, later in zip(recorded, recorded[1:])]
    assert recorder.failure is None


def step_ranges(run_dir: Path) -> list[tuple[int, int]]:
    return [(s.first, s.last) for s in list_segments(run_dir / "steps")]


def comes_true(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + 30
    while not condition() and time.monotonic() < until:
        time.sleep(0.002)
    return condition()


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """A file where the folder was: works for root too, whom permissions do not stop."""
    away = folder.with_name("away")
    folder.rename(away)
    folder.touch()
    yield
    folder.unlink()
    away.rename(folder)


def test_a_failure_is_told_and_recording_goes_on_when_it_is_over(store: Store, run_dir: Path) -> None:
    recorder = Recorder(run_dir)
    recorder.record(step_trace(0))
    assert recorder.flush(30)
    with unwritable(run_dir / "groups"):
        recorder.record(step_trace(1))
        recorder.record(step_trace(2))
        assert recorder.flush(30)
        assert recorder.missing == 2
        assert recorder.failure.startswith("steps 1 to 2 are not recorded: ") and "\n" not in recorder.failure
        recorder.record(step_trace(3))
        assert recorder.flush(30)
        assert recorder.missing == 3
        assert recorder.failure.startswith("step 3 is not recorded: ")
    recorder.record(step_trace(4))
    recorder.close(seal=False)
    assert missing_before(store) == {0: 0, 4: 3}
    assert (recorder.missing, recorder.failure) == (3, None)
    assert {row["step"] for row in rows(store, "rollouts")} == {0, 4}


def test_steps_written_together_are_one_segment(store: Store, run_dir: Path) -> None:
    recorder = Recorder(run_dir, together_s=3600, queue_steps=6)
    for first, last in ((0, 0), (1, 3), (4, 6)):  # the first at once, then as many as take half of the room
        for step in range(first, last + 1):
            recorder.record(step_trace(step))
        assert comes_true(lambda: step_ranges(run_dir)[-1:] == [(first, last)])  # noqa: B023
    recorder.record(step_trace(7))
    assert recorder.flush(30)
    assert step_ranges(run_dir) == [(0, 0), (1, 3), (4, 6), (7, 7)]
    recorder.record(step_trace(8))
    recorder.record(step_trace(9))
    assert recorder.resume_at(9) == 1
    recorder.record(step_trace(9))
    recorder.record(step_trace(10))
    recorder.close(seal=False)
    assert step_ranges(run_dir)[4:] == [(8, 8), (9, 10)]
    assert (recorder.missing, recorder.failure, missing_before(store)) == (0, None, dict.fromkeys(range(11), 0))


def test_a_reader_sees_a_step_soon_although_no_other_follows(store: Store, run_dir: Path) -> None:
    recorder = Recorder(run_dir, together_s=0.5)
    for step in range(3):
        recorder.record(step_trace(step))
    assert comes_true(lambda: store.last_step(RUN) == 2) and step_ranges(run_dir) == [(0, 0), (1, 2)]
    recorder.close(seal=False)


def test_slow_steps_are_written_one_by_one_at_once(run_dir: Path) -> None:
    recorder = Recorder(run_dir, together_s=0.05)
    for step in range(3):
        time.sleep(0.06)
        recorder.record(step_trace(step))
        assert comes_true(lambda: step_ranges(run_dir)[-1:] == [(step, step)])  # noqa: B023
    recorder.close(seal=False)


def test_every_step_of_a_failed_write_is_missing_also_those_missing_before_it(store: Store, run_dir: Path) -> None:
    contradiction = with_rollouts(A, replace(B, logp_delta=np.zeros(2, "f4")), step=2)
    recorder = Recorder(run_dir, together_s=3600)
    recorder.record(step_trace(0))
    assert recorder.flush(30)
    with unwritable(run_dir / "groups"):
        for trace in (step_trace(1), contradiction, step_trace(3), step_trace(4)):  # fails with 1; then 2; then 3 and 4
            recorder.record(trace)
        assert recorder.flush(30)
        assert recorder.missing == 4
    recorder.record(step_trace(5))
    recorder.record(replace(contradiction, step=6))
    recorder.record(step_trace(7))
    recorder.record(step_trace(7))  # a caller's mistake costs no other step
    recorder.record(step_trace(8))
    recorder.close(seal=False)
    assert missing_before(store) == {0: 0, 5: 4, 7: 1, 8: 1}
    assert (recorder.missing, recorder.failure) == (6, None)


def test_a_trace_that_contradicts_itself_costs_only_its_step(store: Store, run_dir: Path) -> None:
    recorder = Recorder(run_dir)
    recorder.record(with_rollouts(A, replace(B, logp_delta=np.zeros(2, "f4")), step=0))
    assert recorder.flush(30)
    assert "logp_delta of rollout 1 of the step has 2 entries for 3 tokens" in recorder.failure
    recorder.record(step_trace(1))
    recorder.close(seal=False)
    assert missing_before(store) == {1: 1}


DISK_FULL = """
import sys
from pathlib import Path
from grpo_core.trace.recorder import Recorder
from storage.queries.steps import step_series
from storage.reader import Store
from tests.trace.worked import step_trace

root = Path(sys.argv[1])
run_dir = root / "runs" / "run-1"
run_dir.mkdir(parents=True)
(run_dir / "config.json").write_text("{}")
ballast = root / "ballast"
ballast.write_bytes(bytes(2 << 20))
recorder = Recorder(run_dir)

def record(step):
    recorder.record(step_trace(step, groups=8, size=8, tokens=128))
    assert recorder.flush(60)

step = 0
while not recorder.missing:
    record(step)
    step += 1
assert step > 2, "the disk is too small to record anything"
assert "no room" in recorder.failure, recorder.failure
record(step)
assert recorder.missing == 2, "still no room"
ballast.unlink()
record(step + 1)
assert recorder.failure is None, recorder.failure
recorder.close(seal=False)
told = step_series(Store(root), "run-1").set_index("step").missing_before.astype(int).to_dict()
assert told == {**{s: 0 for s in range(step - 1)}, step + 1: 2}, told
print("recording resumed")
"""


def test_a_full_disk_is_told_and_recording_resumes_when_there_is_room(tmp_path: Path) -> None:
    small_disk = 'mount -t tmpfs -o size=4m tmpfs "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", small_disk, "sh", str(tmp_path), sys.executable, DISK_FULL]
    try:
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        pytest.skip("this machine has no unshare")
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    assert done.stdout == "recording resumed\n", done.stderr


def test_150_steps_are_merged_and_each_is_there_once(store: Store, run_dir: Path) -> None:
    recorder = Recorder(run_dir, queue_steps=20)  # at most ten together
    for step in range(150):
        recorder.record(step_trace(step, groups=1, size=2))
        if step % 10 == 9:
            assert recorder.flush(60)
    recorder.close(seal=False)
    first, second, *_ = whole = visible(list_segments(run_dir / "steps"))
    assert first.last - first.first >= 63 and second.last - second.first >= 63, whole
    for table in ("groups", "rollouts"):
        assert [(s.first, s.last) for s in visible(list_segments(run_dir / table))] == [(s.first, s.last) for s in whole], table
    assert recorder.failure is None
    assert missing_before(store) == dict.fromkeys(range(150), 0)
    assert len(store.frame(RUN, "select step, group_index, rollout_index from rollouts").drop_duplicates()) == 150 * 2


def test_old_tokens_are_thinned_beside_the_recorder_and_its_log_says_so(store: Store, run_dir: Path, caplog) -> None:
    """In the real process; a merged file counts 2 s after it was made, and may be written anew only then."""
    recorder = Recorder(run_dir, queue_steps=200, retention=Retention(keep="every", every=10, recent=8), catalog=store.root, together_s=0.0)
    with caplog.at_level("INFO"):
        for n in range(192):
            recorder.record(replace(WORKED, step=n))
            if n in (20, 100):
                recorder.flush(60)
                until = time.monotonic() + (60 if n == 20 else 2.5)
                while time.monotonic() < until and not (n == 20 and recorder._encoder.up):
                    time.sleep(0.05)
        assert recorder.flush(60)
    first, *_ = read_record(run_dir)
    assert (first.first, first.last, first.by, first.policy) == (0, 63, "the run itself", "every 10th step")
    assert "thinned steps 0 to 63 by the policy 'every 10th step'" in caplog.text and "freed" in caplog.text
    found = store.frame(RUN, "select step, bool_or(thinned) as gone from rollouts group by step order by step")
    gone = found["gone"].eq(True)
    assert len(found) == 192 and not gone[::10].any() and gone[:64].any() and not gone[-8:].any()
    recorder.close(seal=True)
    assert recorder.failure is None and recorder.missing == 0 and store.damaged(RUN) == []
    assert store.frame(RUN, "select count(*) as n from rollouts where thinned")["n"].iloc[0] == sum(one.rollouts for one in read_record(run_dir))


def test_resume_sets_later_steps_aside_and_records_them_again(store: Store, run_dir: Path) -> None:
    first = Recorder(run_dir)
    for step in range(10):
        first.record(step_trace(step))
    first.close(seal=True)
    second = Recorder(run_dir)
    assert second.resume_at(5) == 5
    for step in (5, 6, 7):
        second.record(step_trace(step, attempt=1))
    second.close(seal=False)
    assert (second.failure, second.missing) == (None, 0)
    series = steps.step_series(store, RUN)
    assert series.step.tolist() == list(range(8))
    assert series.attempt.tolist() == [0] * 5 + [1] * 3


def test_resume_after_a_gap_says_how_many_steps_are_missing(store: Store, run_dir: Path) -> None:
    first = Recorder(run_dir)
    first.record(step_trace(0))
    first.close(seal=False)
    second = Recorder(run_dir)
    assert second.resume_at(5) == 0  # the checkpoint is of step 4, but only step 0 reached the store
    second.record(step_trace(5))
    second.close(seal=False)
    assert missing_before(store) == {0: 0, 5: 4}


def test_a_run_has_one_recorder(run_dir: Path) -> None:
    recorder = Recorder(run_dir)
    with pytest.raises(RunLocked):
        Recorder(run_dir)
    recorder.close(seal=False)
    Recorder(run_dir).close(seal=False)


def test_after_close_steps_are_counted_not_raised(run_dir: Path) -> None:
    recorder = Recorder(run_dir)
    recorder.close(seal=False)
    recorder.record(step_trace(0))
    assert recorder.missing == 1
    assert recorder.flush(1)
    recorder.close(seal=True)  # a second close does nothing
    assert not is_sealed(run_dir)


def test_flushes_from_many_threads_while_recording(store: Store, run_dir: Path) -> None:
    recorder = Recorder(run_dir, queue_steps=100)
    flushed: list[bool] = []
    threads = [threading.Thread(target=lambda: flushed.extend(recorder.flush(60) for _ in range(5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for step in range(30):
        recorder.record(step_trace(step))
    for thread in threads:
        thread.join()
    recorder.close(seal=False)
    assert flushed == [True] * 20
    assert list(missing_before(store)) == list(range(30))


def test_a_program_that_ends_without_closing_keeps_its_steps_and_ends(store: Store, run_dir: Path) -> None:
    script = (
        "import sys\nfrom grpo_core.trace.recorder import Recorder\nfrom tests.trace.worked import step_trace\n"
        "recorder = Recorder(sys.argv[1])\nfor step in range(20): recorder.record(step_trace(step))\nraise SystemExit(3)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(run_dir)], cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (3, "")
    assert list(missing_before(store)) == list(range(20))

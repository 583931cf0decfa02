"""`make demo` as a person meets it: two runs, the app, Ctrl-C, and again."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from grpo_core.demo import app_token, free_port, is_healthy, names_alive, run_demo
from grpo_core.errors import LaunchError
from grpo_core.launch.folder import RunFolder
from grpo_core.launch.process import identify
from grpo_core.launch.status import RunStatus, run_status
from grpo_core.launch.stop import stop_run
from storage.reader import Store

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(900)]

URL = re.compile(r"http://127\.0\.0\.1:\d+/\?token=\S+")


class Demo:
    """A running `python -m grpo_core demo` and what it has printed."""

    def __init__(self, store_root: Path) -> None:
        with socket.socket() as probe:  # not the usual port, which a demo of another test worker may be taking at this moment
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-u", "-m", "grpo_core", "demo", "--store", str(store_root), "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        self.lines: list[str] = []
        threading.Thread(target=lambda: self.lines.extend(iter(self.process.stdout.readline, "")), daemon=True).start()

    def wait_for_url(self) -> str:
        return wait_until(lambda: next((match[0] for line in list(self.lines) if (match := URL.search(line))), None), lambda: self.lines)

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def wait(self) -> int:
        return self.process.wait(120)


@pytest.fixture
def demo(store_root: Path) -> Iterator[Callable[[], Demo]]:
    begun: list[Demo] = []

    def begin() -> Demo:
        begun.append(Demo(store_root))
        return begun[-1]

    yield begin
    for one in begun:
        if one.process.poll() is None:
            one.process.terminate()
            one.process.wait(120)
    for run_id in Store(store_root).run_ids():
        stop_run(store_root, run_id, grace_s=0)


def wait_until(found: Callable[[], object], shown: Callable[[], object], patience_s: float = 400.0):
    deadline = time.monotonic() + patience_s
    while not (result := found()):
        assert time.monotonic() < deadline, shown()
        time.sleep(0.1)
    return result


def statuses(store_root: Path) -> list[RunStatus]:
    return [run_status(store_root, run_id) for run_id in Store(store_root).run_ids()]


def test_a_demo_from_start_to_ctrl_c_and_again(demo: Callable[[], Demo], store_root: Path) -> None:
    first = demo()
    url = first.wait_for_url()
    assert is_healthy(url)
    wait_until(lambda: names_alive(store_root) == {"healthy", "collapse"}, lambda: statuses(store_root))
    wait_until(lambda: all(status.step >= 1 for status in statuses(store_root)), lambda: statuses(store_root))

    first.interrupt()
    assert first.wait() == 0, first.lines
    ended = statuses(store_root)
    assert [status.state for status in ended] == ["stopped", "stopped"], first.lines
    assert all(identify(status.pid) is None and status.step >= 1 for status in ended)
    assert not is_healthy(url)

    second = demo()
    second.wait_for_url()
    wait_until(lambda: len(statuses(store_root)) == 4, lambda: statuses(store_root))
    assert {status.run_id for status in ended} <= {status.run_id for status in statuses(store_root)}
    second.interrupt()
    wait_until(lambda: any("stopping the runs" in line for line in second.lines), lambda: second.lines)
    second.interrupt()  # leaves without waiting; the runs have been asked and stop by themselves
    assert second.wait() == 0
    wait_until(lambda: not any(status.alive for status in statuses(store_root)), lambda: statuses(store_root))
    assert {status.state for status in statuses(store_root)} == {"stopped"}


def test_a_demo_joins_runs_that_are_alive_and_leaves_them_running(demo: Callable[[], Demo], store_root: Path) -> None:
    for name in ("healthy", "collapse"):
        subprocess.run([sys.executable, "-m", "grpo_core", "launch", "--preset", name, "--store", str(store_root)], check=True, stdout=subprocess.DEVNULL)
    joined = demo()
    joined.wait_for_url()
    joined.interrupt()
    assert joined.wait() == 0
    assert len(statuses(store_root)) == 2 and all(status.alive for status in statuses(store_root))


def test_an_app_that_dies_ends_the_demo_with_the_reason_and_stops_its_runs(demo: Callable[[], Demo], store_root: Path) -> None:
    one = demo()
    url = one.wait_for_url()
    port = url.split(":")[2].split("/")[0]
    app = next(pid for pid in pids() if f"--server.port\0{port}" in command_of(pid))
    os.kill(app, signal.SIGKILL)
    assert one.wait() == 1
    assert one.lines[-1] == f"error: the app ended with exit code -9; {store_root}/app.log has the reason\n"
    assert {status.state for status in statuses(store_root)} <= {"stopped"}


def test_a_demo_whose_terminal_is_gone_still_stops_what_it_started(store_root: Path, monkeypatch) -> None:
    stopped = []
    monkeypatch.setattr("grpo_core.demo.signal.signal", lambda *_: None)
    monkeypatch.setattr("grpo_core.demo.launch", lambda *_: "one")
    monkeypatch.setattr("grpo_core.demo.app_server", lambda *_: (_ for _ in ()).throw(LaunchError("no app")))
    monkeypatch.setattr("grpo_core.demo.stop_runs", lambda _, runs, say, **__: [say("stopping"), stopped.extend(runs)])

    def gone(_: str) -> None:
        raise BrokenPipeError

    with pytest.raises(LaunchError, match="no app"):
        run_demo(store_root, port=0, say=gone)
    assert stopped == ["one"]


def pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_the_token_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("GROUPSCOPE_TOKEN", raising=False)
    token = app_token(tmp_path)
    assert len(token) >= 32 and app_token(tmp_path) == token
    assert (tmp_path / "app.token").stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("GROUPSCOPE_TOKEN", "mine")
    assert app_token(tmp_path) == "mine"


def test_a_port_in_use_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:  # a port of its own: another test's demo may be taking the usual one at this moment
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr("grpo_core.demo.USUAL_PORT", port)
        assert free_port() != port
    assert free_port() == port


def test_runs_that_cannot_be_read_do_not_keep_the_demo_from_starting(store_root: Path) -> None:
    broken = store_root / "runs" / "broken"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{")
    assert names_alive(store_root) == set()
    assert RunFolder.open(store_root, "broken")

"""The app as a child process, and `make demo`: two real runs and the app that shows them."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from grpo_core.beside import PROJECT_ROOT
from grpo_core.config import make_config
from grpo_core.errors import LaunchError
from grpo_core.launch.folder import RunFolder
from grpo_core.launch.start import APP_TOKEN, launch
from grpo_core.launch.status import RunStatus, run_status
from grpo_core.launch.stop import stop_runs
from grpo_core.presets import preset
from storage.errors import StoreError
from storage.reader import Store

HOST = "127.0.0.1"
USUAL_PORT = 8501
DEMO_PRESETS = ("healthy", "collapse")
HEALTHY_WITHIN_S = 60.0

Say = Callable[[str], None]


class Interrupts:
    """Counts SIGINT, SIGTERM and SIGHUP instead of raising anywhere, so that nothing is cut short in the middle."""

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)

    def _note(self, *_: object) -> None:
        self.count += 1


def run_app(store_root: Path, *, port: int, say: Say) -> None:
    """The app alone, until Ctrl-C. Port 0 takes a free one. Raises LaunchError when the app does not start, or dies."""
    interrupts, say = Interrupts(), _unheard(say)
    with app_server(store_root, port) as (server, url):
        _serve(server, url, store_root, interrupts, say)


def run_demo(store_root: Path, *, port: int, say: Say) -> None:
    """The demo runs and the app, until Ctrl-C, which stops the app and the runs this demo started. Raises LaunchError like run_app.

    A second Ctrl-C leaves at once; the runs have been asked to stop by then and do so by themselves.
    """
    interrupts, say = Interrupts(), _unheard(say)
    alive = names_alive(store_root)
    missing = [name for name in DEMO_PRESETS if name not in alive]
    started: list[str] = []

    def start_next() -> None:
        """One run after the other: two that load what they need at once would leave the cores to nobody, and nothing would move for long."""
        if missing and not (started and _loading(run_status(store_root, started[-1]))):
            name = missing.pop(0)
            started.append(launch(store_root, make_config(dict(preset(name).settings))))
            say(f"training {name}: run {started[-1]}")

    try:
        start_next()
        with app_server(store_root, port) as (server, url):
            _serve(server, url, store_root, interrupts, say, meanwhile=start_next)
    finally:
        if started:
            say("stopping the runs after their step; Ctrl-C again leaves without waiting")
        stop_runs(store_root, started, say, leave=lambda: interrupts.count >= 2)


def _unheard(say: Say) -> Say:
    """`say`, without an end to what it accompanies where nobody listens any more: a closed terminal, a pipe that broke."""

    def said(sentence: str) -> None:
        with suppress(OSError):
            say(sentence)

    return said


def _loading(status: RunStatus) -> bool:
    """Whether a run has nothing to show yet: its process is up, and its first bar is not."""
    return status.alive and not status.phase_total


def names_alive(store_root: Path) -> set[str]:
    """Names of the runs whose process lives."""
    alive = set()
    for run_id in Store(store_root).run_ids():
        with suppress(StoreError, ValueError):  # a damaged neighbour is no reason not to start
            if run_status(store_root, run_id).alive:
                alive.add(RunFolder.open(store_root, run_id).read_config().name)
    return alive


@contextmanager
def app_server(store_root: Path, port: int) -> Iterator[tuple[subprocess.Popen, str]]:
    """The app's process and address; stopped at the end. Its output goes to app.log in the store."""
    store_root = Path(store_root).absolute()
    store_root.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    token = app_token(store_root)
    options = ["--server.address", HOST, "--server.port", str(port), "--server.headless", "true"]
    command = [sys.executable, "-m", "streamlit", "run", str(PROJECT_ROOT / "app.py"), *options]
    environment = {**os.environ, "GROUPSCOPE_STORE": str(store_root), APP_TOKEN: token}
    with (store_root / "app.log").open("ab") as log:
        server = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield server, f"http://{HOST}:{port}/?token={token}"
    finally:
        server.terminate()
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def app_token(store_root: Path) -> str:
    """What opens the app: GROUPSCOPE_TOKEN if set, else made once per store and kept in a file only its owner can read."""
    if os.environ.get(APP_TOKEN):
        return os.environ[APP_TOKEN]
    path = store_root / "app.token"
    with suppress(FileExistsError), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(24))
    token = path.read_text().strip()
    if not token:
        raise LaunchError(f"{path} is empty; delete it and start again")
    return token


def free_port() -> int:
    """Streamlit's usual port if nobody has it, else any free one."""
    for port in (USUAL_PORT, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return probe.getsockname()[1]
    raise LaunchError(f"no free port on {HOST}")


def _serve(
    server: subprocess.Popen, url: str, store_root: Path, interrupts: Interrupts, say: Say, *, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Print the address once the app answers, then stay until interrupted, calling `meanwhile`; raises LaunchError if the app ends by itself."""
    announced = False
    deadline = time.monotonic() + HEALTHY_WITHIN_S
    while not interrupts.count:
        if server.poll() is not None:
            raise LaunchError(f"the app ended with exit code {server.returncode}; {store_root}/app.log has the reason")
        if not announced and is_healthy(url):
            say(f"\n  Groupscope is open at  {url}\n\n  Ctrl-C stops it.\n")
            announced = True
        if not announced and time.monotonic() > deadline:
            raise LaunchError(f"the app does not answer after {HEALTHY_WITHIN_S:.0f} s; {store_root}/app.log may have the reason")
        meanwhile()
        time.sleep(0.2)


def is_healthy(url: str) -> bool:
    """Whether the app behind `url` answers its health check."""
    base = url.split("/?")[0]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy to ourselves
    try:
        with opener.open(f"{base}/_stcore/health", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False

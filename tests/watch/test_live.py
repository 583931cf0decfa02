"""A real run that collapses while it is watched: alert, webhook, stop; with a real HTTP server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from grpo_core.launch.folder import RunFolder
from grpo_core.launch.start import command_line
from grpo_core.launch.status import RunStatus, run_status
from storage.catalog import Catalog
from storage.queries.steps import step_series
from storage.reader import Store
from tests.collapsing import COLLAPSING
from tests.trainer.small_runs import small_config

pytestmark = pytest.mark.xdist_group("processes")
ROOT = Path(__file__).resolve().parents[2]
ENDLESS = {"steps": 600, "prompts_per_step": 4, "epochs": 4, "diagnose_every": 2, "checkpoint_every": 3, "checkpoints_kept": 1, "device": "cpu"}


class Hook:
    """An HTTP server on a free port that remembers what is posted to it."""

    def __init__(self) -> None:
        hook, self.posted = self, []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.posted.append((self.path, self.headers["Content-Type"], json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/alerts?key=secret"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.server.shutdown()
    made.server.server_close()


def trained(store_root: Path, **changes: object) -> tuple[RunFolder, RunStatus]:
    """Train a collapsing run in a process of its own until it ends by itself."""
    flags = command_line(small_config(**{**COLLAPSING, **ENDLESS, **changes}))[4:]
    ended = subprocess.run(
        [sys.executable, "-m", "grpo_core", "train", *flags, "--store", str(store_root)], cwd=ROOT, capture_output=True, text=True, timeout=400
    )
    assert ended.returncode == 0, ended.stderr
    folder = RunFolder.open(store_root, max(Store(store_root).run_ids()))
    return folder, run_status(store_root, folder.run_id)


def test_a_collapse_is_told_and_stops_the_run_without_a_checkpoint(store_root: Path, hook: Hook) -> None:
    folder, status = trained(store_root, on_collapse="stop", webhook=hook.url)
    assert status.state == "stopped" and 5 <= status.step < 600
    alerts = Catalog(store_root).alerts(folder.run_id).to_dict("records")[::-1]  # unhealthy may come before collapsed
    first = alerts[0]
    assert first["level"] in ("unhealthy", "collapsed") and first["cause"] == "displacement" and first["step"] < status.step
    saved = "checkpoint written" if status.step in folder.checkpoint_steps() else "no checkpoint written"
    assert saved == "no checkpoint written" or status.step % 3 == 0  # unless one was due
    assert status.message == f"Stopped after step {status.step}; {saved}. on_collapse=stop: {first['sentence']}"
    path, kind, told = hook.posted[0]
    assert path == "/alerts?key=secret" and kind == "application/json"
    assert {name: told[name] for name in first} == first and told["run_name"] == "too fast" and told["remedy"]
    assert len(hook.posted) == len(alerts)
    assert f"alert after step {first['step']}: {first['sentence']}" in folder.log.read_text()
    assert step_series(Store(store_root), folder.run_id)["step"].tolist() == list(range(status.step))


def test_a_webhook_that_nobody_answers_costs_a_line_in_the_log(store_root: Path, hook: Hook) -> None:
    hook.server.shutdown()
    hook.server.server_close()
    folder, status = trained(store_root, on_collapse="checkpoint_and_stop", webhook=hook.url)
    assert status.state == "stopped" and status.message.startswith(f"Stopped after step {status.step}; checkpoint written. on_collapse=checkpoint_and_stop: ")
    assert folder.checkpoint_steps()[-1] == status.step
    log = folder.log.read_text()
    assert "the webhook at 127.0.0.1 did not take the alert: " in log and "refused" in log and "secret" not in log
    assert len(Catalog(store_root).alerts(folder.run_id)) >= 1

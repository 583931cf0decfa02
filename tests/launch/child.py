"""Stand-ins for a trainer process that differ in how they take being stopped: python -m tests.launch.child KIND STORE RUN"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from grpo_core.launch.folder import RunFolder
from grpo_core.launch.status import Heartbeat


def main(kind: str, store_root: str, run_id: str) -> None:
    folder = RunFolder.open(Path(store_root), run_id)
    if kind == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if kind in ("stubborn", "messy"):
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (folder.path / "helper.pid").write_text(str(helper.pid))
    heartbeat = Heartbeat(folder)
    heartbeat.phase("warming up the tiny model", 3, 10)
    for done in range(1, 10_000):
        time.sleep(0.02)
        heartbeat.step(done, 0.02)
        if kind in ("polite", "messy") and folder.stop_file.exists():
            heartbeat.finish("stopped", 0, f"Stopped after step {done}; checkpoint written.")
            return
        if kind == "failing" and done == 3:
            heartbeat.finish("failed", 1, "the reward is made of cheese")
            sys.exit(1)
        if kind == "hung" and done == 3:
            time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])

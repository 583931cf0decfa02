"""Processes beside a training run: Python modules of ours that talk over stdin and stdout and end when their stdin does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

PROJECT_ROOT = Path(__file__).resolve().parents[1]
NICE = 10
"""How far a process beside a run stands back for the trainer; it lowers its own priority."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def start_beside(module: str, *arguments: str, text: bool, errors: IO | int) -> subprocess.Popen:
    """Start `python -m module` on one thread, with pipes for stdin and stdout; its stderr goes to `errors`. Raises OSError."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=PROJECT_ROOT,
        env={**os.environ, **ONE_THREAD},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=text,
        start_new_session=True,  # Ctrl-C is for the trainer
    )

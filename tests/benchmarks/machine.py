"""On which machine, with which versions, a benchmark runs."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path


def machine_line(*packages: str, threads: int | None = None) -> str:
    """Processor, cores, load, Python and these packages, in one line."""
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    limit = f", {threads} thread(s)" if threads else ""
    return f"{_processor()}, {os.cpu_count()} CPUs, load {load}{limit}, Python {platform.python_version()}, " + ", ".join(f"{p} {version(p)}" for p in packages)


def _processor() -> str:
    try:
        models = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    except OSError:
        models = []
    return models[0] if models else platform.processor() or platform.machine()

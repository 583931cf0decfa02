"""Run as a child of test_tiny: loads the tiny model from a cache, printing each phase once and then a checksum of the weights."""

import sys
from pathlib import Path

from grpo_core.config import make_config
from grpo_core.rollout.tiny import load_tiny
from grpo_core.tasks.build import build_task


def main(cache: Path, steps: int) -> None:
    said: list[str] = []

    def report(phase: str, done: int, total: int) -> None:
        if phase not in said:
            said.append(phase)
            print(phase, flush=True)

    model, _ = load_tiny(build_task(make_config({})), steps, cache, report)
    print("checksum", sum(p.double().sum().item() for p in model.parameters()), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

"""What became of methods that were trained here: runs of `python -m grpo_core compare --json`, kept beside this file as data.

    python -m grpo_core.trained "python -m grpo_core compare --methods NAME …" result.json …

replaces the runs that this command made of every method in the results.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

_OTHERS = {
    "epochs": "passes over a batch", "lr": "lr", "group-reward": "group reward", "group-reward-weight": "weight", "paraphrases": "paraphrases",
    "prompt-sampler": "prompt sampler", "replay-size": "replay buffer", "preferences": "preferences of", "rewards": "reward besides",
}  # fmt: skip
PATH = Path(__file__).with_suffix(".json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One run: held-out accuracy (share, greedy) after its first and after its last step. `command` trains it again with its method for NAME.

    Older ones do not have the rest: the best held-out accuracy, the mean reward of the last 5 steps, the verdict and its cause, and the seconds it took.
    """

    method: str
    seed: int
    first: float
    last: float
    command: str
    best: float | None = None
    reward: float | None = None
    verdict: str = ""
    cause: str = ""
    wall_s: float | None = None

    @property
    def gain(self) -> float:
        return self.last - self.first


@cache
def trained() -> dict[str, dict[str, tuple[Trained, ...]]]:
    """By command, the runs it made of every method."""
    runs = [Trained(**row) for row in json.loads(PATH.read_text(encoding="utf-8"))]
    found: dict[str, dict[str, tuple[Trained, ...]]] = {}
    for run in runs:
        of_command = found.setdefault(run.command, {})
        of_command[run.method] = (*of_command.get(run.method, ()), run)
    return found


def of_method(method: str) -> dict[str, tuple[Trained, ...]]:
    """The runs of a method by the command that made them; empty where it was not trained."""
    return {command: found[method] for command, found in trained().items() if method in found}


def setting(command: str) -> str:
    """What sets the runs of a command apart from those of another, in a few words."""
    given = dict(re.findall(r"--([a-z-]+) (\S+)", command))
    others = [f"{words} {given[option]}" for option, words in _OTHERS.items() if option in given]
    return ", ".join([f"{given['steps']} steps", given.get("task", "arithmetic"), *others])


def outcome(runs: Sequence[Trained]) -> str:
    """How far held-out accuracy came on every seed, and whether on all of them, in one sentence."""
    each = ", ".join(f"{run.first:.2f} → {run.last:.2f}" for run in runs)
    better = sum(run.gain > 0 for run in runs)
    whether = "better on every seed" if better == len(runs) else f"better on {better} of {len(runs)} seeds" if better else "better on no seed"
    return f"Held-out accuracy {each}: {gain(runs)}, {whether}."


def gain(runs: Sequence[Trained]) -> str:
    """Mean change of held-out accuracy ± its standard deviation over seeds (n−1)."""
    gains = [run.gain for run in runs]
    return f"{statistics.mean(gains):+.2f}" + (f" ± {statistics.stdev(gains):.2f}" if len(gains) > 1 else "")


def keep(command: str, results: Sequence[Path]) -> None:
    """Write the runs of compare's JSON into the data, in place of older ones of the same methods and command. Raises KeyError for another JSON."""
    rows = [row for result in results for row in json.loads(result.read_text(encoding="utf-8"))["runs"]]
    new = [
        Trained(
            method=row["method"], seed=row["seed"], first=row["held_out_first"], last=row["held_out_last"], command=command, best=row["held_out_best"],
            reward=row["reward"], verdict=row["verdict"], cause=row["cause"], wall_s=row["wall_s"],
        )
        for row in rows
    ]  # fmt: skip
    again = {(one.method, one.command) for one in new}
    old = [run for found in trained().values() for runs in found.values() for run in runs if (run.method, run.command) not in again] if PATH.exists() else []
    known = [{name: value for name, value in asdict(run).items() if value not in (None, "")} for run in [*old, *new]]
    PATH.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    keep(sys.argv[1], [Path(name) for name in sys.argv[2:]])
    print(f"wrote {PATH}")

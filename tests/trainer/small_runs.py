"""Runs small enough for tests: the built-in task, a tiny model with a short warm-up shared through one cache."""

from pathlib import Path

from grpo_core.config import RunConfig, make_config
from grpo_core.records import StepTrace
from grpo_core.trainer.loop import Start, TrainResult, train
from grpo_core.trainer.state import TrainState, build_state

SMALL = dict(warmup_steps=180, prompts_per_step=4, group_size=4, steps=4, eval_every=0, lr=1e-3)
OF_METHOD = {"spo": dict(spo_pool=16, spo_init=4), "rank_grpo": dict(task="ranking")}
"""What keeps a method's own preparations small, and the task it cannot do without."""


def small_config(**changes) -> RunConfig:
    return make_config(SMALL | OF_METHOD.get(changes.get("method"), {}) | changes)


def small_state(cache: Path, **changes) -> TrainState:
    return build_state(small_config(**changes), cache_dir=cache, progress=lambda *_: None)


class Watched:
    """A run in this process: its traces, and a stop after `stop_at` steps."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        self.traces: list[StepTrace] = []
        self.starts: list[Start] = []
        self.flushed = 0

    def run(self, config: RunConfig, *, stop_at: int | None = None, resume: bool = False) -> TrainResult:
        return train(
            config,
            cache_dir=self.cache,
            checkpoint_dir=self.folder,
            record=self.traces.append,
            flush=self._flush,
            on_start=self.starts.append,
            progress=lambda *_: None,
            should_stop=lambda: stop_at is not None and len(self.traces) >= stop_at,
            resume=resume,
            attempt=int(resume),
        )

    def _flush(self) -> None:
        self.flushed += 1

"""Questions about a whole run, cheap enough for a table of many runs."""

from __future__ import annotations

from pathlib import Path

from storage.layout import DATABASE, SEALED, SUPERSEDED, VOCABULARY_FILE
from storage.reader import Store
from storage.schema import TABLES


def reward_curve(store: Store, run_id: str, points: int = 60) -> list[float]:
    """Mean reward over at most `points` stretches of equally many steps, oldest first; NaN where no rollout was scored."""
    sql = """select avg(reward_mean) filter (not isnan(reward_mean)) as reward
               from (select reward_mean, ntile(?) over (order by step) as stretch from steps)
              group by stretch order by stretch"""
    return store.frame(run_id, sql, [points], skip_damaged=True)["reward"].tolist()


def last_step(store: Store, run_id: str) -> int | None:
    """The newest whole step, None before the first."""
    return store.last_step(run_id)


def run_size(store: Store, run_id: str) -> int:
    """Bytes on disk of everything recorded, superseded steps included; checkpoints and logs are not counted."""
    run_dir = store.run_dir(run_id)
    folders = [run_dir / name for name in (*TABLES, SEALED, SUPERSEDED)]
    files = [run_dir / DATABASE, run_dir / VOCABULARY_FILE, *(path for folder in folders for path in folder.rglob("*.parquet"))]
    return sum(map(_size, files))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # merged away since it was listed, or not there yet
        return 0

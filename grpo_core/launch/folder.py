"""The run folder: where everything about one run lies, and the truth about its life.

    <store>/runs/<run_id>/  config.json  status.json  process.json  fork.json  import.json  log.txt  STOP  checkpoints/  + what the recorder writes
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from grpo_core.config import RunConfig, load_config, make_config
from grpo_core.errors import LaunchError
from storage.cached import check_local, refresh, shown_root, store_folder
from storage.errors import RunNotFound

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
STORE_VARIABLE = "GROUPSCOPE_STORE"
DEFAULT_STORE = "groupscope-data"
CATALOG_VARIABLE = "GROUPSCOPE_CATALOG"


MIRROR_VARIABLE = "GROUPSCOPE_MIRROR"


def default_store() -> Path:
    """Where runs lie when nobody names a place: GROUPSCOPE_STORE, or groupscope-data beside where the program was started.

    Of a store elsewhere, named by URL, the folder that it is read through. Raises StoreError.
    """
    return store_folder(os.environ.get(STORE_VARIABLE) or DEFAULT_STORE)


def catalog_place(store_root: Path) -> Path | str:
    """Where names, tags, notes, launches and alerts of a store's runs are kept: GROUPSCOPE_CATALOG, a SQLAlchemy URL, or else the store's folder."""
    return os.environ.get(CATALOG_VARIABLE) or store_root


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of one run. Raises RunNotFound for an id that could not be a run's, so that no path leaves the store."""

    store_root: Path
    run_id: str

    def __post_init__(self) -> None:
        if not RUN_ID.fullmatch(self.run_id):
            raise RunNotFound(f"{self.run_id!r} cannot be a run id; `python -m grpo_core runs` lists the runs")
        object.__setattr__(self, "store_root", Path(self.store_root).absolute())

    @classmethod
    def create(cls, store_root: Path, config: RunConfig, *, suffix: str | None = None) -> RunFolder:
        """A new run: its folder and config.json. `suffix` ends the run id (default: random), which begins with the UTC time.

        Raises LaunchError when the store cannot be written, StoreError when it is only read from here.
        """
        check_local(store_root)
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        folder = cls(store_root, f"{stamp}-{config.method}-{config.task}-{suffix or secrets.token_hex(4)}")
        try:
            folder.path.mkdir(parents=True)
            folder.write_config(config)
        except OSError as error:
            raise LaunchError(f"cannot make a run folder in {folder.store_root}: {error.strerror}; mend that, or choose another folder with --store") from None
        return folder

    @classmethod
    def open(cls, store_root: Path, run_id: str) -> RunFolder:
        """The folder of an existing run; raises RunNotFound."""
        folder = cls(store_root, run_id)
        refresh(folder.store_root)
        if not folder.config.is_file():
            raise RunNotFound(f"no run {run_id!r} in {shown_root(folder.store_root)}; `python -m grpo_core runs` lists the runs")
        return folder

    @property
    def path(self) -> Path:
        return self.store_root / "runs" / self.run_id

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def status(self) -> Path:
        """What the run last said about itself; launch/status.py judges whether it is still true."""
        return self.path / "status.json"

    @property
    def process(self) -> Path:
        """What the launcher knows about the process it started."""
        return self.path / "process.json"

    @property
    def fork(self) -> Path:
        """Which run this one goes on from, if it does; grpo_core/launch/fork.py writes it."""
        return self.path / "fork.json"

    @property
    def imported(self) -> Path:
        """Which export this run was made of, if it was not trained in this store; grpo_core/launch/exchange.py writes it."""
        return self.path / "import.json"

    def check_trained_here(self) -> None:
        """Raises LaunchError for an imported run, which nothing can go on from, and StoreError for one that is only read from here."""
        check_local(self.store_root)
        if self.imported.exists():
            raise LaunchError(
                f"run {self.run_id} was imported, and an export carries no checkpoints to go on from; resume or fork it where it was trained, "
                f"or train it anew with the command that `python -m grpo_core show {self.run_id}` prints"
            )

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def stop_file(self) -> Path:
        return self.path / "STOP"

    @property
    def mirror(self) -> Path:
        """What is wrong with mirroring the run elsewhere, for as long as something is; grpo_core/watch/mirroring.py writes it."""
        return self.path / "mirror.json"

    @property
    def launch_lock(self) -> Path:
        return self.path / "launch.lock"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def checkpoint_steps(self) -> list[int]:
        """Steps done at every finished checkpoint, in order; grpo_core/trainer/checkpoint.py names them step-<steps done>."""
        names = (file.parent.name.removeprefix("step-") for file in self.checkpoints.glob("step-*/trainer.pt"))
        return sorted(int(name) for name in names if name.isdecimal())

    def has_checkpoint(self) -> bool:
        return bool(self.checkpoint_steps())

    def read_config(self) -> RunConfig:
        """Raises ConfigError when config.json is unreadable or has settings this version does not know."""
        return make_config(load_config(self.config))

    def write_config(self, config: RunConfig) -> None:
        replace_file(self.config, config.to_json(), durable=True)


def replace_file(path: Path, text: str, *, durable: bool = False) -> None:
    """Readers see the old text or the new, never half of one; `durable` survives a power cut, at the price of a disk flush."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict | None:
    """The mapping in a JSON file, or None if it is missing, damaged, or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None

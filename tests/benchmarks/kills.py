"""kill -9 of whatever touches a store, at random moments: is every step that was committed still there, once, and row for row the same?

Writers, the recorder, a real trainer, commands and the real app die while they write, merge, seal, read; after each kill a fresh Store and plain
DuckDB are compared with a ledger of hashes that the killed process kept (kill_parts/ledger.py). All files lie in a folder beside the
runs and are gone afterwards.
Run: python -m grpo_core bench kills --kills 200 --seed 0
"""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import psutil
from tqdm import tqdm

from grpo_core.config import make_config
from grpo_core.errors import ConfigError
from grpo_core.launch.exchange import import_run
from grpo_core.launch.folder import RunFolder, default_store
from grpo_core.launch.start import begin_run, create_run, prepare_resume
from grpo_core.launch.status import run_status
from grpo_core.launch.stop import stop_run
from storage.catalog import Catalog
from storage.errors import ExportRefused
from storage.importing import read_export
from storage.reader import Store
from storage.schema import TABLES
from storage.segments import RunWriter
from tests.benchmarks.kill_parts import victims
from tests.benchmarks.kill_parts.ledger import Book, Difference, Steps, difference, row_hashes
from tests.benchmarks.kill_parts.visitor import visiting
from tests.benchmarks.machine import machine_line

ROOT = Path(__file__).resolve().parents[2]
PRELOAD = ["tests.benchmarks.kill_parts.victims", "grpo_core.cli", "grpo_core.running", "grpo_core.trainer.loop", "grpo_core.launch.exchange", "storage.sql"]
ENDLESS = dict(
    steps=100_000, warmup_steps=3, prompts_per_step=2, group_size=2, max_new_tokens=8, eval_every=0, checkpoint_every=2, device="cpu", queue_steps=10_000,
    diagnose_every=0,
)  # fmt: skip
"""A small run that lasts until it is stopped or killed."""
PATIENCE_S = 180.0


@dataclass(frozen=True, slots=True)
class Kill:
    """Who was killed, and in the middle of what."""

    victim: str
    amid: str


@dataclass(slots=True)
class Outcome:
    """What the kills did: each of them, the steps committed, and what differed."""

    kills: list[Kill] = field(default_factory=list)
    committed: int = 0
    found: Difference = field(default_factory=Difference)
    broken: list[str] = field(default_factory=list)


def main(*, kills: int = 200, seed: int = 0, victims: str = "") -> Outcome:
    """Print who was killed amid what and what was lost, and return it; raises SystemExit if anything was. `victims` picks some of them."""
    names = [name.strip() for name in victims.split(",")] if victims else list(SHARES)
    if unknown := [name for name in names if name not in SHARES]:
        raise ConfigError(f"victims: unknown victim {unknown[0]!r}; known: {', '.join(SHARES)}")
    if not isinstance(kills, int) or kills < 1:
        raise ConfigError(f"kills: input should be a whole number of at least 1, got {kills!r}")
    print(machine_line("pyarrow", "duckdb", "streamlit"))
    store = default_store()
    store.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=store) as folder, tqdm(total=kills, desc="kills", unit="kill") as bar:
        scene = Scene(Path(folder), chance, names)
        try:
            for name in _order(kills, names, chance):
                SHARES[name][1](scene, name)
                bar.update(len(scene.outcome.kills) - bar.n)
                if bar.n >= kills:
                    break
            scene.end()
        finally:
            scene.sweep()
    report(scene.outcome)
    if scene.outcome.found or scene.outcome.broken:
        raise SystemExit(1)
    return scene.outcome


def report(outcome: Outcome) -> None:
    """Print the kills by victim and by what was going on, and what became of the steps."""
    amid = sorted({kill.amid for kill in outcome.kills})
    counts = Counter((kill.victim, kill.amid) for kill in outcome.kills)
    print(f"\n| killed | {' | '.join(amid)} | all |\n|---|{'---|' * (len(amid) + 1)}")
    for victim in dict.fromkeys(kill.victim for kill in outcome.kills):
        cells = [counts[victim, word] for word in amid]
        print(f"| {victim} | {' | '.join(str(n or '') for n in cells)} | {sum(cells)} |")
    print(f"| all | {' | '.join(str(sum(counts[v, word] for v in {k.victim for k in outcome.kills})) for word in amid)} | {len(outcome.kills)} |")
    found = outcome.found
    print(f"\n{len(outcome.kills)} kills, {outcome.committed} steps committed; rows lost {found.lost}, changed {found.changed}, doubled {found.doubled}")
    for sentence in outcome.broken:
        print(f"BROKEN: {sentence}")


class Scene:
    """A store with a run that writers share, one of the recorder and one of a trainer, a ledger each, and everything that is started on them."""

    def __init__(self, folder: Path, chance: random.Random, names: list[str]) -> None:
        self.root = folder / "store"
        self.folder = folder
        self.chance = chance
        self.outcome = Outcome()
        self.version = 0
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload(PRELOAD)
        (self.root / "runs").mkdir(parents=True)
        shared = default_store() / "cache"
        shared.mkdir(exist_ok=True)
        (self.root / "cache").symlink_to(shared.resolve())
        self.written = self._run("written")
        self.recorded = self._run("recorded")
        self.trained = self._train("trained") if "trainer" in names else None

    def _run(self, name: str) -> Book:
        config = make_config({"name": name, "steps": 100_000})
        folder = RunFolder.create(self.root, config, suffix=name)
        begin_run(folder, config, Catalog(self.root), command="")
        folder.status.write_text(json.dumps({"state": "stopped", "steps": 100_000}))
        with RunWriter.open(folder.path) as writer:
            writer.write_vocabulary([str(n) for n in range(50)])
        return Book(self.root, folder.run_id, self.folder / f"{name}.ledger")

    def _train(self, name: str) -> Book:
        folder = create_run(self.root, make_config(ENDLESS))
        RunWriter.open(folder.path).close()
        return Book(self.root, folder.run_id, self.folder / f"{name}.ledger")

    def start(self, target: Callable, *arguments: object) -> tuple[ForkServerProcess, Path]:
        """A victim, with an empty diary."""
        self.version += 1
        diary = self.folder / f"diary-{self.version}"
        process = self.processes.Process(target=target, args=[diary if a is DIARY else a for a in arguments])
        process.start()
        return process, diary

    def kill(self, victim: str, process: ForkServerProcess, diary: Path) -> bool:
        """SIGKILL; False if it had ended by itself."""
        alive = process.is_alive()
        process.kill()
        process.join()
        if alive and process.exitcode == -signal.SIGKILL:
            self.outcome.kills.append(Kill(victim, _last_word(diary)))
            return True
        if process.exitcode:
            said = victims.complaint(diary)
            self.outcome.broken.append(f"{victim} ended by itself with code {process.exitcode}: {said.read_text()[-500:] if said.exists() else ''}")
        return False

    def settle(self, *books: Book) -> None:
        """Compare runs with their ledgers."""
        for book in books:
            before = book.committed
            try:
                self.note(f"run {book.run_id}", book.settle())
            except Exception as error:  # noqa: BLE001  a run that cannot be read is what this looks for
                self.outcome.broken.append(f"after kill {len(self.outcome.kills)} ({self.outcome.kills[-1]}), run {book.run_id}: {error!r}")
            self.outcome.committed += book.committed - before

    def note(self, what: str, found: Difference) -> None:
        """Add to what differs."""
        self.outcome.found += found
        if found:
            self.outcome.broken.append(f"after kill {len(self.outcome.kills)} ({self.outcome.kills[-1]}), {what}: {found}")

    def end(self) -> None:
        """Seal what was written, and compare once more."""
        from storage.segments import seal

        for book in (self.written, self.recorded):
            seal(book.run_dir)
            self.settle(book)

    def sweep(self) -> None:
        """Leave no process behind: those launched in the store, and those beside them."""
        for run_id in Store(self.root).run_ids():
            if run_status(self.root, run_id).alive:
                stop_run(self.root, run_id, grace_s=0)
        for process in psutil.process_iter(["cmdline"]):
            if str(self.root) in (process.info["cmdline"] or []):
                with suppress(psutil.Error):
                    process.kill()

    def wait_for(self, process: ForkServerProcess, diary: Path, *words: str, times: int = 1) -> None:
        """Until it has said one of the words so often, or has ended."""
        until = time.monotonic() + PATIENCE_S
        while process.is_alive() and sum(word in words for word in _words(diary)) < times:
            assert time.monotonic() < until, f"{words} not said within {PATIENCE_S:.0f} s; it said {_words(diary)[-5:]}"
            time.sleep(0.001)

    def sleep(self, most_s: float) -> None:
        time.sleep(self.chance.uniform(0, most_s))


DIARY = object()
"""Stands for the diary among a victim's arguments."""

# Each kind of victim --------------------------------------------------------------------------------------------------


def _writer(scene: Scene, name: str, beside: Callable[[], None] = lambda: None) -> None:
    cut = scene.chance.randint(1, 40) if scene.chance.random() < 0.4 else 0
    word, most_s = scene.chance.choice([("opening", 0.2), ("writing", 0.5), ("merging", 0.05)] if not cut else [("superseding", 0.1)])
    process, diary = scene.start(victims.write, scene.written.run_dir, scene.written.ledger, DIARY, scene.version, cut)
    scene.wait_for(process, diary, word, times=scene.chance.randint(1, 5) if word in ("writing", "merging") else 1)
    beside()
    scene.sleep(most_s)
    scene.kill(name, process, diary)
    scene.settle(scene.written)


def _packer(scene: Scene, name: str) -> None:
    word, most_s = scene.chance.choice([("sealing", 0.5), ("unsealing", 0.3), ("opening", 0.3), ("writing", 1.5)])
    process, diary = scene.start(victims.pack, scene.written.run_dir, scene.written.ledger, DIARY, scene.version)
    scene.wait_for(process, diary, word)
    scene.sleep(most_s)
    scene.kill(name, process, diary)
    scene.settle(scene.written)


def _recorder(scene: Scene, name: str) -> None:
    cut = scene.chance.randint(1, 40) if scene.chance.random() < 0.25 else 0
    word, most_s = scene.chance.choice([("writing", 2.0), ("merging", 0.2)] if not cut else [("superseding", 0.1), ("writing", 0.5)])
    process, diary = scene.start(victims.record, scene.recorded.run_dir, scene.recorded.ledger, DIARY, scene.version, cut)
    scene.wait_for(process, diary, word)
    scene.sleep(most_s)
    scene.kill(name, process, diary)
    scene.settle(scene.recorded)


def _trainer(scene: Scene, name: str) -> None:
    folder = RunFolder.open(scene.root, scene.trained.run_id)
    while run_status(scene.root, scene.trained.run_id).alive and scene.trained.committed:  # one killed before its first word counts as starting for a while
        time.sleep(0.2)
    if folder.has_checkpoint():
        prepare_resume(folder)
        word, times = scene.chance.choice([("training", 1), ("superseding", 1), ("superseding", 1), ("writing", scene.chance.randint(1, 4))])
    else:  # the first one must come that far that another can go on
        word, times = "writing", 4
    process, diary = scene.start(victims.train, scene.trained.run_dir, scene.trained.ledger, DIARY)
    scene.wait_for(process, diary, word, times=times)
    while not folder.has_checkpoint() and process.is_alive():
        time.sleep(0.01)
    scene.sleep(0.05 if word == "superseding" else 0.5)
    scene.kill(name, process, diary)
    scene.settle(scene.trained)


def _command(scene: Scene, name: str, word: str, most_s: float, *arguments: object) -> None:
    """A command on the run that writers share; while it only reads, in half of the cases beside a writer, which is then killed too."""
    arguments = [str(a) for a in (*arguments, "--store", scene.root)]
    process, diary = scene.start(victims.command, arguments, scene.written.ledger, DIARY, word)

    def kill() -> None:
        scene.wait_for(process, diary, word)
        scene.sleep(most_s)
        scene.kill(name, process, diary)

    if word not in ("sealing",) and scene.chance.random() < 0.5:
        _writer(scene, "writer", beside=kill)
    else:
        kill()
        scene.settle(scene.written)


def _export(scene: Scene, name: str) -> None:
    target = scene.folder / ("out.duckdb" if scene.chance.random() < 0.5 else "out")
    form = ["--format", "duckdb"] if target.suffix else ["--format", "parquet"]
    _command(scene, name, "exporting", 1.5, "export", scene.written.run_id, "--to", target, *form)
    if target.exists():
        with suppress(ExportRefused):  # half an export is told from a whole one
            read_export(target)
            scene.note(f"export of {scene.written.run_id}", _never_committed(scene.written, _rows_of_export(target)))
        shutil.rmtree(target) if target.is_dir() else target.unlink()


def _import(scene: Scene, name: str) -> None:
    source = scene.folder / "whole.duckdb"
    if not source.exists():
        _finish(scene, "export", scene.written.run_id, "--to", source, "--format", "duckdb")
    want = _rows_of_export(source)
    wanted = f"copy-{scene.version}"
    _command(scene, name, "importing", 1.5, "import", source, "--as", wanted)
    there = wanted in Store(scene.root).run_ids()
    new = import_run(scene.root, source, run_id=wanted).new
    assert new != there, "an import that is there is whole, one that is not can be done again"
    book = Book(scene.root, wanted, scene.folder / "none")
    scene.note(f"import as {wanted}", difference(want, book.steps))


def _seal(scene: Scene, name: str) -> None:
    _command(scene, name, "sealing", 0.5, "seal", scene.written.run_id)


def _sql(scene: Scene, name: str) -> None:
    _command(scene, name, "asking SQL", 1.0, "sql", "select step, count(*), avg(entropy) from tokens group by step", "--run", scene.written.run_id)


def _launch(scene: Scene, name: str) -> None:
    """Whatever is there after the kill of a launch must have a state and be stopped; a kill of `stop` must leave a run that stops."""
    before = set(Store(scene.root).run_ids())
    options = [part for option, value in ENDLESS.items() for part in (f"--{option.replace('_', '-')}", str(value))]
    started = _cli("launch", *options, "--store", scene.root)
    _kill_command(scene, name, started, "launching", 1.5)
    for run_id in set(Store(scene.root).run_ids()) - before:
        if run_status(scene.root, run_id).alive:
            _kill_command(scene, "command stop", _cli("stop", run_id, "--store", scene.root), "stopping", 2.0)
        _see_it_ended(scene, run_id)
    scene.settle(scene.written)


def _app(scene: Scene, name: str) -> None:
    """The app, killed while its pages read a run that a writer may be writing, and while it launches and stops a run."""
    from tests.browser.conftest import start

    server, address = start(scene.root)
    before = set(Store(scene.root).run_ids())
    writing = None

    def shoot(word: str) -> None:
        alive = server.poll() is None
        server.kill()
        server.wait()
        assert alive, "the app ended by itself"
        scene.outcome.kills.append(Kill("app", word))

    try:
        if name == "app":
            page = scene.chance.choice(["run", "run", "diagnosis", "likelihood", "variance", "conflicts", "runs"])
            if scene.chance.random() < 0.5:
                writing, diary = scene.start(victims.write, scene.written.run_dir, scene.written.ledger, DIARY, scene.version, 0)
                scene.wait_for(writing, diary, "writing")
            with suppress(OSError, EOFError), visiting(address, page, run=scene.written.run_id):
                scene.sleep(2.0)
                shoot("reading")
            if writing:
                scene.kill("writer", writing, diary)
        else:
            _press(scene, address, shoot, before)
    finally:
        server.kill()
        server.wait()
    for run_id in set(Store(scene.root).run_ids()) - before:
        _see_it_ended(scene, run_id)
    scene.settle(scene.written)


def _press(scene: Scene, address: str, shoot: Callable[[str], None], before: set[str]) -> None:
    stopping = scene.chance.random() < 0.5
    with suppress(OSError, EOFError), visiting(address, "launch", change=json.dumps(ENDLESS)) as page:
        page.press("launch.go")
        if not stopping:
            scene.sleep(0.6)
            return shoot("launching")
        while not (new := set(Store(scene.root).run_ids()) - before):
            time.sleep(0.01)
        with visiting(address, "run", run=new.pop()) as run:
            run.press("run.stop")
            run.press("stop.yes")
            scene.sleep(0.6)
            shoot("stopping")


SHARES: dict[str, tuple[int, Callable[[Scene, str], None]]] = {
    "writer": (40, _writer),
    "packer": (34, _packer),
    "recorder": (28, _recorder),
    "trainer": (24, _trainer),
    "command export": (12, _export),
    "command import": (12, _import),
    "command seal": (10, _seal),
    "command sql": (6, _sql),
    "command launch": (6, _launch),
    "app": (12, _app),
    "app launch": (6, _app),
}
"""Who is killed, and how often of about 200 kills; some bring a second kill with them."""

# What they need -------------------------------------------------------------------------------------------------------


def _order(kills: int, names: list[str], chance: random.Random) -> list[str]:
    """Victims in random order, each as often as its share says and at least once, with more than enough to reach `kills`."""
    total = sum(SHARES[name][0] for name in names)
    drawn = [name for name in names for _ in range(max(1, round(kills * SHARES[name][0] / total)))]
    chance.shuffle(drawn)
    return drawn + [chance.choice(names) for _ in range(2 * kills)]


def _cli(*arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "grpo_core", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _kill_command(scene: Scene, name: str, process: subprocess.Popen, word: str, most_s: float) -> None:
    scene.sleep(most_s)
    process.kill()
    if process.wait() == -signal.SIGKILL:
        scene.outcome.kills.append(Kill(name, word))
    elif process.returncode:
        scene.outcome.broken.append(f"{name} ended by itself with code {process.returncode}")


def _finish(scene: Scene, *arguments: object) -> None:
    process, diary = scene.start(victims.command, [str(a) for a in (*arguments, "--store", scene.root)], scene.written.ledger, DIARY, "")
    process.join()
    assert process.exitcode == 0, arguments


def _see_it_ended(scene: Scene, run_id: str) -> None:
    """A run that a killed process had launched or was stopping has a state, and can be stopped."""
    if run_status(scene.root, run_id).alive:
        stop_run(scene.root, run_id, grace_s=0)
    status = run_status(scene.root, run_id)
    until = time.monotonic() + PATIENCE_S
    while status.alive and time.monotonic() < until:  # a launch that was killed before it had a process counts as starting for a while
        time.sleep(0.2)
        status = run_status(scene.root, run_id)
    store = Store(scene.root)
    if status.alive or store.damaged(run_id):
        scene.outcome.broken.append(f"run {run_id} is {status.state} ({status.message}), damaged: {store.damaged(run_id)}")


def _rows_of_export(path: Path) -> Steps:
    import duckdb

    with duckdb.connect() as database:
        if path.is_dir():
            return row_hashes(database, {name: f"read_parquet('{path / name}.parquet')" for name in TABLES})
        database.execute(f"attach '{path}' as export (read_only)")
        return row_hashes(database, {name: f"export.main.{name}" for name in TABLES})


def _never_committed(book: Book, steps: Steps) -> Difference:
    """How the steps of an export differ from what was committed; one that was set aside since is right as it was before."""
    return sum((min((difference({step: was}, {step: rows}) for was in book.ever(step)), key=_weight) for step, rows in steps.items()), Difference())


def _weight(found: Difference) -> int:
    return found.lost + found.changed + found.doubled


def _words(diary: Path) -> list[str]:
    return diary.read_text().split("\n")[:-1] if diary.exists() else []


def _last_word(diary: Path) -> str:
    return next(reversed(_words(diary)), "starting")

"""What is known of runs beside their records, small and mutable: names, tags, notes, launches, alerts, saved queries; SQLAlchemy over SQLite or PostgreSQL.

A run's state is never only here: without this file every run is still readable, only its names, tags, notes and alerts are gone.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout
from sqlalchemy import URL, Engine, ForeignKey, create_engine, delete, event, make_url, select, text, update
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable

from storage.errors import StoreError

FILE = "catalog.sqlite"
BUSY_S = 10.0
CREATION_LOCK = 0x67726F7570
"""Held in PostgreSQL while tables are made: two that make one at the same moment fail there, even with "if not exists"."""
HIDDEN = "***"
ALERT_COLUMNS = ["run_id", "step", "level", "cause", "sentence", "link", "at"]


class Base(DeclarativeBase):
    """The catalogue's tables."""


class Run(Base):
    """One run as people know it; `created_at` (s since 1970) is None for a run that was annotated but never registered."""

    __tablename__ = "runs"
    run_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    note: Mapped[str] = mapped_column(default="")
    created_at: Mapped[float | None]
    tags: Mapped[list[Tag]] = relationship(order_by="Tag.tag", lazy="selectin")


class Tag(Base):
    """One tag of one run."""

    __tablename__ = "tags"
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.run_id"), primary_key=True)
    tag: Mapped[str] = mapped_column(primary_key=True)


class Launch(Base):
    """One start of a run's process: the command a person could type, and when (s since 1970)."""

    __tablename__ = "launches"
    launch_id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str]
    command: Mapped[str]
    at: Mapped[float]


class Alert(Base):
    """Something a run's diagnosis said when its level rose or fell: after which step, why, where to look, and when (s since 1970)."""

    __tablename__ = "alerts"
    alert_id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str]
    step: Mapped[int]
    level: Mapped[str]
    cause: Mapped[str]
    sentence: Mapped[str]
    link: Mapped[str]
    at: Mapped[float]


class SavedQuery(Base):
    """A query that people keep under a name; saved at a time (s since 1970)."""

    __tablename__ = "saved_queries"
    name: Mapped[str] = mapped_column(primary_key=True)
    text: Mapped[str]
    at: Mapped[float]


class Nonce(Base):
    """A form that was sent, so that sending it twice does things once."""

    __tablename__ = "nonces"
    nonce: Mapped[str] = mapped_column(primary_key=True)
    claimed_at: Mapped[float]


class Catalog:
    """The catalogue of a store folder, or of a team by SQLAlchemy URL; makes its own tables. Safe across threads and processes.

    Of a folder that cannot be written, a read-only mount, it is read as it was when opened. Every method raises StoreError, with what to do,
    when the catalogue is damaged, locked for over 10 s, out of reach, or to be written where that cannot be. No message has a password.
    """

    def __init__(self, root_or_url: Path | str) -> None:
        self._file = None if "://" in str(root_or_url) else Path(root_or_url) / FILE
        if self._file and _read_only(self._file.parent):
            self._copied = tempfile.TemporaryDirectory(prefix="groupscope-catalog-")  # SQLite wants to write beside the file it reads
            self._engine = _sqlite(_copy(self._file, Path(self._copied.name)), writable=False)
            return
        self._engine = _sqlite(self._file) if self._file else _by_url(str(root_or_url))
        self._create_tables()

    def register(self, run_id: str, name: str) -> None:
        """Enter a run under a name, now; a run that is known keeps its tags and note."""
        self._write_run(run_id, name=name, created_at=time.time())

    def rename(self, run_id: str, name: str) -> None:
        """Give a run another name."""
        self._write_run(run_id, name=name)

    def set_note(self, run_id: str, note: str) -> None:
        """Replace a run's note."""
        self._write_run(run_id, note=note)

    def set_tags(self, run_id: str, tags: Iterable[str]) -> None:
        """Replace a run's tags; surrounding blanks, empty and repeated tags are dropped."""
        wanted = sorted({tag.strip() for tag in tags} - {""})

        def replace(session: Session) -> None:
            session.execute(delete(Tag).where(Tag.run_id == run_id))
            session.add_all(Tag(run_id=run_id, tag=tag) for tag in wanted)

        self._write(Run, {"run_id": run_id}, {}, also=replace)

    def annotations(self) -> pd.DataFrame:
        """One row per run: run_id, name, tags (list, sorted), note, created_at (s since 1970, NaN if never registered)."""
        with self._session() as session:
            rows = [(r.run_id, r.name, [t.tag for t in r.tags], r.note, r.created_at) for r in session.scalars(select(Run).order_by(Run.run_id))]
        return pd.DataFrame(rows, columns=["run_id", "name", "tags", "note", "created_at"]).astype({"created_at": "f8"})

    def claim(self, nonce: str) -> bool:
        """True for the first caller with this nonce, in any thread or process; False for every later one."""
        try:
            with self._session() as session:
                session.add(Nonce(nonce=nonce, claimed_at=time.time()))
        except IntegrityError:
            return False
        return True

    def record_launch(self, run_id: str, command: str, at: float) -> None:
        """Remember that a run's process was started with this command at this time (s since 1970)."""
        with self._session() as session:
            session.add(Launch(run_id=run_id, command=command, at=at))

    def launches(self, run_id: str) -> pd.DataFrame:
        """Starts of a run's process, oldest first: at (s since 1970), command."""
        with self._session() as session:
            query = select(Launch.at, Launch.command).where(Launch.run_id == run_id).order_by(Launch.at, Launch.launch_id)
            return pd.DataFrame(session.execute(query).all(), columns=["at", "command"])

    def record_alert(self, run_id: str, *, step: int, level: str, cause: str, sentence: str, link: str, at: float) -> None:
        """Keep what the diagnosis of a run said after a step; `link` is the path in the app that shows it."""
        with self._session() as session:
            session.add(Alert(run_id=run_id, step=step, level=level, cause=cause, sentence=sentence, link=link, at=at))

    def alerts(self, run_id: str | None = None) -> pd.DataFrame:
        """Alerts of a run or of all, newest first: run_id, step, level, cause, sentence, link, at (s since 1970)."""
        with self._session() as session:
            query = select(*(getattr(Alert, name) for name in ALERT_COLUMNS)).order_by(Alert.at.desc(), Alert.alert_id.desc())
            return pd.DataFrame(session.execute(query if run_id is None else query.where(Alert.run_id == run_id)).all(), columns=ALERT_COLUMNS)

    def save_query(self, name: str, text: str) -> None:
        """Keep a query under a name; one of that name is replaced."""
        self._write(SavedQuery, {"name": name}, {"text": text, "at": time.time()})

    def delete_query(self, name: str) -> None:
        """Forget a saved query; an unknown name does nothing."""
        with self._session() as session:
            session.execute(delete(SavedQuery).where(SavedQuery.name == name))

    def queries(self) -> dict[str, str]:
        """The text of every saved query by its name, in order of name."""
        with self._session() as session:
            return {query.name: query.text for query in session.scalars(select(SavedQuery).order_by(SavedQuery.name))}

    def _write_run(self, run_id: str, **values: object) -> None:
        self._write(Run, {"run_id": run_id}, values)

    def _write(self, table: type[Base], key: dict[str, str], values: dict[str, object], *, also: Callable[[Session], None] = lambda session: None) -> None:
        """Update the row of that key, or make it, and do `also` in the same transaction.

        The update comes first: in SQLite it takes the write lock before anything is read, in PostgreSQL the row's, so that what two write to
        one row comes one after the other.
        """
        try:
            self._write_once(table, key, values, also)
        except IntegrityError:  # PostgreSQL: another has made the row since our update found none, so now it finds one
            self._write_once(table, key, values, also)

    def _write_once(self, table: type[Base], key: dict[str, str], values: dict[str, object], also: Callable[[Session], None]) -> None:
        with self._session() as session:
            if session.execute(update(table).filter_by(**key).values(**key, **values)).rowcount == 0:
                session.add(table(**key, **values))
                session.flush()
            also(session)

    def _create_tables(self) -> None:
        with self._translated():
            if self._file:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                # SQLite's busy timeout does not cover two processes switching a new file to WAL: up to 1 in 7 such starts failed "locked"
                with FileLock(f"{self._file}.lock", timeout=BUSY_S, poll_interval=0.005):
                    _create_tables(self._engine)
            else:
                _create_tables(self._engine)

    @contextmanager
    def _session(self) -> Iterator[Session]:
        if self._file and not self._file.exists() and not _read_only(self._file.parent):  # someone deleted a damaged file, as its message said
            self._create_tables()
        with self._translated(), Session(self._engine) as session, session.begin():
            yield session

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except (DBAPIError, PoolTimeout, OSError) as error:
            raise StoreError(self._sentence(error)) from error

    def _sentence(self, error: DBAPIError | PoolTimeout | OSError) -> str:
        where, why = self._file or shown(self._engine.url), getattr(error, "orig", None) or error
        if self._engine.dialect.name != "sqlite":
            why = " ".join(str(why).split())[:300]
            return f"the catalogue {where} cannot be used ({why}); runs are untouched: check that its server is up, and its user, password and database"
        if "readonly database" in str(why):
            return f"the catalogue {where} cannot be written, only read; to name, tag or note runs, make its folder writable or copy the store to one that is"
        if any(sign in str(why) for sign in ("not a database", "malformed", "no such table", "no such column")):
            return f"the catalogue {where} is damaged ({why}); runs are untouched: delete {where}* and it is made anew, without names, tags and notes"
        if isinstance(error, Timeout) or "locked" in str(why):
            return f"the catalogue {where} was locked by another process for over {BUSY_S:.0f} s; try again"
        return f"the catalogue {where} cannot be used ({why}); runs are untouched: check that its place exists, is writable and has room"


def _sqlite(file: Path, *, writable: bool = True) -> Engine:
    """An engine that opens the file for each use, so that a deleted and remade file is noticed."""
    engine = create_engine(URL.create("sqlite", database=str(file)), poolclass=NullPool, connect_args={"timeout": BUSY_S})

    @event.listens_for(engine, "connect")
    def _configure(connection, _record) -> None:
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma foreign_keys = on")
        if not writable:
            connection.execute("pragma query_only = on")

    return engine


def _by_url(given: str) -> Engine:
    """An engine on a database server; whether a connection still works is asked before each use, so that a server may be started anew."""
    try:
        url = make_url(given)
        waiting = {"connect_timeout": int(BUSY_S)} if url.get_backend_name() == "postgresql" else {}
        return create_engine(url, pool_pre_ping=True, hide_parameters=True, connect_args=waiting)
    except ImportError as error:
        missing = f"{error.name or error} is not installed"
        raise StoreError(f"cannot open the catalogue at {shown(given)}: {missing}; for PostgreSQL: pip install 'psycopg[binary]'") from None
    except (ArgumentError, ValueError) as error:
        why = error if isinstance(error, ArgumentError) else "its port is no number"  # Python's own words would repeat a part of the password
        raise StoreError(f"cannot open the catalogue at {shown(given)}: {why}; give a store folder or a URL like postgresql://user@host/base") from None


def shown(url: URL | str) -> str:
    """A URL without its password, wherever in it that stands."""
    rendered = url.render_as_string() if isinstance(url, URL) else re.sub(r"(?<=://).*(?=@)", HIDDEN, url)
    return re.sub(r"(?<=[?&]password=)[^&]*", HIDDEN, rendered)


def _read_only(folder: Path) -> bool:
    return folder.is_dir() and not os.access(folder, os.W_OK)


def _copy(file: Path, folder: Path) -> Path:
    """The catalogue with what its last writer left in the write-ahead log, or an empty one."""
    for source in (file, file.with_name(f"{file.name}-wal")):
        if source.exists():
            shutil.copyfile(source, folder / source.name)
    if not file.exists():
        _create_tables(_sqlite(folder / file.name))
    return folder / file.name


def _create_tables(engine: Engine) -> None:
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": CREATION_LOCK})
        for table in Base.metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))

"""Servers that tests start as processes of their own, on loopback: PostgreSQL from Debian's package, and one that speaks S3."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

UP_WITHIN_S = 60.0
PASSWORD = "s3cret/pass"
"""With a character that a URL must write as %2F."""
QUOTED_PASSWORD = "s3cret%2Fpass"


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + UP_WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} within {UP_WITHIN_S:.0f} s"
        time.sleep(0.05)


def postgres_programs() -> Path | None:
    """The folder of initdb and postgres; None where they are not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(path) for path in [shutil.which("initdb")] if path]
    return found[-1].resolve().parent if found else None


class Postgres:
    """A server that may be stopped and started; `url(database)` is a new, empty database's."""

    def __init__(self, folder: Path, programs: Path, user: str | None) -> None:
        self._folder, self._programs, self._user = folder, programs, user
        self._port = free_port()
        self._made = 0
        self._server: subprocess.Popen | None = None
        password = folder / "password"
        password.write_text(PASSWORD)
        if user:
            shutil.chown(folder, user)
            shutil.chown(password, user)
        self._run("initdb", "-D", str(folder / "data"), "-U", "gs", "-A", "scram-sha-256", f"--pwfile={password}", "-N", "-E", "UTF8", "--no-locale")
        self.start()

    def start(self) -> None:
        program = [str(self._programs / "postgres"), "-D", str(self._folder / "data"), "-k", str(self._folder), "-h", "127.0.0.1", "-p", str(self._port), "-F"]
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(program, user=self._user, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(self._answers, f"PostgreSQL is up ({self._folder / 'log'})")

    def stop(self) -> None:
        """At once, whoever is connected; what was committed stays."""
        self._server.send_signal(3)
        self._server.wait(30)

    def url(self, *, password: str = QUOTED_PASSWORD, port: int | None = None) -> str:
        self._made += 1
        with self._connect() as connection:
            connection.execute(f"create database base_{os.getpid()}_{self._made}")
        return f"postgresql://gs:{password}@127.0.0.1:{port or self._port}/base_{os.getpid()}_{self._made}"

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(host="127.0.0.1", port=self._port, user="gs", password=PASSWORD, dbname="postgres", autocommit=True)

    def _answers(self) -> bool:
        assert self._server.poll() is None, (self._folder / "log").read_text()
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run([self._programs / program, *arguments], user=self._user, cwd=self._folder, check=True, capture_output=True)


@contextmanager
def postgres_server(programs: Path) -> Iterator[Postgres]:
    """PostgreSQL refuses to be root, so root runs it as the user that Debian's package makes."""
    user = None
    if os.getuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in names else "nobody"
    with tempfile.TemporaryDirectory(prefix="gs-pg-") as folder:
        server = Postgres(Path(folder), programs, user)
        try:
            yield server
        finally:
            server.stop()


class S3:
    """A server that speaks S3, moto's, as a process, behind a relay that can refuse everyone or leave them hanging for a while."""

    def __init__(self) -> None:
        self._behind, self._port = free_port(), free_port()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._behind)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self._answers, "the S3 server is up")
        self.back()

    @property
    def environment(self) -> Mapping[str, str]:
        """What makes s3fs and boto talk to it and to nobody else."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def make_bucket(self, name: str) -> str:
        urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{self._behind}/{name}", method="PUT", headers=_SIGNED), timeout=30)
        return f"s3://{name}"

    def away(self, how: str) -> None:
        """From now on it "refuses" to be connected with, or "hangs": takes in everything and answers nothing. It keeps what it holds."""
        self._relay.stop()
        if how == "hangs":
            self._relay = _Relay(self._port, None)

    def back(self) -> None:
        if hasattr(self, "_relay"):
            self._relay.stop()
        self._relay = _Relay(self._port, self._behind)

    def stop(self) -> None:
        self._relay.stop()
        self._process.terminate()
        self._process.wait(30)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "moto's server has ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self._behind}/moto-api/", timeout=5)
        except OSError:
            return False
        return True


class _Relay:
    """Passes on what arrives at a port to another one, or swallows it."""

    def __init__(self, port: int, target: int | None) -> None:
        self._target, self._open = target, []
        self._listening = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Nobody gets in any more, and who is in is thrown out."""
        for one in (self._listening, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._target)) if self._target else None
            except OSError:
                return
            self._open += [client, *([server] if server else [])]
            for source, target in ((client, server), (server, client)) if server else ((client, None),):
                threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket | None) -> None:
        with suppress(OSError):
            while some := source.recv(1 << 16):
                if target:
                    target.sendall(some)
        for one in filter(None, (source, target)):
            one.close()


_SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20300101/us-east-1/s3/aws4_request"}


@contextmanager
def s3_server() -> Iterator[S3]:
    server = S3()
    try:
        yield server
    finally:
        server.stop()

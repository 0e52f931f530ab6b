"""What the service needs goes away for a while, or is full, or stands still."""

import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import grpc
import psycopg
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from sqlalchemy.engine import URL, make_url

from identity.v1.identity_pb2 import RegisterRequest, VerifyEmailRequest
from identity.v1.identity_pb2_grpc import IdentityServiceStub
from tests.crowd import at_once
from tests.faults.bench import Bench, Conclude
from tests.faults.nodes import Node, channel_to, nodes
from tests.faults.postgres import PostgresServer, postgres_server, url_of
from tests.faults.sink import Sink
from tests.faults.table import Figure, below, exactly, only
from tests.requests import registration

DEADLINE: Final = 5.0  # seconds of each call
TOKEN_USED: Final = "INVALID_ARGUMENT TOKEN_USED"
UNAVAILABLE: Final = "UNAVAILABLE DATABASE_UNAVAILABLE"
CALLERS: Final = 60  # more than the pool has connections
_LOCKED: Final = 10.0  # seconds that another holds the SQLite file
_DISK: Final = 32  # MiB, several times the 4 to which SQLite lets its log grow
_TOLD: Final = 30.0  # seconds until health must have changed
_REQUEST_ID: Final = "0b7b6c53-0e0c-4b3e-9d9f-6a6f3b1f2c58"
_SERVICES: Final = ("", "identity.v1.IdentityService")
_TABLES: Final = ("users", "verifications", "outbox", "idempotency_keys")
_SERVING: Final = HealthCheckResponse.SERVING
_NOT_SERVING: Final = HealthCheckResponse.NOT_SERVING


class Client:
    """Calls one process, and names how each call ended."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = IdentityServiceStub(channel)
        self._health = HealthStub(channel)
        self._people = 0

    def register(self, request: RegisterRequest | None = None) -> str:
        """Somebody new, if nobody is given."""
        return self.register_many(1)[0] if request is None else self._call("Register", request)

    def register_many(self, number: int) -> list[str]:
        """So many new people at the same moment."""
        numbers = range(self._people, self._people + number)
        self._people += number
        requests = [registration(f"user{n}", f"user{n}@example.com") for n in numbers]
        return at_once(
            [partial(self._stub.Register, request, timeout=DEADLINE) for request in requests]
        )

    def repeat(self) -> str:
        """A known request, which takes a look into the database and no change."""
        request = registration("repeat", "repeat@example.com", request_id=_REQUEST_ID)
        return self._call("Register", request)

    def verify(self, token: str) -> str:
        return self._call("VerifyEmail", VerifyEmailRequest(token=token))

    def watch(self) -> "list[Watch]":
        return [
            Watch(self._health.Watch(HealthCheckRequest(service=name), timeout=300))
            for name in _SERVICES
        ]

    def _call(self, rpc: str, request: object) -> str:
        return at_once([partial(getattr(self._stub, rpc), request, timeout=DEADLINE)])[0]


class Watch:
    """Notes each change of health as it comes."""

    def __init__(self, answers: Iterator[HealthCheckResponse]) -> None:
        self._statuses: list[int] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._read, args=(answers,), daemon=True).start()

    def _read(self, answers: Iterator[HealthCheckResponse]) -> None:
        try:
            for answer in answers:
                with self._changed:
                    self._statuses.append(answer.status)
                    self._changed.notify_all()
        except grpc.RpcError:  # the process has ended
            return

    def becomes(self, status: int) -> bool:
        """Waits until that is the last word; False if it is not after a while."""
        with self._changed:
            return self._changed.wait_for(lambda: self._statuses[-1:] == [status], _TOLD)

    def statuses(self) -> list[int]:
        with self._changed:
            return list(self._statuses)


@dataclass(frozen=True)
class Place:
    """One process on a database of its own, with the mail server that it sends to."""

    node: Node
    client: Client
    sink: Sink

    def token(self) -> str:
        """The token of somebody new."""
        before = self.sink.copies()
        assert self.client.register() == "OK"
        assert self.sink.wait_for(len(before) + 1, _TOLD)
        ((copy,),) = (copies for who, copies in self.sink.copies().items() if who not in before)
        return copy.token


@contextmanager
def _place(bench: Bench, url: URL, name: str) -> Iterator[Place]:
    with ExitStack() as stack:
        sink = stack.enter_context(Sink())
        (node,) = nodes(stack, bench.folder / name, url, sink.port, 1)
        node.start()
        client = Client(stack.enter_context(channel_to(node)))
        assert client.repeat() == "OK"  # the first of them
        assert sink.wait_for(1, _TOLD)
        yield Place(node, client, sink)
        node.stop()


def outages_of_postgres(bench: Bench) -> Conclude:
    server = bench.stack.enter_context(postgres_server())
    figures: list[Figure] = []
    with _place(bench, url_of(server), "service") as place:
        for outage in (_stopped, _frozen, _cut_off, _exhausted):
            figures += outage(server, place)
    figures.append(_unforeseen(place.node))
    return lambda: figures


def _stopped(server: PostgresServer, place: Place) -> Iterator[Figure]:
    token = place.token()
    watches = place.client.watch()
    told = [watch.becomes(_SERVING) for watch in watches]
    server.stop()
    outcomes = [place.client.register(), place.client.verify(token), place.client.repeat()]
    without = place.client.verify("rubbish")
    told += [watch.becomes(_NOT_SERVING) for watch in watches]
    server.start()
    after = [place.client.register(), place.client.verify(token), place.client.repeat()]
    told += [watch.becomes(_SERVING) for watch in watches]
    yield only("stopped: calls meanwhile", outcomes, UNAVAILABLE)
    yield only("stopped: a call without a query", [without], "INVALID_ARGUMENT TOKEN_INVALID")
    yield only("stopped: calls as soon as it is back", after, "OK")
    yield exactly("stopped: changes of health that were told", sum(told), 3 * len(_SERVICES))


def _frozen(server: PostgresServer, place: Place) -> Iterator[Figure]:
    token = place.token()
    watches = place.client.watch()
    server.freeze()
    begun = time.monotonic()
    outcomes = [place.client.verify(token), *place.client.register_many(CALLERS)]
    longest = time.monotonic() - begun
    told = [watch.becomes(_NOT_SERVING) for watch in watches]
    server.thaw()
    after = [place.client.register()]
    repeated = place.client.verify(token)
    told += [watch.becomes(_SERVING) for watch in watches]
    yield only("hanging: calls meanwhile", outcomes, UNAVAILABLE)
    yield below("hanging: two calls, one after the other, took", longest, 2 * DEADLINE)
    yield only("hanging: calls as soon as it goes on", after, "OK")
    # The server may carry out a statement that nobody waits for any more: the address is proven.
    yield only("hanging: the repeat of a VerifyEmail", [repeated], "OK", TOKEN_USED)
    yield exactly("hanging: changes of health that were told", sum(told), 2 * len(_SERVICES))


def _cut_off(server: PostgresServer, place: Place) -> Iterator[Figure]:
    place.client.register_many(CALLERS)  # so that the pool is full
    server.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE application_name = 'identity'"
    )
    yield only("connections cut while idle: calls", place.client.register_many(CALLERS), "OK")


def _exhausted(server: PostgresServer, place: Place) -> Iterator[Figure]:
    watch = place.client.watch()[0]
    watch.becomes(_SERVING)
    with psycopg.connect(host=str(server.folder), user="postgres", dbname="postgres") as other:
        other.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        outcomes = place.client.register_many(CALLERS)
    after = place.client.register_many(CALLERS)
    yield only("pool exhausted: calls meanwhile", outcomes, UNAVAILABLE)
    yield only("pool exhausted: calls as soon as it is free", after, "OK")
    yield exactly("pool exhausted: changes of health", len(watch.statuses()) - 1, 0)


def outages_of_sqlite(bench: Bench) -> Conclude:
    figures = [*_locked(bench), *_disk_full(bench), *_mail_server_away(bench)]
    return lambda: figures


def _locked(bench: Bench) -> Iterator[Figure]:
    path = bench.folder / "locked.db"
    with _place(bench, make_url(f"sqlite:///{path}"), "locked") as place:
        token = place.token()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            release = threading.Timer(_LOCKED, lambda: None)
            release.start()
            outcomes = [place.client.verify(token)]
            reads = [place.client.repeat()]
            outcomes.append(place.client.register())
            release.join()
            other.execute("ROLLBACK")
        after = [place.client.verify(token), place.client.register()]
    yield only("SQLite locked for 10 s: changes meanwhile", outcomes, UNAVAILABLE)
    yield only("SQLite locked for 10 s: reads meanwhile", reads, "OK")
    yield only("SQLite locked for 10 s: calls afterwards", after, "OK")
    yield exactly("SQLite locked for 10 s: half registrations", _halves(path), 0)
    yield _unforeseen(place.node)


def _disk_full(bench: Bench) -> Iterator[Figure]:
    with ExitStack() as stack:
        disk = bench.folder / "disk"
        disk.mkdir()
        if not _mount_small_disk(stack, disk):
            yield Figure("disk full", "not shown: no disk can be mounted here", "", is_right=True)
            return
        path = disk / "identity.db"
        with _place(bench, make_url(f"sqlite:///{path}"), "full") as place:
            ballast = disk / "ballast"
            _fill(ballast)
            outcomes = place.client.register_many(CALLERS)
            reads = [place.client.repeat()]
            ballast.unlink()
            after = place.client.register_many(CALLERS)
        yield only("disk full: changes meanwhile", outcomes, UNAVAILABLE)
        yield only("disk full: reads meanwhile", reads, "OK")
        yield only("disk full: calls once there is room", after, "OK")
        yield exactly("disk full: half registrations", _halves(path), 0)
        yield _unforeseen(place.node)


def _mount_small_disk(stack: ExitStack, folder: Path) -> bool:
    options = ["-t", "tmpfs", "-o", f"size={_DISK}m", "tmpfs", str(folder)]
    if subprocess.run(["/usr/bin/mount", *options], capture_output=True).returncode:
        return False
    stack.callback(subprocess.run, ["/usr/bin/umount", str(folder)], check=True)
    return True


def _fill(path: Path) -> None:
    """Takes all the room that is left."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return


def _mail_server_away(bench: Bench) -> Iterator[Figure]:
    path = bench.folder / "mail.db"
    with _place(bench, make_url(f"sqlite:///{path}"), "mail") as place:
        place.sink.close()
        outcomes = place.client.register_many(CALLERS)
        with Sink(place.sink.port) as back:
            back.wait_for(CALLERS, 60)
            copies = back.copies()
    yield only("mail server away: registrations meanwhile", outcomes, "OK")
    yield exactly("mail server away: mails once it is back", len(copies), CALLERS)
    yield _unforeseen(place.node)


def _halves(path: Path) -> int:
    """How many users lack a part, and parts a user; all of them if the file is damaged."""
    with closing(sqlite3.connect(path)) as database:
        if database.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
            return -1
        users, verifications, mails, _ = (
            {row[0] for row in database.execute(f"SELECT {column} FROM {table}")}  # noqa: S608
            for table, column in zip(_TABLES, ("id", *["user_id"] * 3), strict=True)
        )
        return len(users ^ verifications) + len(users ^ mails)


def _unforeseen(node: Node) -> Figure:
    return exactly("unforeseen errors in the log", len(node.events("unforeseen", "job_failed")), 0)

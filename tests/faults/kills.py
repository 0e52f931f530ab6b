"""The service is killed at random moments under load, on SQLite and on PostgreSQL."""

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Final

import grpc
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url

from identity.database import Database
from identity.v1.identity_pb2 import VerifyEmailRequest
from identity.v1.identity_pb2_grpc import IdentityServiceStub
from tests.faults.bench import Bench, Conclude
from tests.faults.ledger import settle
from tests.faults.load import Load
from tests.faults.nodes import Node, channel_to, nodes
from tests.faults.postgres import postgres_server, url_of
from tests.faults.sink import Sink
from tests.faults.table import Figure, at_least, exactly, only

KILLS: Final = 1000
KILLS_SHORT: Final = 50
# A process takes calls for about as long as it took to start, so that one is always there. Some
# are killed as they start.
_LONGEST_GAP: Final = 1.6  # seconds between two kills
DRAIN: Final = 180.0  # seconds; a lease is one minute
_LINKS: Final = 20  # of doubled mails, opened at the end


def kills_on_sqlite(bench: Bench) -> Conclude:
    return _kill(bench, make_url(f"sqlite:///{bench.folder / 'identity.db'}"))


def kills_on_postgres(bench: Bench) -> Conclude:
    return _kill(bench, url_of(bench.stack.enter_context(postgres_server())))


def _kill(bench: Bench, url: URL) -> Conclude:
    number = bench.rounds(KILLS, KILLS_SHORT)
    sink = bench.stack.enter_context(Sink())
    pair = nodes(bench.stack, bench.folder, url, sink.port, 2)
    channels = [bench.stack.enter_context(channel_to(node)) for node in pair]
    for node in pair:
        node.begin()
    load = Load(channels, bench.random.getrandbits(32))
    load.start()
    rest = threading.Event()
    answering = 0
    in_doubt: set[str] = set()
    for count in range(number):
        victim = pair[count % 2]
        rest.wait(bench.random.uniform(0, _LONGEST_GAP))
        answering += victim.is_ready()
        victim.kill()
        in_doubt |= accepted_and_not_marked(url, sink)
        killed = sum(node.killed for node in pair)
        victim.begin()
        if count % 100 == 99:
            bench.say(f"{count + 1} kills, {len(load.acknowledged())} people")
    for node in pair:
        node.ready()
    load.stop()

    def conclude() -> Iterator[Figure]:
        people = load.acknowledged()
        sink.wait_for(len(people), DRAIN)
        wait_for_the_marks(url)
        links = _open_links(pair[0], sink)
        for node in pair:
            node.stop()
        yield exactly("processes that were killed", killed, number)
        yield at_least(
            "of these when they answered calls, not as they started", answering, number // 5
        )
        yield from settle(url, people, sink, in_doubt)
        yield only("links of doubled mails", links, "OK")
        yield only("failed calls", load.failures(), "UNAVAILABLE")
        unforeseen = [line for node in pair for line in node.events("unforeseen", "job_failed")]
        yield exactly("unforeseen errors in the log", len(unforeseen), 0)

    return conclude


def accepted_and_not_marked(url: URL, sink: Sink) -> set[str]:
    """Whose mail was accepted, while the database does not say so. Looked at after a death."""
    with closing(Database(url)) as database, database.read() as connection:
        unmarked = connection.scalars(
            text("SELECT email FROM users JOIN outbox ON user_id = users.id WHERE sent_at IS NULL")
        ).all()
    return sink.copies().keys() & set(unmarked)


def wait_for_the_marks(url: URL) -> None:
    """Waits until every mail that was accepted is noted as sent, or the time is over."""
    rest = threading.Event()
    with closing(Database(url)) as database:
        for _ in range(int(DRAIN)):
            with database.read() as connection:
                if not connection.scalar(text("SELECT count(*) FROM outbox WHERE sent_at IS NULL")):
                    return
            rest.wait(1)


def _open_links(node: Node, sink: Sink) -> list[str]:
    """What the links of some mails that came twice prove."""
    tokens = [found[-1].token for found in sink.copies().values() if len(found) > 1]
    outcomes = []
    with channel_to(node) as channel:
        stub = IdentityServiceStub(channel)
        for token in tokens[:_LINKS]:
            try:
                stub.VerifyEmail(VerifyEmailRequest(token=token), timeout=10)
            except grpc.RpcError as error:
                outcomes.append(error.code().name)
            else:
                outcomes.append("OK")
    return outcomes

"""Several processes deliver one queue, and nobody dies: each mail comes exactly once."""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Final
from unittest.mock import patch

import boto3
from moto.core import DEFAULT_ACCOUNT_ID
from moto.server import ThreadedMotoServer
from moto.ses.models import ses_backends
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url

from identity.database import Database
from tests.fakes import FakeClock
from tests.faults.bench import Bench, Conclude
from tests.faults.nodes import nodes
from tests.faults.postgres import postgres_server, url_of
from tests.faults.sink import Sink
from tests.faults.table import Figure, exactly
from tests.outbox import queue_mails

MAILS: Final = 2000
MAILS_SHORT: Final = 400
MAILS_BY_SES: Final = 300
MAILS_BY_SES_SHORT: Final = 300
_REGION: Final = "eu-central-1"
_PATIENCE: Final = 180  # seconds


def deliveries_on_sqlite(bench: Bench) -> Conclude:
    url = make_url(f"sqlite:///{bench.folder / 'identity.db'}")
    return _conclude([*_by_smtp(bench, url, 2), *_by_smtp(bench, url, 4)])


def deliveries_on_postgres(bench: Bench) -> Conclude:
    url = url_of(bench.stack.enter_context(postgres_server()))
    return _conclude([*_by_smtp(bench, url, 2), *_by_smtp(bench, url, 4), *_by_ses(bench, url, 2)])


def _conclude(figures: Sequence[Figure]) -> Conclude:
    return lambda: figures


def _by_smtp(bench: Bench, url: URL, processes: int) -> Iterator[Figure]:
    number = bench.rounds(MAILS, MAILS_SHORT)
    with Sink() as sink:
        yield from _deliver(
            bench,
            url,
            sink.port,
            processes,
            number,
            lambda: [address for address, found in sink.copies().items() for _ in found],
        )


def _by_ses(bench: Bench, url: URL, processes: int) -> Iterator[Figure]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # moto's, a line a mail
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    bench.stack.callback(server.stop)
    host, port = server.get_host_and_port()
    account = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }

    def sent() -> list[str]:
        messages = ses_backends[DEFAULT_ACCOUNT_ID][_REGION].sent_messages
        return [message.destinations[0] for message in messages]

    with patch.dict(os.environ, account):
        client = boto3.client("sesv2", region_name=_REGION)
        client.create_email_identity(EmailIdentity="identity@localhost")
        number = bench.rounds(MAILS_BY_SES, MAILS_BY_SES_SHORT)
        ses = {"EMAIL_SENDER": "ses", "SES_REGION": _REGION}
        yield from _deliver(bench, url, 1, processes, number, sent, **ses)


def _deliver(
    bench: Bench,
    url: URL,
    smtp_port: int,
    processes: int,
    number: int,
    accepted: Callable[[], list[str]],
    **settings: str,
) -> Iterator[Figure]:
    """`accepted` gives the address of every copy that was accepted so far."""
    everybody = nodes(bench.stack, bench.folder, url, smtp_port, processes, **settings)
    for node in everybody:
        node.start()
    with closing(Database(url)) as database:
        # In one transaction, so that all see all of it at the same moment.
        queue_mails(database, FakeClock(datetime.now(UTC)), number)
        rest = threading.Event()
        for _ in range(_PATIENCE * 10):
            if not _unsent(database):
                break
            rest.wait(0.1)
        for node in everybody:
            node.stop()
        unsent = _unsent(database)
        with database.write() as connection:
            connection.execute(text("DELETE FROM users"))
    copies = accepted()
    how = settings.get("EMAIL_SENDER", "smtp")
    what = f"{processes} processes, {how}:"
    shares = [len(node.events("mail_sent")) for node in everybody]
    yield exactly(f"{what} people who got their mail", len(set(copies)), number)
    yield exactly(f"{what} mails that came twice", len(copies) - len(set(copies)), 0)
    yield exactly(f"{what} rows not marked as sent", unsent, 0)
    yield exactly(f"{what} processes that took part", sum(share > 0 for share in shares), processes)


def _unsent(database: Database) -> int:
    with database.read() as connection:
        number: int = connection.scalar(text("SELECT count(*) FROM outbox WHERE sent_at IS NULL"))
        return number

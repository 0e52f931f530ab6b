"""The outbox: how fast one deliverer hands in what waits."""

import smtplib
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from email.headerregistry import Address
from typing import Final

from identity.mail.templates import Templates, VerificationMail
from tests.bench.bench import Bench
from tests.bench.figures import Figure, interleaved, reached, told
from tests.bench.people import People, token_of

MAILS: Final = 1_500
MAILS_SHORT: Final = 60


def mails(bench: Bench) -> Iterable[Figure]:
    """A queue that is found full; and a bare client with a mail of the same size."""
    number = bench.size(MAILS, MAILS_SHORT)
    people = People(bench.postgres)
    connections: list[float] = []
    with bench.service(people.url) as service:
        service.listening()

        def deliver() -> float:
            bench.sink.forget()
            people.add(number, is_due=True)
            seconds, opened = bench.sink.wait_for(number)
            connections.append(opened)
            return (number - 1) / seconds

        rates = interleaved(bench.rounds, deliver, lambda: _bare(bench.sink.port, number))
    yield reached("mails", rates[0], "/s")
    yield told("a bare SMTP client at the same server", rates[1], " mails/s")
    yield told(f"connections that a deliverer opened for {number:,} mails", connections)


def _bare(port: int, number: int) -> float:
    templates = Templates(Address("Bench", "bench", "example.com"), "https://example.com/{token}")
    now = datetime.now(UTC)
    mail = VerificationMail("1", "ann", "ann@example.com", token_of(0), now, now)
    content = templates.verification(mail).as_bytes()
    with smtplib.SMTP("127.0.0.1", port) as client:
        client.ehlo()
        begun = time.perf_counter()
        for _ in range(number):
            client.sendmail("bench@example.com", ["ann@example.com"], content)
        return number / (time.perf_counter() - begun)

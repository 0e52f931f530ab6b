"""What callers were told, what the tables hold, and what came by mail: whether they agree."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing

from sqlalchemy import text
from sqlalchemy.engine import URL

from identity.database import Database
from tests.faults.load import Person
from tests.faults.sink import Copy, Sink
from tests.faults.table import Figure, at_least, exactly, told


def settle(
    url: URL, people: Sequence[Person], sink: Sink, in_doubt: Collection[str] = ()
) -> Iterator[Figure]:
    """The figures of a database whose callers all have their answer and whose queue is empty.

    `in_doubt` are those whose mail was accepted but not marked when a process had just died.
    """
    with closing(Database(url)) as database:
        stored = dict(_pairs(database, "SELECT id, email FROM users"))
        without_mail = _count(
            database, "users WHERE NOT EXISTS (SELECT * FROM outbox WHERE user_id = users.id)"
        )
        without_verification = _count(
            database,
            "users WHERE NOT EXISTS (SELECT * FROM verifications WHERE user_id = users.id)",
        )
        mails = _count(database, "outbox")
        unsent = _count(database, "outbox WHERE sent_at IS NULL")
    acknowledged = {person.id: person.email for person in people}
    copies = sink.copies()
    yield at_least("registrations acknowledged", len(people), 1)
    yield told("of these after a repeat", sum(person.tries > 1 for person in people))
    yield exactly("acknowledged and missing", len(acknowledged.items() - stored.items()), 0)
    yield exactly("users that nobody was told of", len(stored.items() - acknowledged.items()), 0)
    yield exactly("people with two users", len(stored) - len(set(stored.values())), 0)
    yield exactly("users without a verification", without_verification, 0)
    yield exactly("users without an outbox row", without_mail, 0)
    yield exactly("users with two outbox rows", mails - len(stored), 0)
    yield exactly("outbox rows never sent", unsent, 0)
    yield exactly("people who got no mail", len(set(stored.values()) - copies.keys()), 0)
    yield from _doubled(copies, in_doubt)


def _doubled(copies: dict[str, list[Copy]], in_doubt: Collection[str]) -> Iterator[Figure]:
    doubled = {address: found for address, found in copies.items() if len(found) > 1}
    yield told("mails that came twice", len(doubled))
    yield exactly(
        "of these with another link",
        sum(len({copy.token for copy in found}) > 1 for found in doubled.values()),
        0,
    )
    yield exactly(
        "of these without a death between acceptance and mark",
        sum(
            address not in in_doubt or not copy.was_its_connections_last(address)
            for address, found in doubled.items()
            for copy in found[:-1]
        ),
        0,
    )


def _pairs(database: Database, query: str) -> list[tuple[str, str]]:
    with database.read() as connection:
        return [(first, second) for first, second in connection.execute(text(query))]


def _count(database: Database, what: str) -> int:
    with database.read() as connection:
        number: int = connection.scalar(text(f"SELECT count(*) FROM {what}"))  # noqa: S608
        return number

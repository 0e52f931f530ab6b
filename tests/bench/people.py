"""Databases of many people, written in bulk; everybody's ids follow from a number."""

import hashlib
import itertools
from collections.abc import Iterator
from typing import Any, Final

import psycopg
from sqlalchemy.engine import URL

from identity import migrate
from identity.security.tokens import TokenSigner
from identity.v1.identity_pb2 import RegisterRequest, VerifyEmailRequest
from tests.faults.nodes import KEYS
from tests.faults.postgres import PostgresServer, url_of
from tests.requests import registration

SIGNER: Final = TokenSigner([KEYS])

# %(first)s and %(last)s are numbers of people; %(is_due)s says whether their mails wait.
_FILL: Final = (
    """INSERT INTO users (id, username, username_key, email, password_hash, is_email_verified,
                          held_until, created_at, updated_at)
       SELECT md5('user ' || n)::uuid::text, 'u' || n, 'u' || n, 'u' || n || '@example.com',
              repeat('x', 80), false, now() + interval '24 hours', now(), now()
       FROM generate_series(%(first)s::int, %(last)s::int) AS n""",
    """INSERT INTO verifications (id, user_id, email, key_fingerprint, created_at, expires_at)
       SELECT decode(md5('token ' || n), 'hex'), md5('user ' || n)::uuid::text,
              'u' || n || '@example.com', %(fingerprint)s, now(), now() + interval '24 hours'
       FROM generate_series(%(first)s::int, %(last)s::int) AS n""",
    """INSERT INTO outbox (id, user_id, verification_id, created_at, due_at, attempts, sent_at)
       SELECT md5('mail ' || n)::uuid::text, md5('user ' || n)::uuid::text,
              decode(md5('token ' || n), 'hex'), now() - interval '1 second',
              CASE WHEN %(is_due)s THEN now() END, 0, CASE WHEN NOT %(is_due)s THEN now() END
       FROM generate_series(%(first)s::int, %(last)s::int) AS n""",
    """INSERT INTO idempotency_keys (id, content, user_id, created_at)
       SELECT sha256(('key ' || n)::bytea), sha256(('content ' || n)::bytea),
              md5('user ' || n)::uuid::text, now()
       FROM generate_series(%(first)s::int, %(last)s::int) AS n""",
)
_names: Final = itertools.count()


class People:
    """A migrated database of its own on the server, and the people in it."""

    def __init__(self, server: PostgresServer) -> None:
        name = f"bench_{next(_names)}"
        server.execute(f"CREATE DATABASE {name}")
        self._server = server
        self.url: Final[URL] = url_of(server).set(database=name)
        migrate.upgrade(self.url)
        self._last = 0
        self._newcomers = itertools.count(1)

    def add(self, number: int, *, is_due: bool = False) -> range:
        """So many more, unverified, each with a token, a mail and a request id; their numbers."""
        added = range(self._last + 1, self._last + 1 + number)
        with self._connected() as connection:
            fill(connection, added, is_due=is_due)
        self._last += number
        return added

    def fresh(self, number: int) -> list[VerifyEmailRequest]:
        """Requests that verify so many people, who are added for it."""
        return [VerifyEmailRequest(token=token_of(one)) for one in self.add(number)]

    def newcomers(self, number: int) -> list[RegisterRequest]:
        """Requests that register people who are not there yet."""
        return list(itertools.islice(self._strangers(), number))

    def _strangers(self) -> Iterator[RegisterRequest]:
        for number in self._newcomers:
            yield registration(f"new{number}", f"new{number}@example.com")

    def settle(self) -> None:
        """What an old database has behind it: statistics, no dead rows, nothing left to write."""
        self.execute("VACUUM ANALYZE")
        self.execute("CHECKPOINT")

    def forget_mails(self) -> None:
        """Nobody has to send them any more."""
        self.execute("UPDATE outbox SET due_at = NULL, dead_at = now() WHERE due_at IS NOT NULL")

    def execute(self, statement: str) -> None:
        """Runs it outside of any transaction."""
        with self._connected() as connection:
            connection.execute(statement)

    def _connected(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host=str(self._server.folder),
            user=self.url.username,
            dbname=self.url.database,
            autocommit=True,
        )


def fill(connection: psycopg.Connection[Any], numbers: range, *, is_due: bool) -> None:
    """Writes those people, with their rows in all tables, into a migrated database."""
    values = {
        "first": numbers[0],
        "last": numbers[-1],
        "is_due": is_due,
        "fingerprint": SIGNER.fingerprint,
    }
    for statement in _FILL:
        connection.execute(statement, values)


def token_of(number: int) -> str:
    """That person's token."""
    return SIGNER.token(verification_id(number), SIGNER.fingerprint)


def verification_id(number: int) -> bytes:
    """As the statement above makes it."""
    return hashlib.md5(f"token {number}".encode(), usedforsecurity=False).digest()

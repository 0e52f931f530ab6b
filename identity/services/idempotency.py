"""Requests that were carried out, remembered so that a repeat does nothing a second time."""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self
from uuid import UUID

from sqlalchemy import Connection, delete, insert, select

from identity.models import IdempotencyKey, User

# How long a repeat gets the first reply. Callers' own retries last for minutes; a queue of theirs
# that was stuck over night still finds it.
REMEMBERED: Final = timedelta(hours=24)


@dataclass(frozen=True)
class FirstRequest:
    """A request that was carried out, and the user it made."""

    content: bytes
    user_id: str
    password_hash: str


@dataclass(frozen=True)
class RepeatableRequest:
    """A request that its caller gave an id, so that it can be repeated."""

    id: bytes  # 32 bytes: which caller's, and which one
    content: bytes  # 32 bytes: a digest of what it asks for

    @classmethod
    def of(cls, rpc: str, caller: str, request_id: UUID, *content: str) -> Self:
        """`content` are the fields that a repeat must share.

        Never a password: a quick digest of one can be searched for. It is compared with the
        user's hash instead.
        """
        names = b"\0".join((rpc.encode(), caller.encode(), request_id.bytes))
        fields = "\0".join(content).encode()  # no field that was checked holds a NUL
        return cls(hashlib.sha256(names).digest(), hashlib.sha256(fields).digest())

    def asks_the_same_as(self, first: FirstRequest) -> bool:
        """Whether the fields are those of the first request."""
        return hmac.compare_digest(self.content, first.content)

    def find_first(self, connection: Connection, now: datetime) -> FirstRequest | None:
        """The request that was carried out under this id, if its user is still there."""
        found = connection.execute(
            select(IdempotencyKey.content, IdempotencyKey.user_id, User.password_hash)
            .join(User, User.id == IdempotencyKey.user_id)
            .where(IdempotencyKey.id == self.id, IdempotencyKey.created_at > now - REMEMBERED)
        ).one_or_none()
        return None if found is None else FirstRequest(*found)

    def remember(
        self, connection: Connection, user_id: str, now: datetime, *, takes_over: bool
    ) -> None:
        """Claims the id, within the transaction that makes the user, as the first of its writes;
        if it `takes_over`, from a request that is forgotten.

        While another transaction has claimed it, this waits for how that one ends. Raises
        `sqlalchemy.exc.IntegrityError` when it was carried out.
        """
        if takes_over:
            connection.execute(
                delete(IdempotencyKey).where(
                    IdempotencyKey.id == self.id, IdempotencyKey.created_at <= now - REMEMBERED
                )
            )
        connection.execute(
            insert(IdempotencyKey).values(
                id=self.id, content=self.content, user_id=user_id, created_at=now
            )
        )

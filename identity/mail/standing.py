"""How a mail in the outbox stands, as its row tells."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Select, select

from identity.models import OutboxMail, Verification


class State(StrEnum):
    """How a mail stands."""

    QUEUED = "queued"
    DEAD = "dead"
    SENT = "sent"


@dataclass(frozen=True, kw_only=True)
class MailStanding:
    """One row of the outbox. No address, no token and no token's id is in it."""

    id: str
    created_at: datetime
    due_at: datetime | None
    claimed_by: str | None
    attempts: int  # failed ones
    last_error: str | None
    sent_at: datetime | None
    dead_at: datetime | None
    token_expires_at: datetime | None  # None once the verification is gone

    @property
    def state(self) -> State:
        if self.sent_at is not None:
            return State.SENT
        return State.QUEUED if self.dead_at is None else State.DEAD

    def is_claimed(self, now: datetime) -> bool:
        """Whether a deliverer holds it; `due_at` is the end of its lease then."""
        return self.claimed_by is not None and self.due_at is not None and self.due_at > now

    def next_try_at(self, now: datetime) -> datetime | None:
        """When it is due; None if it never is, and while it is being tried."""
        return None if self.is_claimed(now) else self.due_at


def standings() -> Select[*tuple[Any, ...]]:
    """Every mail, with the columns that a MailStanding has."""
    return (
        select(
            OutboxMail.id,
            OutboxMail.created_at,
            OutboxMail.due_at,
            OutboxMail.claimed_by,
            OutboxMail.attempts,
            OutboxMail.last_error,
            OutboxMail.sent_at,
            OutboxMail.dead_at,
            Verification.expires_at.label("token_expires_at"),
        )
        .select_from(OutboxMail)
        .outerjoin(Verification, Verification.id == OutboxMail.verification_id)
    )

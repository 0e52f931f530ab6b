"""Registering people."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, insert, or_, select
from sqlalchemy.exc import IntegrityError

from identity.database import Database
from identity.deadlines import Deadline
from identity.errors import Conflict, EmailTaken, UsernameTaken
from identity.models import User
from identity.schemas import Registration
from identity.security.passwords import PasswordHasher
from identity.services.verification import VerificationIssuer

# An unverified registration never holds its names longer than this after Register.
MAXIMUM_HOLD = timedelta(hours=72)
# How often a registration is tried when what it ran into is gone again by the time it looks.
ATTEMPTS = 3


@dataclass(frozen=True)
class RegisteredUser:
    """A new, unverified user."""

    id: str
    username: str
    email: str


class RegistrationService:
    """Registers people: one user, one pending verification and one queued mail, or nothing."""

    def __init__(
        self,
        database: Database,
        hasher: PasswordHasher,
        issuer: VerificationIssuer,
        *,
        now: Callable[[], datetime],
        mail_queued: Callable[[], None],
    ) -> None:
        self._database = database
        self._hasher = hasher
        self._issuer = issuer
        self._now = now
        self._mail_queued = mail_queued

    def register(self, registration: Registration, deadline: Deadline) -> RegisteredUser:
        """Stores the registration and queues its mail.

        Raises EmailTaken or UsernameTaken (the address is looked at first), Overloaded,
        DeadlineTooShort, DatabaseUnavailable. Nothing is stored then, except where the connection
        broke during the commit. Not idempotent: a repeat meets its own registration.
        """
        password_hash = self._hasher.hash(registration.password.get_secret_value(), deadline)
        for _ in range(ATTEMPTS - 1):
            try:
                return self._store(registration, password_hash, deadline)
            except Conflict:
                continue
            except IntegrityError:
                # Which key it was is told differently by each database; who holds what is not.
                self._refuse_if_held(registration)
        return self._store(registration, password_hash, deadline)

    def _store(
        self, registration: Registration, password_hash: str, deadline: Deadline
    ) -> RegisteredUser:
        user_id = str(uuid.uuid4())
        now = self._now()
        expires_at = now + min(self._issuer.lifetime, MAXIMUM_HOLD)
        with self._database.write() as connection:
            # No select first: it would prove nothing about the moment of the insert.
            connection.execute(
                delete(User).where(
                    _same_names(registration),
                    User.is_email_verified.is_(False),
                    User.held_until <= now,
                )
            )
            connection.execute(
                insert(User).values(
                    id=user_id,
                    username=registration.username,
                    username_key=registration.username_key,
                    email=registration.email,
                    password_hash=password_hash,
                    is_email_verified=False,
                    held_until=expires_at,
                    created_at=now,
                    updated_at=now,
                )
            )
            self._issuer.issue(
                connection,
                user_id=user_id,
                email=registration.email,
                now=now,
                expires_at=expires_at,
            )
            deadline.check()  # the last moment at which nothing has happened yet
        self._mail_queued()
        return RegisteredUser(user_id, registration.username, registration.email)

    def _refuse_if_held(self, registration: Registration) -> None:
        with self._database.read() as connection:
            holders = connection.execute(
                select(User.email, User.username_key).where(
                    _same_names(registration),
                    or_(User.is_email_verified, User.held_until > self._now()),
                )
            ).all()
        if any(holder.email == registration.email for holder in holders):
            raise EmailTaken
        if holders:
            raise UsernameTaken


def _same_names(registration: Registration) -> ColumnElement[bool]:
    return or_(User.email == registration.email, User.username_key == registration.username_key)

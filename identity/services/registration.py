"""Registering people."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, insert, or_, select
from sqlalchemy.exc import IntegrityError

from identity.database import Database
from identity.deadlines import Deadline
from identity.errors import Conflict, EmailTaken, RequestIdReused, UsernameTaken
from identity.models import User
from identity.schemas import Registration
from identity.security.passwords import PasswordHasher
from identity.services.idempotency import RepeatableRequest
from identity.services.verification import VerificationIssuer

# An unverified registration never holds its names longer than this after Register.
MAXIMUM_HOLD = timedelta(hours=72)
# How often a registration is tried. The first one takes nothing over; the others are for what is
# gone again by the time it is looked at.
ATTEMPTS = 4

_REGISTER = insert(User)


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

    def register(
        self, registration: Registration, caller: str, deadline: Deadline
    ) -> RegisteredUser:
        """Stores the registration and queues its mail.

        Raises EmailTaken or UsernameTaken (the address is looked at first), RequestIdReused,
        Overloaded, DeadlineTooShort, DatabaseUnavailable. Nothing is stored then, except where the
        connection broke during the commit.

        A repeat with the same request id by the same caller changes nothing and returns the same;
        one without a request id meets its own registration.
        """
        request = _repeatable(registration, caller)
        known = self._repeated(request, registration, deadline)
        if known is not None:
            return known
        password_hash = self._hasher.hash(registration.password.get_secret_value(), deadline)
        takes_over = False
        for _ in range(ATTEMPTS - 1):
            try:
                return self._store(registration, request, password_hash, deadline, takes_over)
            except Conflict:
                continue
            except IntegrityError:
                # Nearly always nobody is in the way, and it is not looked for beforehand. What is:
                takes_over = True
                # Which key it was is told differently by each database; who holds what is not.
                known = self._repeated(request, registration, deadline)
                if known is not None:
                    return known
                self._refuse_if_held(registration)
        return self._store(registration, request, password_hash, deadline, takes_over)

    def _repeated(
        self, request: RepeatableRequest | None, registration: Registration, deadline: Deadline
    ) -> RegisteredUser | None:
        """What the first of these requests gave; None if this is the first."""
        if request is None:
            return None
        with self._database.read() as connection:
            first = request.find_first(connection, self._now())
        if first is None:
            return None
        password = registration.password.get_secret_value()
        if not request.asks_the_same_as(first) or not self._hasher.verify(
            password, first.password_hash, deadline
        ):
            raise RequestIdReused
        return RegisteredUser(first.user_id, registration.username, registration.email)

    def _store(
        self,
        registration: Registration,
        request: RepeatableRequest | None,
        password_hash: str,
        deadline: Deadline,
        takes_over: bool,
    ) -> RegisteredUser:
        """`takes_over`: what has lapsed gives way."""
        user_id = str(uuid.uuid4())
        now = self._now()
        expires_at = now + min(self._issuer.lifetime, MAXIMUM_HOLD)
        with self._database.write() as connection:
            if request is not None:
                # First of all: a repeat at the same time waits here for how this one ends, and
                # does not meet its names.
                request.remember(connection, user_id, now, takes_over=takes_over)
            if takes_over:
                connection.execute(
                    delete(User).where(
                        _same_names(registration),
                        User.is_email_verified.is_(False),
                        User.held_until <= now,
                    )
                )
            # No select first: it would prove nothing about the moment of the insert.
            connection.execute(
                _REGISTER,
                {
                    "id": user_id,
                    "username": registration.username,
                    "username_key": registration.username_key,
                    "email": registration.email,
                    "password_hash": password_hash,
                    "is_email_verified": False,
                    "held_until": expires_at,
                    "created_at": now,
                    "updated_at": now,
                },
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


def _repeatable(registration: Registration, caller: str) -> RepeatableRequest | None:
    if registration.request_id is None:
        return None
    return RepeatableRequest.of(
        "Register", caller, registration.request_id, registration.username, registration.email
    )


def _same_names(registration: Registration) -> ColumnElement[bool]:
    return or_(User.email == registration.email, User.username_key == registration.username_key)

"""What can go wrong, in the words of the domain. Nothing here knows gRPC.

IdentityError
├── InvalidFields        at least one field breaks a rule
├── EmailTaken           the address is held by another registration
├── UsernameTaken        the username is held by another registration
├── RequestIdReused      the request id belongs to another request of the same caller
├── TokenError
│   ├── TokenInvalid     not a token of ours
│   ├── TokenUsed        its user is verified already
│   └── TokenExpired     past its life, or its registration is gone
├── UserNotFound         nobody is registered by that id or address
├── CallerNotAllowed     the method is not among those of its caller
├── RateLimited          too many calls
├── Overloaded           no room for another password hash before the deadline
├── DeadlineTooShort     too little time left to do it
├── DatabaseUnavailable  the database cannot be reached
│   └── Conflict         it ended one of two transactions that met
└── Unforeseen           anything else: a defect of ours
    └── RegistrationUnforeseen  the same, in the sentence that Register gives

`reason` and `sentence` are public and safe to show: they never hold a value from a request, an
exception's text, SQL, a host or a path.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class IdentityError(Exception):
    """Base of every refusal a caller can meet."""

    reason: ClassVar[str]
    sentence: ClassVar[str]

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class Violation:
    """One broken rule of one field."""

    field: str
    reason: str
    description: str


class InvalidFields(IdentityError):
    """At least one field breaks a rule; `violations` holds every broken rule of every field."""

    reason = "INVALID_FIELDS"
    sentence = "Some fields are invalid"

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__()
        self.violations = tuple(violations)


class EmailTaken(IdentityError):
    reason = "EMAIL_TAKEN"
    sentence = "Email already registered"


class UsernameTaken(IdentityError):
    reason = "USERNAME_TAKEN"
    sentence = "Username already taken"


class RequestIdReused(IdentityError):
    reason = "REQUEST_ID_REUSED"
    sentence = "This request id was used for another request."


class TokenError(IdentityError):
    """A token that proves nothing. One sentence for all: only the reason tells them apart."""

    sentence = "Invalid or expired verification token"


class TokenInvalid(TokenError):
    reason = "TOKEN_INVALID"


class TokenUsed(TokenError):
    reason = "TOKEN_USED"


class TokenExpired(TokenError):
    reason = "TOKEN_EXPIRED"


class UserNotFound(IdentityError):
    reason = "USER_NOT_FOUND"
    sentence = "There is no such user."


class CallerNotAllowed(IdentityError):
    """The caller is known, and the method is not one of its own; or it is not known at all."""

    reason = "CALLER_NOT_ALLOWED"
    sentence = "This caller may not call this method."


class RateLimited(IdentityError):
    """Too many calls. A call made `retry_after_ns` from now is admitted, if none comes before."""

    reason = "RATE_LIMITED"
    sentence = "Rate limit exceeded"

    def __init__(self, *, retry_after_ns: int, limit: str) -> None:
        super().__init__()
        self.retry_after_ns = retry_after_ns
        self.limit = limit


class Overloaded(IdentityError):
    """The queue of hashes is longer than the deadline allows; nothing was begun."""

    reason = "OVERLOADED"
    sentence = "The service is busy. Please try again later."

    def __init__(self, *, retry_after: float) -> None:
        super().__init__()
        self.retry_after = retry_after


class DeadlineTooShort(IdentityError):
    reason = "DEADLINE_TOO_SHORT"
    sentence = "The deadline is too short."


class DatabaseUnavailable(IdentityError):
    """The database cannot be reached, is locked, or is out of space."""

    reason = "DATABASE_UNAVAILABLE"
    sentence = "The service is temporarily unavailable."
    retry_after: ClassVar[float] = 1.0  # seconds; a first wait, to be doubled by the caller


class Unforeseen(IdentityError):
    """A defect of ours. The log has its traceback under the call's request id."""

    reason = "INTERNAL"
    sentence = "An error occurred. Please try again later."


class RegistrationUnforeseen(Unforeseen):
    sentence = "An error occurred during registration. Please try again later."


class Conflict(DatabaseUnavailable):
    """Two transactions met, and the database ended this one. It may succeed when run again."""

"""Domain errors as callers meet them: a code and a sentence for each, and nothing else."""

import math
from collections.abc import Iterator
from typing import Any

import grpc
import grpc_testing
import pytest
from google.protobuf.message import Message
from structlog.testing import capture_logs

from identity import errors
from identity.deadlines import Deadline
from identity.schemas import Registration
from identity.servicers.identity import IdentityServicer
from identity.servicers.status import CODES
from identity.services.registration import RegisteredUser
from identity.services.verification import VerifiedUser
from identity.v1 import identity_pb2

SERVICE = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"]
REGISTRATION = identity_pb2.RegisterRequest(
    username="Alice", email="Alice@Example.org", password="Passw0rd!"
)
VERIFICATION = identity_pb2.VerifyEmailRequest(token="zzz")
REQUESTS: dict[str, Message] = {
    "Register": REGISTRATION,
    "VerifyEmail": VERIFICATION,
    "ResendVerification": identity_pb2.ResendVerificationRequest(email="a@example.org"),
}

TOKEN_SENTENCE = "Invalid or expired verification token"
UNFORESEEN = "An error occurred. Please try again later."
REGISTRATION_UNFORESEEN = "An error occurred during registration. Please try again later."


class Fails:
    """A registrar and a verifier that raise what they are given."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def register(
        self, registration: Registration, caller: str, deadline: Deadline
    ) -> RegisteredUser:
        raise self._error

    def verify(self, token: str, deadline: Deadline) -> VerifiedUser:
        raise self._error

    def request(self, email: str, deadline: Deadline) -> None:
        raise self._error


class Works:
    """A registrar and a verifier that succeed, and keep what they are given."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def register(
        self, registration: Registration, caller: str, deadline: Deadline
    ) -> RegisteredUser:
        self.seen += [registration.username_key, deadline.remaining()]
        return RegisteredUser("id-1", registration.username, registration.email)

    def verify(self, token: str, deadline: Deadline) -> VerifiedUser:
        self.seen += [token, deadline.remaining()]
        return VerifiedUser("id-1", "Alice", "alice@example.org")

    def request(self, email: str, deadline: Deadline) -> None:
        self.seen.append(email)


def answer(
    parts: Fails | Works, rpc: str, request: Message | None = None, timeout: float | None = None
) -> tuple[Any, grpc.StatusCode, str]:
    """The reply, the code and the sentence that a call gets."""
    server = grpc_testing.server_from_dictionary(
        {SERVICE: IdentityServicer(parts, parts, parts)}, grpc_testing.strict_fake_time(0)
    )
    call = server.invoke_unary_unary(
        SERVICE.methods_by_name[rpc], (), request or REQUESTS[rpc], timeout
    )
    response, _, code, sentence = call.termination()
    return response, code, sentence


def subclasses(kind: type[errors.IdentityError]) -> Iterator[type[errors.IdentityError]]:
    for below in kind.__subclasses__():
        yield below
        yield from subclasses(below)


# Refusals

TABLE = [
    (
        "Register",
        errors.InvalidFields(
            [errors.Violation("email", "MALFORMED", "email must be one valid address")]
        ),
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELDS",
        "Some fields are invalid",
    ),
    (
        "Register",
        errors.EmailTaken(),
        grpc.StatusCode.ALREADY_EXISTS,
        "EMAIL_TAKEN",
        "Email already registered",
    ),
    (
        "Register",
        errors.UsernameTaken(),
        grpc.StatusCode.ALREADY_EXISTS,
        "USERNAME_TAKEN",
        "Username already taken",
    ),
    *(
        ("VerifyEmail", error, grpc.StatusCode.INVALID_ARGUMENT, reason, TOKEN_SENTENCE)
        for error, reason in (
            (errors.TokenInvalid(), "TOKEN_INVALID"),
            (errors.TokenUsed(), "TOKEN_USED"),
            (errors.TokenExpired(), "TOKEN_EXPIRED"),
        )
    ),
    *(
        (rpc, error, code, reason, sentence)
        for rpc in ("Register", "VerifyEmail")
        for error, code, reason, sentence in (
            (
                errors.CallerNotAllowed(),
                grpc.StatusCode.PERMISSION_DENIED,
                "CALLER_NOT_ALLOWED",
                "This caller may not call this method.",
            ),
            (
                errors.RateLimited(retry_after_ns=1, limit="100 calls in any 60 seconds"),
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "RATE_LIMITED",
                "Rate limit exceeded",
            ),
            (
                errors.Overloaded(retry_after=1.5),
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "OVERLOADED",
                "The service is busy. Please try again later.",
            ),
            (
                errors.DeadlineTooShort(),
                grpc.StatusCode.DEADLINE_EXCEEDED,
                "DEADLINE_TOO_SHORT",
                "The deadline is too short.",
            ),
            (
                errors.DatabaseUnavailable(),
                grpc.StatusCode.UNAVAILABLE,
                "DATABASE_UNAVAILABLE",
                "The service is temporarily unavailable.",
            ),
        )
    ),
]


@pytest.mark.parametrize(
    ("rpc", "error", "code", "reason", "sentence"),
    TABLE,
    ids=[f"{rpc} {reason}" for rpc, _, _, reason, _ in TABLE],
)
def test_each_error_is_answered_with_its_code_reason_and_sentence(
    rpc: str, error: errors.IdentityError, code: grpc.StatusCode, reason: str, sentence: str
) -> None:
    assert answer(Fails(error), rpc) == (None, code, sentence)
    assert error.reason == reason


def test_every_error_has_a_code_a_reason_and_a_sentence() -> None:
    found = list(subclasses(errors.IdentityError))
    assert len(found) >= 14
    for kind in found:
        name = kind.__name__
        code = next((CODES[base] for base in kind.__mro__ if base in CODES), None)
        assert isinstance(code, grpc.StatusCode), name
        assert code is not grpc.StatusCode.OK, name
        assert kind.sentence, name
        # What is only a base of others needs no reason of its own.
        assert kind.__subclasses__() or kind.reason.isupper(), name


def test_a_registration_that_breaks_a_rule_is_refused_before_anything_is_done() -> None:
    request = identity_pb2.RegisterRequest(username="zzz zzz")
    works = Works()
    response, code, sentence = answer(works, "Register", request)
    assert (response, code) == (None, grpc.StatusCode.INVALID_ARGUMENT)
    assert sentence == "Some fields are invalid"
    assert works.seen == []


def test_a_subclass_of_a_refusal_is_answered_as_that_refusal() -> None:
    class Elsewhere(errors.DatabaseUnavailable):
        pass

    _, code, sentence = answer(Fails(Elsewhere()), "Register")
    assert (code, sentence) == (
        grpc.StatusCode.UNAVAILABLE,
        "The service is temporarily unavailable.",
    )


# What nobody foresaw


class Odd(BaseException):
    """Not even an Exception."""


@pytest.mark.parametrize(
    ("rpc", "sentence"), [("Register", REGISTRATION_UNFORESEEN), ("VerifyEmail", UNFORESEEN)]
)
@pytest.mark.parametrize(
    "kind", [RuntimeError, KeyError, SystemExit, KeyboardInterrupt, GeneratorExit, Odd]
)
def test_anything_unforeseen_is_internal_and_logged_once_without_its_text(
    rpc: str, sentence: str, kind: type[BaseException]
) -> None:
    text = "-".join(["host", "secret", "address"])  # not in any line of source
    with capture_logs() as lines:
        assert answer(Fails(kind(text)), rpc) == (None, grpc.StatusCode.INTERNAL, sentence)
    (line,) = lines
    assert (line["event"], line["log_level"], line["rpc"]) == ("unforeseen", "error", rpc)
    assert line["request_id"]
    assert line["error"].endswith(kind.__name__)
    assert "raise self._error" in line["traceback"]
    assert text not in repr(line)


def test_an_unreachable_database_is_told_to_the_operator_by_its_kind_only() -> None:
    error = errors.DatabaseUnavailable()
    text = "-".join(["host", "secret", "address"])
    error.__cause__ = ConnectionRefusedError(text)
    with capture_logs() as lines:
        answer(Fails(error), "VerifyEmail")
    (line,) = lines
    assert line["event"] == "database_unavailable"
    assert line["error"] == "ConnectionRefusedError"
    assert text not in repr(line)


@pytest.mark.parametrize(("rpc", "error"), [(row[0], row[1]) for row in TABLE[:6]])
def test_a_refusal_that_is_the_callers_own_doing_is_no_line_of_its_own(
    rpc: str, error: errors.IdentityError
) -> None:
    with capture_logs() as lines:
        answer(Fails(error), rpc)
    assert lines == []


# Successes


def test_a_registration_answers_what_was_stored() -> None:
    works = Works()
    response, code, _ = answer(works, "Register", timeout=30)
    assert code is grpc.StatusCode.OK
    assert response == identity_pb2.RegisterResponse(
        id="id-1",
        username="Alice",
        email="alice@example.org",
        message="Success! Please check your email for verification instructions.",
    )


def test_a_verification_answers_whose_address_is_proven() -> None:
    works = Works()
    response, code, _ = answer(works, "VerifyEmail")
    assert code is grpc.StatusCode.OK
    assert response == identity_pb2.VerifyEmailResponse(
        id="id-1",
        username="Alice",
        email="alice@example.org",
        message="Email verified successfully! You can now log in.",
    )
    assert works.seen == ["zzz", math.inf]


def test_a_request_for_another_mail_answers_one_sentence() -> None:
    works = Works()
    response, code, _ = answer(works, "ResendVerification")
    assert code is grpc.StatusCode.OK
    assert response.message == ("If this address waits to be verified, a new email is on its way.")
    assert works.seen == ["a@example.org"]

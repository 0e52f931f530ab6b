"""The contract's table of errors, row by row, as a client decodes it."""

import math
import threading
from collections.abc import Callable

import grpc
import pytest
from sqlalchemy import text

from identity.database import Database
from identity.v1.identity_pb2 import (
    RegisterRequest,
    ResendVerificationRequest,
    VerifyEmailRequest,
)
from tests.mailbox import Mailbox
from tests.refusals import Refusal, decode, refused
from tests.requests import PASSWORD, registration, verification
from tests.rpc.conftest import Serve

INVALID_TOKEN = "Invalid or expired verification token"


def expect(refusal: Refusal, code: grpc.StatusCode, reason: str, sentence: str) -> None:
    """The four things that the contract fixes, and the metadata of every reply."""
    assert (refusal.code, refusal.reason, refusal.sentence) == (code, reason, sentence)
    expect_metadata(refusal.metadata)


def expect_metadata(metadata: dict[str, str | bytes]) -> None:
    assert int(metadata["x-ratelimit-limit"]) > 0
    assert int(metadata["x-ratelimit-remaining"]) >= 0
    assert int(metadata["x-ratelimit-reset"]) > 1_700_000_000
    assert metadata["x-request-id"]


def test_every_broken_rule_of_every_field_is_reported_at_once(serve: Serve) -> None:
    refusal = refused(
        serve().stub.Register,
        RegisterRequest(username="a\n", email="a@b@example.com", password="\t", request_id="1"),
    )
    expect(refusal, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS", "Some fields are invalid")
    assert {(field, reason) for field, reason, _ in refusal.violations} == {
        ("username", "TOO_SHORT"),
        ("username", "BAD_CHARACTER"),
        ("email", "MALFORMED"),
        ("password", "TOO_SHORT"),
        ("password", "NO_UPPERCASE"),
        ("password", "NO_LOWERCASE"),
        ("password", "NO_DIGIT"),
        ("password", "NO_SPECIAL"),
        ("password", "CONTROL_CHARACTER"),
        ("request_id", "MALFORMED"),
    }
    assert ("username", "TOO_SHORT", "string should have at least 3 characters") in (
        refusal.violations
    )


def test_lengths_and_reserved_names_are_reported_with_their_numbers(serve: Serve) -> None:
    stub = serve().stub
    long = refused(
        stub.Register,
        registration("a" * 21, "a" * 64 + "@" + "b" * 190 + ".com", "Aa1!" + "x" * 45),
    )
    assert long.violations == {
        ("username", "TOO_LONG", "string should have at most 20 characters"),
        ("email", "TOO_LONG", "string should have at most 254 characters"),
        ("password", "TOO_LONG", "string should have at most 48 characters"),
    }
    reserved = refused(stub.Register, registration("No-Reply"))
    assert {(field, reason) for field, reason, _ in reserved.violations} == {
        ("username", "RESERVED")
    }


def test_a_held_address_is_refused_in_any_case_before_the_name_is_looked_at(serve: Serve) -> None:
    stub = serve().stub
    stub.Register(registration())
    expect(
        refused(stub.Register, registration("ANN", "ANN@example.com")),
        grpc.StatusCode.ALREADY_EXISTS,
        "EMAIL_TAKEN",
        "Email already registered",
    )
    expect(
        refused(stub.Register, registration("aNN", "other@example.com")),
        grpc.StatusCode.ALREADY_EXISTS,
        "USERNAME_TAKEN",
        "Username already taken",
    )


def test_a_request_id_belongs_to_one_request_of_its_caller(serve: Serve) -> None:
    stub = serve(TRUSTED_PROXIES="127.0.0.1").stub
    request = registration(request_id="0B7B6C53-0e0c-4b3e-9d9f-6a6f3b1f2c58")
    first = stub.Register(request)
    assert stub.Register(request) == first
    other = registration("bob", "bob@example.com", request_id=request.request_id.lower())
    expect(
        refused(stub.Register, other),
        grpc.StatusCode.INVALID_ARGUMENT,
        "REQUEST_ID_REUSED",
        "This request id was used for another request.",
    )
    assert stub.Register(other, metadata=[("x-forwarded-for", "192.0.2.7")]).username == "bob"


def test_the_three_ways_a_token_fails_are_told_apart_by_reason_only(
    serve: Serve, mailbox: Mailbox, database: Database
) -> None:
    stub = serve().stub
    stub.Register(registration())
    used = mailbox.next_token()
    stub.VerifyEmail(verification(used))
    stub.Register(registration("bob", "bob@example.com"))
    gone = mailbox.next_token()
    with database.write() as connection:
        connection.execute(text("DELETE FROM users WHERE username = 'bob'"))
    for token, reason in ((used, "TOKEN_USED"), (gone, "TOKEN_EXPIRED"), ("", "TOKEN_INVALID")):
        expect(
            refused(stub.VerifyEmail, verification(token)),
            grpc.StatusCode.INVALID_ARGUMENT,
            reason,
            INVALID_TOKEN,
        )


def damaged(token: str, other: str) -> list[str]:
    return [
        token[:-1],
        token + "A",
        token + "=",
        token.swapcase(),
        f" {token}",
        f"{token}\n",
        token[:21] + other[21:],
        token[:-1] + ("A" if token[-1] != "A" else "B"),
        "\u0430" * 64,
        "A" * 64,
        "x" * 60_000,
    ]


def test_a_damaged_token_is_invalid_and_leaves_the_whole_one_usable(
    serve: Serve, mailbox: Mailbox
) -> None:
    stub = serve().stub
    stub.Register(registration())
    token = mailbox.next_token()
    stub.Register(registration("bob", "bob@example.com"))
    other = mailbox.next_token()
    for rubbish in damaged(token, other):
        assert refused(stub.VerifyEmail, verification(rubbish)).reason == "TOKEN_INVALID"
    assert stub.VerifyEmail(verification(token)).username == "ann"


def test_a_rubbish_token_costs_no_query(serve: Serve, database: Database) -> None:
    stub = serve().stub
    with database.write() as connection:
        connection.execute(text("ALTER TABLE verifications RENAME TO elsewhere"))
    assert refused(stub.VerifyEmail, verification("A" * 64)).reason == "TOKEN_INVALID"


def test_too_many_calls_are_told_how_long_to_wait(serve: Serve) -> None:
    stub = serve(RATE_LIMIT="2/60s").stub
    for _ in range(2):
        refused(stub.VerifyEmail, verification("x"))
    refusal = refused(stub.Register, registration())
    expect(refusal, grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", "Rate limit exceeded")
    wait = refusal.details["RetryInfo"].retry_delay.ToNanoseconds()
    assert 0 < wait <= 60_000_000_000
    assert int(refusal.metadata["grpc-retry-pushback-ms"]) == math.ceil(wait / 1_000_000)
    (violation,) = refusal.details["QuotaFailure"].violations
    assert violation.description == "2 calls in any 60 seconds"
    assert refusal.metadata["x-ratelimit-remaining"] == "0"


def test_a_deadline_that_cannot_hold_a_hash_is_refused_before_any_work(
    serve: Serve, rows: Callable[[str], list[dict[str, object]]]
) -> None:
    # Cost 16 takes seconds, so the refusal arrives long before the deadline is over.
    stub = serve(BCRYPT_COST="16").stub
    expect(
        refused(stub.Register, registration(), timeout=2),
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "DEADLINE_TOO_SHORT",
        "The deadline is too short.",
    )
    assert rows("users") == []


def test_no_room_for_another_hash_is_refused_at_once(serve: Serve) -> None:
    # Half a second a hash: of these calls, the first few fill the two seconds that all have.
    stub = serve(BCRYPT_COST="13").stub
    refusals: list[Refusal] = []
    met = threading.Event()

    def register(number: int) -> None:
        try:
            stub.Register(registration(f"user{number}", f"u{number}@example.com"), timeout=2)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:  # else it came too late
                refusals.append(decode(error))
                met.set()

    threads = [threading.Thread(target=register, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    assert met.wait(30)
    refusal = refusals[0]
    expect(
        refusal,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "OVERLOADED",
        "The service is busy. Please try again later.",
    )
    assert refusal.details["RetryInfo"].retry_delay.ToNanoseconds() > 0
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ("Register", "An error occurred during registration. Please try again later."),
        ("VerifyEmail", "An error occurred. Please try again later."),
    ],
)
def test_what_nobody_foresaw_shows_its_request_id_and_nothing_else(
    serve: Serve, database: Database, mailbox: Mailbox, call: str, sentence: str
) -> None:
    stub = serve().stub
    stub.Register(registration())
    token = mailbox.next_token()
    with database.write() as connection:
        connection.execute(text("DROP TABLE outbox"))
        connection.execute(text("ALTER TABLE users RENAME TO elsewhere"))
    refusal = (
        refused(stub.Register, registration("bob", "bob@example.com"))
        if call == "Register"
        else refused(stub.VerifyEmail, verification(token))
    )
    expect(refusal, grpc.StatusCode.INTERNAL, "INTERNAL", sentence)
    assert refusal.details["RequestInfo"].request_id == refusal.metadata["x-request-id"]
    for secret in (PASSWORD, "bob", token, "elsewhere", "users"):
        assert secret not in str(refusal)


def test_a_malformed_address_to_send_to_is_refused(serve: Serve) -> None:
    refusal = refused(serve().stub.ResendVerification, ResendVerificationRequest(email="ann"))
    expect(refusal, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS", "Some fields are invalid")
    assert {(field, reason) for field, reason, _ in refusal.violations} == {("email", "MALFORMED")}


def test_a_successful_reply_bears_the_metadata_too(serve: Serve, mailbox: Mailbox) -> None:
    stub = serve(RATE_LIMIT="7/60s").stub
    _, call = stub.Register.with_call(registration())
    metadata = dict(call.trailing_metadata() or ())
    expect_metadata(metadata)
    assert (metadata["x-ratelimit-limit"], metadata["x-ratelimit-remaining"]) == ("7", "6")
    _, call = stub.VerifyEmail.with_call(verification(mailbox.next_token()))
    assert dict(call.trailing_metadata() or ())["x-ratelimit-remaining"] == "5"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("Order-7_a.b", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("a/b", False)],
)
def test_a_well_formed_request_id_of_the_caller_is_kept(
    serve: Serve, sent: str, kept: bool
) -> None:
    refusal = refused(
        serve().stub.VerifyEmail, VerifyEmailRequest(), metadata=(("x-request-id", sent),)
    )
    assert (refusal.metadata["x-request-id"] == sent) is kept


def test_calls_that_reach_no_handler_get_the_status_of_grpc_itself(serve: Serve) -> None:
    running = serve()
    unknown = running.channel.unary_unary("/identity.v1.IdentityService/DropTables")
    with pytest.raises(grpc.RpcError) as caught:
        unknown(b"")
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.RpcError) as caught:
        running.stub.VerifyEmail(verification("x" * 70_000))
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

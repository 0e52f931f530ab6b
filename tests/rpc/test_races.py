"""Many calls at once: one winner each, and the others learn why."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from google.protobuf.message import Message

from identity.v1.identity_pb2 import RegisterRequest, RegisterResponse
from tests import crowd
from tests.crowd import mixed_case
from tests.fakes import FakeClock
from tests.mailbox import Mailbox
from tests.requests import registration, verification
from tests.rpc.conftest import Serve

CALLERS = 50

Rows = Callable[[str], list[dict[str, object]]]


def outcomes_of(call: Callable[..., Message], requests: Sequence[Message]) -> Counter[str]:
    """Makes all calls at the same moment; counts how they ended."""
    return Counter(crowd.at_once([partial(call, request, timeout=60) for request in requests]))


def test_of_many_registrations_of_one_address_one_wins(
    serve: Serve, mailbox: Mailbox, rows: Rows
) -> None:
    outcomes = outcomes_of(
        serve().stub.Register,
        [registration(f"user{n}", mixed_case("ann@example.com", n)) for n in range(CALLERS)],
    )
    assert outcomes == {"OK": 1, "ALREADY_EXISTS EMAIL_TAKEN": CALLERS - 1}
    assert (len(rows("users")), len(rows("verifications")), len(rows("outbox"))) == (1, 1, 1)
    mailbox.next()
    assert mailbox.is_empty()


def test_of_many_registrations_of_one_username_one_wins(serve: Serve, rows: Rows) -> None:
    outcomes = outcomes_of(
        serve().stub.Register,
        [registration(mixed_case("annabel", n), f"u{n}@example.com") for n in range(CALLERS)],
    )
    assert outcomes == {"OK": 1, "ALREADY_EXISTS USERNAME_TAKEN": CALLERS - 1}
    assert (len(rows("users")), len(rows("verifications")), len(rows("outbox"))) == (1, 1, 1)


def test_of_many_repeats_of_one_request_one_is_carried_out(
    serve: Serve, mailbox: Mailbox, rows: Rows
) -> None:
    """The others wait for it and get its reply, where they would else meet its address."""
    stub = serve().stub
    request = registration(request_id="0b7b6c53-0e0c-4b3e-9d9f-6a6f3b1f2c58")
    replies: set[str] = set()

    def register(request: RegisterRequest, timeout: float) -> RegisterResponse:
        reply: RegisterResponse = stub.Register(request, timeout=timeout)
        replies.add(reply.id)
        return reply

    assert outcomes_of(register, [request] * CALLERS) == {"OK": CALLERS}
    assert replies == {rows("users")[0]["id"]}
    assert (len(rows("users")), len(rows("outbox"))) == (1, 1)
    mailbox.next()
    assert mailbox.is_empty()


def test_crossed_pairs_give_each_name_and_address_to_one(serve: Serve, rows: Rows) -> None:
    """Ann's name with Bob's address and the other way round: two can win, or one."""
    pairs = [("ann", "a@example.com"), ("ann", "b@example.com")]
    pairs += [("bob", "a@example.com"), ("bob", "b@example.com")]
    outcomes = outcomes_of(
        serve().stub.Register, [registration(*pairs[n % 4]) for n in range(CALLERS)]
    )
    users = rows("users")
    assert set(outcomes) <= {"OK", "ALREADY_EXISTS EMAIL_TAKEN", "ALREADY_EXISTS USERNAME_TAKEN"}
    assert outcomes["OK"] == len(users) == len(rows("outbox"))
    # Whoever won, nobody is left who could still register: both names and addresses are held
    # by two, or one pair is held and every other pair crosses it.
    assert 1 <= len(users) <= 2
    assert len({user["username"] for user in users}) == len(users)
    assert len({user["email"] for user in users}) == len(users)


def test_a_lapsed_registration_is_taken_over_by_one_of_many(
    serve: Serve, rows: Rows, clock: FakeClock
) -> None:
    stub = serve().stub
    stub.Register(registration("ann", "a@example.com"))
    stub.Register(registration("bob", "b@example.com"))
    clock.advance(hours=24, seconds=1)
    outcomes = outcomes_of(
        stub.Register,
        [
            registration("ann" if n % 2 else "bob", "b@example.com" if n % 2 else "a@example.com")
            for n in range(CALLERS)
        ],
    )
    assert outcomes == {"OK": 2, "ALREADY_EXISTS EMAIL_TAKEN": CALLERS - 2}
    assert {(user["username"], user["email"]) for user in rows("users")} == {
        ("ann", "b@example.com"),
        ("bob", "a@example.com"),
    }


def test_of_many_verifications_of_one_token_one_is_the_first(
    serve: Serve, mailbox: Mailbox
) -> None:
    stub = serve().stub
    stub.Register(registration())
    token = mailbox.next_token()
    outcomes = outcomes_of(stub.VerifyEmail, [verification(token)] * CALLERS)
    assert outcomes == {"OK": 1, "INVALID_ARGUMENT TOKEN_USED": CALLERS - 1}


def test_of_200_calls_at_once_exactly_100_are_admitted(serve: Serve) -> None:
    outcomes = outcomes_of(serve(RATE_LIMIT="100/60s").stub.VerifyEmail, [verification("x")] * 200)
    assert outcomes == {
        "INVALID_ARGUMENT TOKEN_INVALID": 100,
        "RESOURCE_EXHAUSTED RATE_LIMITED": 100,
    }

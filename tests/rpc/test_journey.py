"""From a registration to a proven address, over a real channel and a real mail server."""

from collections.abc import Callable
from uuid import UUID

import pytest

from identity.security.passwords import verify_password
from tests.fakes import START, FakeClock
from tests.mailbox import Mailbox, token_in
from tests.refusals import refused
from tests.requests import PASSWORD, registration, verification
from tests.rpc.conftest import Serve

Rows = Callable[[str], list[dict[str, object]]]


def test_a_registered_person_proves_the_address_with_the_link_in_the_mail(
    serve: Serve, mailbox: Mailbox, rows: Rows
) -> None:
    stub = serve().stub
    registered = stub.Register(registration("Ann.B", "Ann+news@Example.COM"))
    assert UUID(registered.id)
    assert (registered.username, registered.email) == ("Ann.B", "ann+news@example.com")
    assert registered.message == "Success! Please check your email for verification instructions."
    (user,) = rows("users")
    assert not user["is_email_verified"]

    mail = mailbox.next()
    assert mail["To"] == "ann+news@example.com"
    assert mail["From"] == "identity@localhost"
    assert "Hello Ann.B," in mail.get_body(("plain",)).get_content()

    verified = stub.VerifyEmail(verification(token_in(mail)))
    assert (verified.id, verified.username) == (registered.id, "Ann.B")
    assert verified.email == "ann+news@example.com"
    assert verified.message == "Email verified successfully! You can now log in."
    (user,) = rows("users")
    assert user["is_email_verified"]


def test_the_password_is_stored_as_a_hash_that_verifies_and_returned_nowhere(
    serve: Serve, rows: Rows
) -> None:
    registered = serve().stub.Register(registration())
    assert PASSWORD not in str(registered)
    (user,) = rows("users")
    assert PASSWORD not in str(user)
    assert verify_password(PASSWORD, str(user["password_hash"]))
    assert not verify_password(PASSWORD + "x", str(user["password_hash"]))


@pytest.mark.parametrize(
    ("password", "same", "other"),
    [
        ("Aa1!" + "\N{GRINNING FACE}" * 44, None, "Aa1!" + "\N{GRINNING FACE}" * 43 + "x"),
        ("Aa1!caf\u00e9xx", "Aa1!cafe\u0301xx", "Aa1!cafexx"),
    ],
    ids=["192 bytes", "composed and decomposed"],
)
def test_every_password_within_the_rules_works_and_is_told_from_others(
    serve: Serve, rows: Rows, password: str, same: str | None, other: str
) -> None:
    serve().stub.Register(registration(password=password))
    stored = str(rows("users")[0]["password_hash"])
    assert verify_password(same or password, stored)
    assert not verify_password(other, stored)


def test_a_token_is_valid_until_one_second_before_its_end(
    serve: Serve, mailbox: Mailbox, clock: FakeClock
) -> None:
    stub = serve().stub
    stub.Register(registration())
    token = mailbox.next_token()
    clock.advance(hours=24, seconds=-1)
    assert stub.VerifyEmail(verification(token)).username == "ann"


def test_a_token_is_expired_one_second_after_its_end(
    serve: Serve, mailbox: Mailbox, clock: FakeClock
) -> None:
    stub = serve().stub
    stub.Register(registration())
    token = mailbox.next_token()
    clock.advance(hours=24, seconds=1)
    assert refused(stub.VerifyEmail, verification(token)).reason == "TOKEN_EXPIRED"


def test_a_used_token_stays_used_after_its_life(
    serve: Serve, mailbox: Mailbox, clock: FakeClock
) -> None:
    stub = serve().stub
    stub.Register(registration())
    token = mailbox.next_token()
    stub.VerifyEmail(verification(token))
    assert refused(stub.VerifyEmail, verification(token)).reason == "TOKEN_USED"
    clock.advance(days=6)
    assert refused(stub.VerifyEmail, verification(token)).reason == "TOKEN_USED"


def test_a_lapsed_registration_gives_its_name_and_address_to_the_next(
    serve: Serve, mailbox: Mailbox, clock: FakeClock, rows: Rows
) -> None:
    stub = serve().stub
    first = stub.Register(registration())
    stale = mailbox.next_token()
    clock.advance(hours=24, seconds=1)
    second = stub.Register(registration("ANN", "ann@example.com"))
    assert second.id != first.id
    assert [user["id"] for user in rows("users")] == [second.id]
    assert refused(stub.VerifyEmail, verification(stale)).reason == "TOKEN_EXPIRED"
    assert stub.VerifyEmail(verification(mailbox.next_token())).id == second.id


def test_name_and_address_may_come_from_two_lapsed_registrations(
    serve: Serve, clock: FakeClock, rows: Rows
) -> None:
    stub = serve().stub
    stub.Register(registration("ann", "ann@example.com"))
    stub.Register(registration("bob", "bob@example.com"))
    clock.advance(hours=24, seconds=1)
    third = stub.Register(registration("ann", "bob@example.com"))
    assert [user["id"] for user in rows("users")] == [third.id]


def test_a_verified_registration_never_lapses(
    serve: Serve, mailbox: Mailbox, clock: FakeClock
) -> None:
    stub = serve().stub
    stub.Register(registration())
    stub.VerifyEmail(verification(mailbox.next_token()))
    clock.advance(days=1000)
    again = refused(stub.Register, registration("other", "ann@example.com"))
    assert again.reason == "EMAIL_TAKEN"
    again = refused(stub.Register, registration("Ann", "other@example.com"))
    assert again.reason == "USERNAME_TAKEN"


def test_a_held_name_is_not_lost_to_one_that_also_wants_a_held_address(
    serve: Serve, clock: FakeClock, rows: Rows
) -> None:
    """What lapsed is only dropped together with the new registration."""
    stub = serve().stub
    stub.Register(registration("ann", "ann@example.com"))
    clock.advance(hours=24, seconds=1)
    stub.Register(registration("bob", "bob@example.com"))
    assert refused(stub.Register, registration("ann", "bob@example.com")).reason == "EMAIL_TAKEN"
    assert {user["username"] for user in rows("users")} == {"ann", "bob"}


def test_the_mail_says_when_its_link_ends(serve: Serve, mailbox: Mailbox) -> None:
    serve(VERIFICATION_TTL="30m").stub.Register(registration())
    assert f"{START:%Y-%m-%d} 12:30 UTC" in mailbox.next().get_body(("plain",)).get_content()

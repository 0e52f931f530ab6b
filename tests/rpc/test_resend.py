"""Another mail, over a real channel: what callers see, and what arrives."""

from identity.v1.identity_pb2 import ResendVerificationRequest
from tests.fakes import FakeClock
from tests.mailbox import Mailbox
from tests.refusals import refused
from tests.requests import registration, verification
from tests.rpc.conftest import Serve


def another(address: str) -> ResendVerificationRequest:
    return ResendVerificationRequest(email=address)


def test_known_unknown_and_verified_addresses_get_the_same_bytes(
    serve: Serve, mailbox: Mailbox, clock: FakeClock
) -> None:
    stub = serve().stub
    stub.Register(registration())
    stub.VerifyEmail(verification(mailbox.next_token()))
    stub.Register(registration("bob", "bob@example.com"))
    mailbox.next()
    clock.advance(minutes=2)
    replies = {
        stub.ResendVerification(another(address)).SerializeToString(deterministic=True)
        for address in ("ann@example.com", "Bob@Example.com", "unknown@example.com")
    }
    assert len(replies) == 1
    assert mailbox.next()["To"] == "bob@example.com"
    assert mailbox.is_empty()


def test_both_links_work_until_one_is_used(
    serve: Serve, mailbox: Mailbox, clock: FakeClock
) -> None:
    stub = serve().stub
    stub.Register(registration())
    first = mailbox.next_token()
    clock.advance(minutes=2)
    stub.ResendVerification(another("ann@example.com"))
    second = mailbox.next_token()
    assert second != first
    assert stub.VerifyEmail(verification(first)).username == "ann"
    assert refused(stub.VerifyEmail, verification(second)).reason == "TOKEN_USED"


def test_the_first_token_lapses_and_the_second_works_on(
    serve: Serve, mailbox: Mailbox, clock: FakeClock
) -> None:
    stub = serve().stub
    stub.Register(registration())
    first = mailbox.next_token()
    clock.advance(hours=23)
    stub.ResendVerification(another("ann@example.com"))
    second = mailbox.next_token()
    clock.advance(hours=2)
    assert refused(stub.VerifyEmail, verification(first)).reason == "TOKEN_EXPIRED"
    assert refused(stub.Register, registration("other", "ann@example.com")).reason == "EMAIL_TAKEN"
    assert stub.VerifyEmail(verification(second)).username == "ann"

"""DeliveryService's messages: what is asked, and how the answer is told."""

import math
from datetime import timedelta
from typing import Any

import grpc
import grpc_testing
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from identity import errors
from identity.deadlines import Deadline
from identity.schemas import UserReference
from identity.servicers.delivery import DeliveryServicer
from identity.services.delivery import DeliveryState, DeliveryStatus, MailStatus
from identity.v1 import delivery_pb2
from identity.v1.delivery_pb2 import GetDeliveryStatusRequest
from tests.fakes import START

SERVICE = delivery_pb2.DESCRIPTOR.services_by_name["DeliveryService"]
USER_ID = "0b1cfa2e-3b1f-4d29-9b5c-0d4a6f2a7c11"
BY_ID = GetDeliveryStatusRequest(user_id=USER_ID)

NOT_A_UUID = ("user_id", "MALFORMED", "user_id must be a UUID of 36 characters")
NOT_AN_ADDRESS = ("email", "MALFORMED", "email must be one valid address")
LATER = START + timedelta(microseconds=1)


def mail(state: DeliveryState, **told: Any) -> MailStatus:  # noqa: ANN401
    """A mail of which nothing is known but its state and what is told."""
    unknown: dict[str, Any] = dict.fromkeys(
        "sent_at dead_at next_try_at last_error pause_reason link_expires_at".split()
    )
    return MailStatus(
        **unknown | {"id": "mail-1", "state": state, "attempts": 0, "created_at": START} | told
    )


class Known:
    """Deliveries that know one user, and keep what they are asked."""

    def __init__(self, *mails: MailStatus) -> None:
        self._mails = mails
        self.seen: list[object] = []

    def status(self, user: UserReference, deadline: Deadline) -> DeliveryStatus:
        self.seen += [user, deadline.remaining()]
        return DeliveryStatus(USER_ID, is_email_verified=True, mails=self._mails)


class Unknown:
    """Deliveries that know nobody."""

    def status(self, user: UserReference, deadline: Deadline) -> DeliveryStatus:
        raise errors.UserNotFound


def answer(
    deliveries: Known | Unknown,
    request: GetDeliveryStatusRequest = BY_ID,
    timeout: float | None = None,
) -> tuple[Any, grpc.StatusCode, str]:
    """The reply, the code and the sentence that a call gets."""
    server = grpc_testing.server_from_dictionary(
        {SERVICE: DeliveryServicer(deliveries)}, grpc_testing.strict_fake_time(0)
    )
    call = server.invoke_unary_unary(
        SERVICE.methods_by_name["GetDeliveryStatus"], (), request, timeout
    )
    response, _, code, sentence = call.termination()
    return response, code, sentence


def timestamp(moment: Any) -> Timestamp:  # noqa: ANN401
    made = Timestamp()
    made.FromDatetime(moment)
    return made


@pytest.mark.parametrize("state", DeliveryState)
def test_each_state_has_its_number(state: DeliveryState) -> None:
    response, code, _ = answer(Known(mail(state)))
    assert code is grpc.StatusCode.OK
    (told,) = response.mails
    assert delivery_pb2.MailState.Name(told.state) == f"MAIL_STATE_{state.name}"


def test_everything_that_is_known_of_a_mail_is_told() -> None:
    known = mail(
        DeliveryState.DEAD,
        attempts=3,
        sent_at=START,
        dead_at=LATER,
        next_try_at=START,
        last_error="smtp 550 to RCPT",
        pause_reason="ses SendingPausedException",
        link_expires_at=LATER,
    )
    response, _, _ = answer(Known(known))
    assert (response.user_id, response.email_verified) == (USER_ID, True)
    assert list(response.mails) == [
        delivery_pb2.MailStatus(
            id="mail-1",
            state=delivery_pb2.MAIL_STATE_DEAD,
            attempts=3,
            created_at=timestamp(START),
            sent_at=timestamp(START),
            dead_at=timestamp(LATER),
            next_try_at=timestamp(START),
            last_error="smtp 550 to RCPT",
            pause_reason="ses SendingPausedException",
            link_expires_at=timestamp(LATER),
        )
    ]


def test_what_is_not_known_of_a_mail_is_absent() -> None:
    response, _, _ = answer(Known(mail(DeliveryState.QUEUED)))
    told = {field.name for field, _ in response.mails[0].ListFields()}
    assert told == {"id", "state", "created_at"}


def test_mails_keep_their_order() -> None:
    known = Known(*(mail(DeliveryState.SENT, id=str(number)) for number in range(10)))
    response, _, _ = answer(known)
    assert [mail.id for mail in response.mails] == list("0123456789")


def test_the_user_is_asked_for_by_what_was_given_in_its_one_form_and_with_the_deadline() -> None:
    known = Known()
    answer(known, GetDeliveryStatusRequest(user_id=USER_ID.upper()))
    answer(known, GetDeliveryStatusRequest(email="Ann@Example.com"), timeout=3600)
    by_id, unlimited, by_address, limited = known.seen
    assert (by_id, unlimited) == (UserReference(user_id=USER_ID), math.inf)
    assert by_address == UserReference(email="ann@example.com")
    assert isinstance(limited, float)
    assert limited <= 3600


def test_who_is_not_registered_is_not_found() -> None:
    found = answer(Unknown())
    assert found == (None, grpc.StatusCode.NOT_FOUND, "There is no such user.")


@pytest.mark.parametrize(
    "user",
    [{}, {"user_id": ""}, {"email": ""}, {"user_id": "ann@example.com"}, {"email": USER_ID}],
    ids=["neither", "an empty id", "an empty address", "an address as id", "an id as address"],
)
def test_nothing_is_looked_up_unless_a_user_is_named(user: dict[str, str]) -> None:
    known = Known()
    refusal = (None, grpc.StatusCode.INVALID_ARGUMENT, "Some fields are invalid")
    assert answer(known, GetDeliveryStatusRequest(**user)) == refusal
    assert known.seen == []


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ({"user_id": "", "email": ""}, {NOT_A_UUID, NOT_AN_ADDRESS}),
        ({"user_id": USER_ID[:-1]}, {NOT_A_UUID}),
        ({"user_id": USER_ID.replace("-", "")}, {NOT_A_UUID}),
        ({"user_id": f"{{{USER_ID}}}"}, {NOT_A_UUID}),
        ({"user_id": f"{USER_ID}\n"}, {NOT_A_UUID}),
        ({"email": "ann"}, {NOT_AN_ADDRESS}),
        ({"email": "=?utf-8?q?a?=@x.org"}, {NOT_AN_ADDRESS}),
        (
            {"email": f"{'a' * 250}@x.org"},
            {("email", "TOO_LONG", "string should have at most 254 characters")},
        ),
    ],
)
def test_each_broken_rule_has_its_sentence(
    user: dict[str, str], expected: set[tuple[str, str, str]]
) -> None:
    with pytest.raises(errors.InvalidFields) as caught:
        UserReference.checked(**user)
    violations = caught.value.violations
    assert {(each.field, each.reason, each.description) for each in violations} == expected

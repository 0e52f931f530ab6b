"""DeliveryService on a wire, for the caller that is named for it."""

from collections.abc import Iterator

import grpc
import pytest

from identity.v1.delivery_pb2 import MAIL_STATE_QUEUED, GetDeliveryStatusRequest
from identity.v1.delivery_pb2_grpc import DeliveryServiceStub
from identity.v1.identity_pb2_grpc import IdentityServiceStub
from tests.certificates import Authority, dns
from tests.mailbox import Mailbox
from tests.refusals import refused
from tests.requests import registration
from tests.rpc.conftest import Running
from tests.rpc.secured import ListCallers, authority, channel, list_callers, secured

__all__ = ["authority", "list_callers", "secured"]

CANARY_NAME = "canary.name"
CANARY_ADDRESS = "canary.address@example.com"
SUPPORT = """
[[caller]]
name = "support.example.com"
methods = [
  "identity.v1.DeliveryService/GetDeliveryStatus",
  "identity.v1.IdentityService/Register",
]
"""


@pytest.fixture
def running(list_callers: ListCallers) -> Running:
    """A service whose mails go nowhere."""
    with Mailbox() as down:
        port = down.port
    return list_callers(SUPPORT)(SMTP_PORT=str(port))


@pytest.fixture
def opened(running: Running, authority: Authority) -> Iterator[grpc.Channel]:
    shown = authority.issue("support", dns("support.example.com"))
    with channel(running, authority, shown) as open_channel:
        yield open_channel


def test_a_mail_is_told_of_without_its_address_or_username(
    running: Running, opened: grpc.Channel, capfd: pytest.CaptureFixture[str]
) -> None:
    user = IdentityServiceStub(opened).Register(registration(CANARY_NAME, CANARY_ADDRESS))
    ask = DeliveryServiceStub(opened).GetDeliveryStatus
    reply = ask(GetDeliveryStatusRequest(email=CANARY_ADDRESS))
    assert ask(GetDeliveryStatusRequest(user_id=user.id)).mails[0].id == reply.mails[0].id
    unknown = refused(ask, GetDeliveryStatusRequest(email=f"x.{CANARY_ADDRESS}"))
    assert unknown.code is grpc.StatusCode.NOT_FOUND
    assert (unknown.reason, unknown.sentence) == ("USER_NOT_FOUND", "There is no such user.")
    running.service.stop()
    (mail,) = reply.mails
    assert (reply.user_id, mail.state) == (user.id, MAIL_STATE_QUEUED)
    assert "canary" not in f"{reply}{unknown}{capfd.readouterr().err}"


def test_a_question_about_nobody_is_refused(opened: grpc.Channel) -> None:
    refusal = refused(DeliveryServiceStub(opened).GetDeliveryStatus, GetDeliveryStatusRequest())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert refusal.violations == {
        ("user_id", "MALFORMED", "user_id must be a UUID of 36 characters"),
        ("email", "MALFORMED", "email must be one valid address"),
    }

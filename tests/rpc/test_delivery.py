"""DeliveryService on a wire, without what says who may call it."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from sqlalchemy import select, update
from structlog.testing import capture_logs

from identity.database import Database
from identity.interceptors.clients import Clients
from identity.interceptors.observe import ObserveInterceptor
from identity.models import User, Verification
from identity.servicers.delivery import DeliveryServicer
from identity.services.delivery import DeliveryStatusService
from identity.v1.delivery_pb2 import MAIL_STATE_QUEUED, GetDeliveryStatusRequest
from identity.v1.delivery_pb2_grpc import (
    DeliveryServiceStub,
    add_DeliveryServiceServicer_to_server,
)
from tests.fakes import FakeClock
from tests.outbox import SIGNER, queue
from tests.refusals import refused
from tests.rpc.conftest import Serve

CANARY_NAME = "canary.name"
CANARY_ADDRESS = "canary.address@example.com"


@pytest.fixture
def stub(database: Database, clock: FakeClock) -> Iterator[DeliveryServiceStub]:
    """The service alone, on a real port and database, with its calls logged."""
    server = grpc.server(ThreadPoolExecutor(2), interceptors=[ObserveInterceptor(Clients())])
    deliveries = DeliveryStatusService(database, time=lambda _: clock.now())
    add_DeliveryServiceServicer_to_server(DeliveryServicer(deliveries), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield DeliveryServiceStub(channel)
    server.stop(None).wait()


def test_a_mail_is_told_of_without_its_address_username_or_token(
    stub: DeliveryServiceStub, database: Database, clock: FakeClock
) -> None:
    (mail_id,) = queue(database, clock)
    with database.write() as connection:
        connection.execute(update(User).values(username=CANARY_NAME, email=CANARY_ADDRESS))
        connection.execute(update(Verification).values(email=CANARY_ADDRESS))
        user_id, token_id = connection.execute(select(Verification.user_id, Verification.id)).one()
    with capture_logs() as lines:
        reply = stub.GetDeliveryStatus(GetDeliveryStatusRequest(email=CANARY_ADDRESS))
        assert reply == stub.GetDeliveryStatus(GetDeliveryStatusRequest(user_id=user_id))
        refused(stub.GetDeliveryStatus, GetDeliveryStatusRequest(email=f"x.{CANARY_ADDRESS}"))
    (mail,) = reply.mails
    assert (mail.id, mail.state) == (mail_id, MAIL_STATE_QUEUED)
    assert reply.user_id == user_id
    token = SIGNER.token(token_id, SIGNER.fingerprint)
    shown = f"{reply}{reply.SerializeToString()!r}{lines}"
    assert [line["code"] for line in lines] == ["OK", "OK", "NOT_FOUND"]
    for secret in ("canary", token, token[:20], token_id.hex(), str(uuid.UUID(bytes=token_id))):
        assert secret not in shown


def test_a_refused_question_tells_why_and_nothing_that_was_sent(
    stub: DeliveryServiceStub,
) -> None:
    unknown = refused(stub.GetDeliveryStatus, GetDeliveryStatusRequest(email=CANARY_ADDRESS))
    assert unknown.code is grpc.StatusCode.NOT_FOUND
    assert (unknown.reason, unknown.sentence) == ("USER_NOT_FOUND", "There is no such user.")
    assert "canary" not in str(unknown)
    neither = refused(stub.GetDeliveryStatus, GetDeliveryStatusRequest())
    assert (neither.code, neither.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert neither.violations == {
        ("user_id", "MALFORMED", "user_id must be a UUID of 36 characters"),
        ("email", "MALFORMED", "email must be one valid address"),
    }


def test_the_whole_server_has_the_service(serve: Serve) -> None:
    reflection = reflection_pb2_grpc.ServerReflectionStub(serve().channel)
    (found,) = reflection.ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    )
    listed = {service.name for service in found.list_services_response.service}
    assert {"identity.v1.DeliveryService", "identity.v1.IdentityService"} <= listed

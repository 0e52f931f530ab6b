"""DeliveryService: messages to service calls and back. The proto file is its manual."""

from datetime import datetime
from typing import Final, Protocol

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from identity.deadlines import Deadline
from identity.schemas import UserReference
from identity.servicers.status import answering
from identity.services.delivery import DeliveryState, DeliveryStatus, MailStatus
from identity.v1 import delivery_pb2, delivery_pb2_grpc

_STATES: Final = {
    DeliveryState.QUEUED: delivery_pb2.MAIL_STATE_QUEUED,
    DeliveryState.SENT: delivery_pb2.MAIL_STATE_SENT,
    DeliveryState.DEAD: delivery_pb2.MAIL_STATE_DEAD,
    DeliveryState.PAUSED: delivery_pb2.MAIL_STATE_PAUSED,
}


class Deliveries(Protocol):
    """Knows how a user's mails stand."""

    def status(self, user: UserReference, deadline: Deadline) -> DeliveryStatus: ...


class DeliveryServicer(delivery_pb2_grpc.DeliveryServiceServicer):
    """Who may call is not its concern: the server's interceptors say."""

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries

    @answering
    def GetDeliveryStatus(
        self, request: delivery_pb2.GetDeliveryStatusRequest, context: grpc.ServicerContext
    ) -> delivery_pb2.GetDeliveryStatusResponse:
        deadline = Deadline.after(context.time_remaining(), is_wanted=context.is_active)
        found = self._deliveries.status(_user(request), deadline)
        return delivery_pb2.GetDeliveryStatusResponse(
            user_id=found.user_id,
            email_verified=found.is_email_verified,
            mails=map(_mail, found.mails),
        )


def _user(request: delivery_pb2.GetDeliveryStatusRequest) -> UserReference:
    given = request.WhichOneof("user")
    # Where neither is given both are missing, and the caller is told so of both.
    fields = ("user_id", "email") if given is None else (given,)
    return UserReference.checked(**{field: getattr(request, field) for field in fields})


def _mail(mail: MailStatus) -> delivery_pb2.MailStatus:
    return delivery_pb2.MailStatus(
        id=mail.id,
        state=_STATES[mail.state],
        attempts=mail.attempts,
        created_at=_timestamp(mail.created_at),
        sent_at=_timestamp(mail.sent_at),
        dead_at=_timestamp(mail.dead_at),
        next_try_at=_timestamp(mail.next_try_at),
        last_error=mail.last_error or "",
        pause_reason=mail.pause_reason or "",
        link_expires_at=_timestamp(mail.link_expires_at),
    )


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp

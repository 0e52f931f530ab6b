"""IdentityService: messages to service calls and back. The proto file is its manual."""

from typing import Protocol

import grpc

from identity.deadlines import Deadline
from identity.errors import NotAvailable
from identity.schemas import Registration
from identity.servicers.status import answering
from identity.services.registration import RegisteredUser
from identity.services.verification import VerifiedUser
from identity.v1 import identity_pb2, identity_pb2_grpc

REGISTERED = "Success! Please check your email for verification instructions."
VERIFIED = "Email verified successfully! You can now log in."


class Registrar(Protocol):
    """Registers people."""

    def register(self, registration: Registration, deadline: Deadline) -> RegisteredUser: ...


class Verifier(Protocol):
    """Redeems tokens."""

    def verify(self, token: str, deadline: Deadline) -> VerifiedUser: ...


class IdentityServicer(identity_pb2_grpc.IdentityServiceServicer):
    """Whole by itself: its refusals have their codes and details without any interceptor."""

    def __init__(self, registrar: Registrar, verifier: Verifier) -> None:
        self._registrar = registrar
        self._verifier = verifier

    @answering
    def Register(
        self, request: identity_pb2.RegisterRequest, context: grpc.ServicerContext
    ) -> identity_pb2.RegisterResponse:
        registration = Registration.checked(
            username=request.username,
            email=request.email,
            password=request.password,
            request_id=request.request_id,
        )
        user = self._registrar.register(registration, _deadline(context))
        return identity_pb2.RegisterResponse(
            id=user.id, username=user.username, email=user.email, message=REGISTERED
        )

    @answering
    def VerifyEmail(
        self, request: identity_pb2.VerifyEmailRequest, context: grpc.ServicerContext
    ) -> identity_pb2.VerifyEmailResponse:
        user = self._verifier.verify(request.token, _deadline(context))
        return identity_pb2.VerifyEmailResponse(
            id=user.id, username=user.username, email=user.email, message=VERIFIED
        )

    @answering
    def ResendVerification(
        self, request: identity_pb2.ResendVerificationRequest, context: grpc.ServicerContext
    ) -> identity_pb2.ResendVerificationResponse:
        raise NotAvailable


def _deadline(context: grpc.ServicerContext) -> Deadline:
    return Deadline.after(context.time_remaining(), is_wanted=context.is_active)

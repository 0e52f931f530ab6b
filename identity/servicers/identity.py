"""IdentityService: messages to service calls and back. The proto file is its manual."""

from typing import Protocol

import grpc

from identity.calls import current_call
from identity.deadlines import Deadline
from identity.schemas import Registration, Resend
from identity.servicers.status import answering
from identity.services.registration import RegisteredUser
from identity.services.verification import VerifiedUser
from identity.v1 import identity_pb2, identity_pb2_grpc

REGISTERED = "Success! Please check your email for verification instructions."
RESENT = "If this address waits to be verified, a new email is on its way."
VERIFIED = "Email verified successfully! You can now log in."


class Registrar(Protocol):
    """Registers people."""

    def register(
        self, registration: Registration, caller: str, deadline: Deadline
    ) -> RegisteredUser: ...


class Verifier(Protocol):
    """Redeems tokens."""

    def verify(self, token: str, deadline: Deadline) -> VerifiedUser: ...


class Resender(Protocol):
    """Notes that somebody wants another mail."""

    def request(self, email: str, deadline: Deadline) -> None: ...


class IdentityServicer(identity_pb2_grpc.IdentityServiceServicer):
    """Whole by itself: its refusals have their codes and details without any interceptor."""

    def __init__(self, registrar: Registrar, verifier: Verifier, resender: Resender) -> None:
        self._registrar = registrar
        self._verifier = verifier
        self._resender = resender

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
        user = self._registrar.register(registration, _caller(), _deadline(context))
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
        wanted = Resend.checked(email=request.email)
        self._resender.request(wanted.email, _deadline(context))
        return identity_pb2.ResendVerificationResponse(message=RESENT)


def _caller() -> str:
    """Whose request ids are told apart from those of others; empty without interceptors."""
    call = current_call.get(None)
    return call.client if call else ""


def _deadline(context: grpc.ServicerContext) -> Deadline:
    return Deadline.after(context.time_remaining(), is_wanted=context.is_active)

"""Requests that keep every rule, but for what a test changes."""

from identity.v1.identity_pb2 import RegisterRequest, VerifyEmailRequest

PASSWORD = "Correct-Horse-7!"


def registration(
    username: str = "ann",
    email: str = "ann@example.com",
    password: str = PASSWORD,
    request_id: str = "",
) -> RegisterRequest:
    return RegisterRequest(username=username, email=email, password=password, request_id=request_id)


def verification(token: str) -> VerifyEmailRequest:
    return VerifyEmailRequest(token=token)

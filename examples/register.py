"""Registers a person and proves the address, against `make run` on this machine."""

import grpc

from identity.v1.identity_pb2 import RegisterRequest, VerifyEmailRequest
from identity.v1.identity_pb2_grpc import IdentityServiceStub

with grpc.insecure_channel("127.0.0.1:50051") as channel:
    identity = IdentityServiceStub(channel)
    user = identity.Register(
        RegisterRequest(username="bob", email="bob@example.com", password="Correct-Horse-7!")
    )
    print(user.message)
    verified = identity.VerifyEmail(VerifyEmailRequest(token=input("token from the mail: ")))
    print(verified.message)

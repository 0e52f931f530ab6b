"""The reference: a bare server with the service's stubs, threads and switch interval, that does
nothing. A program of its own: prints where it listens, serves until it is ended.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

from identity.security.passwords import ADMITTED_PER_CORE
from identity.serving import SWITCH_INTERVAL
from identity.transport import LIGHT_THREADS
from identity.v1 import identity_pb2, identity_pb2_grpc
from tests.bench.machine import cores


class _Empty(identity_pb2_grpc.IdentityServiceServicer):
    def Register(  # noqa: N802 - the proto file's names
        self, request: identity_pb2.RegisterRequest, context: grpc.ServicerContext
    ) -> identity_pb2.RegisterResponse:
        return identity_pb2.RegisterResponse()

    def VerifyEmail(  # noqa: N802
        self, request: identity_pb2.VerifyEmailRequest, context: grpc.ServicerContext
    ) -> identity_pb2.VerifyEmailResponse:
        return identity_pb2.VerifyEmailResponse()


def main() -> None:
    sys.setswitchinterval(SWITCH_INTERVAL)
    threads = ADMITTED_PER_CORE * cores() + LIGHT_THREADS
    server = grpc.server(ThreadPoolExecutor(threads), options=(("grpc.so_reuseport", 0),))
    identity_pb2_grpc.add_IdentityServiceServicer_to_server(_Empty(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening on 127.0.0.1:{port}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()

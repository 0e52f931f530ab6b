"""Reflection: lists the API to grpcurl and its like."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import grpc

# Imported for its descriptors: reflection can then show the details of an error.
from google.rpc import error_details_pb2  # noqa: F401
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from identity.interceptors.patience import Patience
from identity.servicers.pools import OpenPool

# A stream keeps a thread for as long as its client likes: these, and none of those for calls.
THREADS: Final = 4


class ReflectionServicer(reflection.ReflectionServicer):
    """grpcio-reflection's own, with an end to every stream."""

    def __init__(self, services: Sequence[str], patience: Patience) -> None:
        super().__init__(service_names=(*services, reflection.SERVICE_NAME))
        self._patience = patience

    def ServerReflectionInfo(  # type: ignore[override]  # never run by grpc.aio
        self, request_iterator: Iterator[Any], context: grpc.ServicerContext
    ) -> Iterator[Any]:
        with self._patience.waiting(context):
            yield from super().ServerReflectionInfo(request_iterator, context)

    # How grpcio knows which threads to use.
    ServerReflectionInfo.experimental_thread_pool = OpenPool(THREADS, "reflection")  # type: ignore[attr-defined]


def add_reflection(server: grpc.Server, services: Sequence[str], patience: Patience) -> None:
    """Serves reflection of the services, and of itself."""
    servicer = ReflectionServicer(services, patience)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]

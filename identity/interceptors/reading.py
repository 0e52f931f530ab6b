"""Reads requests, and gives up those that do not come.

gRPC's Python server takes a thread for a call as soon as its headers are there, and waits in it for
the request. A caller that opens calls and sends nothing would hold every thread for as long as its
connections last. Here a call without a request is cancelled after a few seconds.

That takes handlers of streams, of which there is one request: only of those gRPC lets the handler
do the reading. On the wire they are the same. The innermost interceptor, so that calls are counted
before anybody waits for them.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

import grpc

from identity.interceptors.patience import Patience
from identity.interceptors.wrapping import OPEN_SERVICES, Continuation, Handler
from identity.servicers.pools import OpenPool
from identity.servicers.status import abort

_NOT_ONE: Final = "exactly one request message is required"  # as gRPC: UNIMPLEMENTED
_UNDECODABLE: Final = "Exception deserializing request!"  # as gRPC: INTERNAL


class ReadingInterceptor(grpc.ServerInterceptor):
    """Reads the one request of every unary RPC, also of those that are not ours."""

    def __init__(self, patience: Patience, patience_of_open_services: Patience) -> None:
        """Two, because the services that are not counted have threads of their own."""
        self._patience = patience
        self._patience_of_open_services = patience_of_open_services
        self._reading: dict[str, Handler] = {}
        self._pools: dict[str, OpenPool | None] = {}

    def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        method = handler_call_details.method
        if method.startswith(OPEN_SERVICES) and not self._has_room(method):
            return _BUSY
        if method in self._reading:
            return self._reading[method]
        handler = continuation(handler_call_details)
        if handler is not None:
            self._pools[method] = _pool_of(handler)
        if handler is None or handler.request_streaming:
            return handler
        is_open = method.startswith(OPEN_SERVICES)
        patience = self._patience_of_open_services if is_open else self._patience
        decode = handler.request_deserializer or bytes
        if handler.unary_unary is not None:
            self._reading[method] = grpc.stream_unary_rpc_method_handler(
                _read(handler.unary_unary, decode, patience),
                response_serializer=handler.response_serializer,
            )
        elif handler.unary_stream is not None:
            self._reading[method] = grpc.stream_stream_rpc_method_handler(
                _read(handler.unary_stream, decode, patience),
                response_serializer=handler.response_serializer,
            )
        return self._reading.get(method)

    def _has_room(self, method: str) -> bool:
        pool = self._pools.get(method)
        return pool is None or pool.has_room()


def _pool_of(handler: Any) -> OpenPool | None:  # noqa: ANN401 - generic only in the type stubs
    """The threads of its own that an open service has."""
    behaviors = (handler.unary_unary, handler.unary_stream, handler.stream_stream)
    pools = (getattr(behavior, "experimental_thread_pool", None) for behavior in behaviors)
    return next((pool for pool in pools if isinstance(pool, OpenPool)), None)


def _refuse(_requests: object, context: grpc.ServicerContext) -> NoReturn:
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls of this kind")


# Answered at once by the threads of other calls, without a look at the request.
_BUSY: Final[Handler] = grpc.stream_unary_rpc_method_handler(_refuse)


def _read(
    behavior: Callable[..., Any], decode: Callable[[bytes], Any], patience: Patience
) -> Callable[..., Any]:
    def reading(requests: Iterator[bytes], context: grpc.ServicerContext, *others: object) -> Any:  # noqa: ANN401
        patience.begin(context)  # not `with waiting`, which costs as much as all else here
        try:
            request = next(requests)
        except StopIteration:
            abort(context, grpc.StatusCode.UNIMPLEMENTED, _NOT_ONE, "REQUEST_MISSING")
        except grpc.RpcError:  # cancelled by us, by the caller, or for its size by gRPC
            abort(context, grpc.StatusCode.CANCELLED, "", "REQUEST_NOT_RECEIVED")
        finally:
            patience.end(context)
        try:
            message = decode(request)
        except Exception:  # noqa: BLE001 - whatever the decoder raises
            abort(context, grpc.StatusCode.INTERNAL, _UNDECODABLE, "REQUEST_UNDECODABLE")
        return behavior(message, context, *others)

    # How gRPC knows which threads the behavior runs in, and whether it keeps one.
    for name in ("experimental_thread_pool", "experimental_non_blocking"):
        if hasattr(behavior, name):
            setattr(reading, name, getattr(behavior, name))
    return reading

"""The wrapping that all interceptors share."""

from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias

import grpc

from identity.policy import RULES

# Answers a call, given its requests, of which there is one.
Behavior: TypeAlias = Callable[[Iterator[Any], grpc.ServicerContext], Any]
# In quotes: generic only in the type stubs.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Handler]"

# Open to everybody who may connect, and not counted: health tells nothing but a state, reflection
# what is public. Wrapping Health.Watch would pin a thread for every watcher.
OPEN_SERVICES: Final = ("/grpc.health.v1.Health/", "/grpc.reflection.")


class Wrapping(grpc.ServerInterceptor):
    """Lays `around` about every RPC of ours, once for each; the work belongs into the behavior.

    Fails closed: what has no rule and is not one of the open services does not exist.
    """

    def __init__(self) -> None:
        # intercept_service runs for every call, under the server's lock.
        self._wrapped: dict[str, Handler] = {}

    def around(self, behavior: Behavior, method: str) -> Behavior:
        """The behavior of an RPC, with this interceptor's work about it."""
        raise NotImplementedError

    def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        method = handler_call_details.method
        if method in self._wrapped:
            return self._wrapped[method]
        handler = continuation(handler_call_details)
        if handler is None or method.startswith(OPEN_SERVICES):
            return handler
        # Reading has made streams of them: see reading.py.
        if method not in RULES or handler.stream_unary is None:
            return None
        self._wrapped[method] = grpc.stream_unary_rpc_method_handler(
            self.around(handler.stream_unary, method),
            handler.request_deserializer,
            handler.response_serializer,
        )
        return self._wrapped[method]

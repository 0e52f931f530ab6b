"""The wrapping that all interceptors share."""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import grpc

Behavior: TypeAlias = Callable[[Any, grpc.ServicerContext], Any]
# In quotes: generic only in the type stubs.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Handler]"

# Calls of other services, such as health and reflection, pass the interceptors untouched:
# wrapping Health.Watch would pin a thread for every watcher.
_OURS: Final = "/identity.v1."


def wrap(
    continuation: Continuation,
    details: grpc.HandlerCallDetails,
    around: Callable[[Behavior, grpc.HandlerCallDetails], Behavior],
) -> Handler:
    """The method's handler with `around` laid about it, if the method is one of ours.

    Only the wrapping happens here, under the server's lock; the work belongs into the behavior.
    """
    handler = continuation(details)
    if handler is None or handler.unary_unary is None or not details.method.startswith(_OURS):
        return handler
    return grpc.unary_unary_rpc_method_handler(
        around(handler.unary_unary, details),
        handler.request_deserializer,
        handler.response_serializer,
    )

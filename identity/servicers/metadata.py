"""Trailing metadata: every part of a call adds its own, where gRPC would replace.

Behind the interceptors it is gathered in the call at hand and told to gRPC once; a servicer that is
called without them tells gRPC at once.
"""

import grpc

from identity.calls import current_call

Value = str | bytes


def trailing(context: grpc.ServicerContext) -> dict[str, Value]:
    """What has been added to the call's trailing metadata so far."""
    call = current_call.get(None)
    if call is not None:
        return dict(call.trailing)
    try:
        return dict(context.trailing_metadata() or ())
    except NotImplementedError:  # grpcio-testing's context does not tell
        return {}


def add_trailing(context: grpc.ServicerContext, *added: tuple[str, Value]) -> None:
    """Adds to the trailing metadata. Keys are in lower case, or gRPC fails the whole call."""
    call = current_call.get(None)
    if call is not None:
        call.trailing.extend(added)
    else:
        context.set_trailing_metadata((*trailing(context).items(), *added))


def send_trailing(context: grpc.ServicerContext) -> None:
    """Tells gRPC what was gathered. Before the reply, or the abortion."""
    call = current_call.get(None)
    if call is not None:
        context.set_trailing_metadata(tuple(call.trailing))

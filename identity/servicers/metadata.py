"""Trailing metadata: every part of a call adds its own, where gRPC would replace."""

import grpc

Value = str | bytes


def trailing(context: grpc.ServicerContext) -> dict[str, Value]:
    """What has been added to the call's trailing metadata so far."""
    try:
        return dict(context.trailing_metadata() or ())
    except NotImplementedError:  # grpcio-testing's context does not tell
        return {}


def add_trailing(context: grpc.ServicerContext, *added: tuple[str, Value]) -> None:
    """Adds to the trailing metadata. Keys are in lower case, or gRPC fails the whole call."""
    context.set_trailing_metadata((*trailing(context).items(), *added))

"""Decodes a refusal as a client does."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

_KINDS = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.RetryInfo,
        error_details_pb2.QuotaFailure,
        error_details_pb2.RequestInfo,
    )
}


@dataclass(frozen=True)
class Refusal:
    """What a caller learns of a refused call."""

    code: grpc.StatusCode
    sentence: str
    details: dict[str, Any]  # by the short name of the message
    metadata: dict[str, str | bytes]

    @property
    def reason(self) -> str:
        info = self.details["ErrorInfo"]
        assert info.domain == "identity"
        reason: str = info.reason
        return reason

    @property
    def violations(self) -> set[tuple[str, str, str]]:
        return {
            (broken.field, broken.reason, broken.description)
            for broken in self.details["BadRequest"].field_violations
        }


def decode(error: grpc.RpcError) -> Refusal:
    """The refusal in an error that a stub raised."""
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    assert status is not None
    assert status.code == error.code().value[0]
    assert status.message == error.details()
    details = {}
    for packed in status.details:
        name = packed.type_url.rpartition("/")[2]
        message: Message = _KINDS[name]()
        assert packed.Unpack(message)
        details[name.rpartition(".")[2]] = message
    return Refusal(
        error.code(), error.details() or "", details, dict(error.trailing_metadata() or ())
    )


def outcome(error: grpc.RpcError) -> str:
    """The code of a call that failed, and the reason if it was the service that refused it."""
    assert isinstance(error, grpc.Call)
    refusal_came = rpc_status.from_call(error) is not None
    return f"{error.code().name} {decode(error).reason}" if refusal_came else error.code().name


def refused(call: Callable[..., object], request: Message, **options: Any) -> Refusal:  # noqa: ANN401
    """Makes a call that must be refused."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, **options)
    return decode(caught.value)

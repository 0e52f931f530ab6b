"""Turns domain errors into gRPC statuses: the only place that does."""

import functools
import uuid
from collections.abc import Callable
from typing import Final, NoReturn, TypeVar

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from identity import errors
from identity.servicers.metadata import add_trailing, send_trailing, trailing
from identity.tracebacks import describe, kind_of

DOMAIN: Final = "identity"  # of every ErrorInfo
REQUEST_ID: Final = "x-request-id"

CODES: Final[dict[type[errors.IdentityError], grpc.StatusCode]] = {
    errors.InvalidFields: grpc.StatusCode.INVALID_ARGUMENT,
    errors.EmailTaken: grpc.StatusCode.ALREADY_EXISTS,
    errors.UsernameTaken: grpc.StatusCode.ALREADY_EXISTS,
    errors.RequestIdReused: grpc.StatusCode.INVALID_ARGUMENT,
    errors.TokenError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UserNotFound: grpc.StatusCode.NOT_FOUND,
    errors.CallerNotAllowed: grpc.StatusCode.PERMISSION_DENIED,
    errors.RateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineTooShort: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.DatabaseUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.Unforeseen: grpc.StatusCode.INTERNAL,
}

_NANOSECONDS_PER_SECOND: Final = 1_000_000_000
_NANOSECONDS_PER_MILLISECOND: Final = 1_000_000

# Of the errors that have no details of their own; there are as many as classes in errors.py.
_ALWAYS_THE_SAME: Final[dict[type[errors.IdentityError], bytes]] = {}

_log = structlog.get_logger()

Response = TypeVar("Response")


class Refused(Exception):
    """The call has been aborted with this status. It carries no text for gRPC to pass on."""

    def __init__(self, code: grpc.StatusCode, reason: str) -> None:
        super().__init__()
        self.code = code
        self.reason = reason


def answering(rpc: Callable[..., Response]) -> Callable[..., Response]:
    """Decorates a servicer's method: its errors become statuses, whatever they are."""

    @functools.wraps(rpc)
    def method(servicer: object, request: Message, context: grpc.ServicerContext) -> Response:
        return answer(lambda: rpc(servicer, request, context), context, rpc.__name__)

    return method


def answer(work: Callable[[], Response], context: grpc.ServicerContext, rpc: str) -> Response:
    """Does the work of the RPC of that name, or aborts the call and raises Refused.

    What nobody foresaw is logged here, once, under the call's request id. BaseException is caught
    with it: a SystemExit that leaves a handler would leave the caller hanging, and any other
    exception would reach the caller with its text.
    """
    try:
        return work()
    except Refused:
        raise
    except errors.IdentityError as error:
        refusal = error
        if isinstance(error, errors.DatabaseUnavailable):
            cause = kind_of(error.__cause__ or error)
            _log.warning("database_unavailable", request_id=_request_id(context), error=cause)
    except BaseException as error:  # noqa: BLE001 - see above
        refusal = _unforeseen(rpc)
        _log.error("unforeseen", request_id=_request_id(context), rpc=rpc, **describe(error))
    # Outside the handlers above: the exception that abort() raises must not be caught by them.
    return _refuse(context, refusal)


def _unforeseen(rpc: str) -> errors.Unforeseen:
    return errors.RegistrationUnforeseen() if rpc == "Register" else errors.Unforeseen()


def _refuse(context: grpc.ServicerContext, error: errors.IdentityError) -> NoReturn:
    code = next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)
    added: list[tuple[str, str | bytes]] = [
        ("grpc-status-details-bin", _serialized(context, error, code))
    ]
    if isinstance(error, errors.RateLimited):
        # Rounded up: a client that waits as told must be admitted.
        added.append(
            (
                "grpc-retry-pushback-ms",
                str(-(-error.retry_after_ns // _NANOSECONDS_PER_MILLISECOND)),
            )
        )
    add_trailing(context, *added)
    abort(context, code, error.sentence, error.reason)


def abort(
    context: grpc.ServicerContext, code: grpc.StatusCode, sentence: str, reason: str = ""
) -> NoReturn:
    """Ends the call with the status. Raises Refused with the reason, for the log."""
    # abort(), not set_code() and an empty message: only a reply of trailers alone lets clients'
    # retry policies work. It raises a bare Exception, which carries no reason for the log.
    send_trailing(context)
    try:
        context.abort(code, sentence)
    finally:
        raise Refused(code, reason)


def _serialized(
    context: grpc.ServicerContext, error: errors.IdentityError, code: grpc.StatusCode
) -> bytes:
    """The google.rpc.Status. Most are the same at each call, and are made once."""
    known = _ALWAYS_THE_SAME.get(type(error))
    if known is not None:
        return known
    details = _details(context, error)
    status = status_pb2.Status(code=code.value[0], message=error.sentence)
    for detail in (_error_info(error), *details):
        status.details.add().Pack(detail)
    made: bytes = status.SerializeToString()
    if not details:
        _ALWAYS_THE_SAME[type(error)] = made
    return made


def _error_info(error: errors.IdentityError) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)


def _details(context: grpc.ServicerContext, error: errors.IdentityError) -> list[Message]:
    """What the error has beside its ErrorInfo."""
    found: list[Message] = []
    match error:
        case errors.InvalidFields():
            bad_request = error_details_pb2.BadRequest()
            for broken in error.violations:
                bad_request.field_violations.add(
                    field=broken.field, reason=broken.reason, description=broken.description
                )
            found.append(bad_request)
        case errors.RateLimited():
            found.append(_retry_info(error.retry_after_ns))
            # The caller knows who it is; whom else it is counted with is not its business.
            quota = error_details_pb2.QuotaFailure()
            quota.violations.add(subject="client", description=error.limit)
            found.append(quota)
        case errors.Overloaded() | errors.DatabaseUnavailable():
            found.append(_retry_info(round(error.retry_after * _NANOSECONDS_PER_SECOND)))
        case errors.Unforeseen():
            found.append(error_details_pb2.RequestInfo(request_id=_request_id(context)))
    return found


def _retry_info(nanoseconds: int) -> error_details_pb2.RetryInfo:
    delay = Duration()
    delay.FromNanoseconds(nanoseconds)
    return error_details_pb2.RetryInfo(retry_delay=delay)


def _request_id(context: grpc.ServicerContext) -> str:
    """The call's id as its reply bears it; a servicer without interceptors makes one."""
    known = trailing(context).get(REQUEST_ID)
    if isinstance(known, str):
        return known
    made = str(uuid.uuid4())
    add_trailing(context, (REQUEST_ID, made))
    return made

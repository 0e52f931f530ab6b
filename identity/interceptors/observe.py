"""The outermost interceptor: names the call, guards it, and writes its one line."""

import re
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

import grpc
import structlog

from identity.calls import Call, current_call
from identity.interceptors.clients import Clients
from identity.interceptors.wrapping import Behavior, Continuation, Handler, wrap
from identity.servicers.metadata import add_trailing
from identity.servicers.status import REQUEST_ID, Refused, answer

_ACCEPTED_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)

_log = structlog.get_logger()


class ObserveInterceptor(grpc.ServerInterceptor):
    """One line a call, with nothing from the request in it but a well-formed request id."""

    def __init__(self, clients: Clients, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clients = clients
        self._clock = clock

    def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        return wrap(continuation, handler_call_details, self._observed)

    def _observed(self, behavior: Behavior, details: grpc.HandlerCallDetails) -> Behavior:
        rpc = details.method.rpartition("/")[2]

        def observed(request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401
            started = self._clock()
            client = self._clients.of(context.peer(), details.invocation_metadata or ())
            call = Call(details.method, _request_id(details), client)
            token = current_call.set(call)
            add_trailing(context, (REQUEST_ID, call.request_id))
            code, reason = grpc.StatusCode.OK, ""
            try:
                return answer(lambda: behavior(request, context), context, rpc)
            except Refused as refused:
                code, reason = refused.code, refused.reason
                raise
            finally:
                current_call.reset(token)
                _log.info(
                    "rpc",
                    method=call.method,
                    code=code.name,
                    reason=reason,
                    duration_ms=round((self._clock() - started) * 1000, 3),
                    client=call.client,
                    request_id=call.request_id,
                )

        return observed


def _request_id(details: grpc.HandlerCallDetails) -> str:
    for key, value in details.invocation_metadata or ():
        if key == REQUEST_ID and isinstance(value, str) and _ACCEPTED_ID.fullmatch(value):
            return value
    return str(uuid.uuid4())

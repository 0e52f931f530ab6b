"""The outermost interceptor: names the call, guards it, and writes its one line."""

import itertools
import re
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc
import structlog

from identity.callers import Caller
from identity.calls import Call, current_call
from identity.interceptors.clients import Clients, Metadata
from identity.interceptors.wrapping import Behavior, Wrapping
from identity.meters import Meters
from identity.servicers.metadata import add_trailing, send_trailing
from identity.servicers.status import REQUEST_ID, Refused, answer

_ACCEPTED_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)

# Ids of ours: which process, and which of its calls. Unique, and no more than that: a random one
# for each call would cost a system call, for which the thread gives up its turn.
_PROCESS: Final = secrets.token_hex(8)
_numbers = itertools.count(1)

_log = structlog.get_logger()


class ObserveInterceptor(Wrapping):
    """One line a call, with nothing from the request in it but a well-formed request id."""

    def __init__(
        self,
        clients: Clients,
        identify: Callable[[grpc.ServicerContext], Caller],
        meters: Meters,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`identify` tells who calls as far as the connection proves it."""
        super().__init__()
        self._clients = clients
        self._identify = identify
        self._meters = meters
        self._clock = clock

    def around(self, behavior: Behavior, method: str) -> Behavior:
        rpc = method.rpartition("/")[2]

        def observed(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:  # noqa: ANN401
            started = self._clock()
            self._meters.call_started(method)
            metadata = context.invocation_metadata() or ()
            caller = self._identify(context)
            client = self._clients.of(context.peer(), metadata, caller)
            call = Call(method, _request_id(metadata), client, caller)
            token = current_call.set(call)
            add_trailing(context, (REQUEST_ID, call.request_id))
            code, reason = grpc.StatusCode.OK, ""
            try:
                response = answer(lambda: behavior(requests, context), context, rpc)
            except Refused as refused:
                code, reason = refused.code, refused.reason
                raise
            else:
                send_trailing(context)
                return response
            finally:
                current_call.reset(token)
                seconds = self._clock() - started
                self._meters.call_handled(method, code.name, reason, seconds)
                _log.info(
                    "rpc",
                    method=method,
                    code=code.name,
                    reason=reason,
                    duration_ms=round(seconds * 1000, 3),
                    client=client,
                    request_id=call.request_id,
                )

        return observed


def _request_id(metadata: Metadata) -> str:
    for key, value in metadata:
        if key == REQUEST_ID and isinstance(value, str) and _ACCEPTED_ID.fullmatch(value):
            return value
    return f"{_PROCESS}-{next(_numbers):x}"

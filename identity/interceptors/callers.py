"""Lets callers call what is theirs, and nothing else."""

from collections.abc import Iterator
from typing import Any

import grpc

from identity.calls import current_call
from identity.errors import CallerNotAllowed
from identity.interceptors.wrapping import Behavior, Wrapping


class CallersInterceptor(Wrapping):
    """Refuses methods that the call's caller may not call. ObserveInterceptor says who calls.

    Runs inside the rate limit, so that refusals are counted like any other call.
    """

    def around(self, behavior: Behavior, method: str) -> Behavior:
        def allowed(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:  # noqa: ANN401
            if method not in current_call.get().caller.methods:
                raise CallerNotAllowed
            return behavior(requests, context)

        return allowed

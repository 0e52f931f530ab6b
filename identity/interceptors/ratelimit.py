"""Counts calls, refuses those above the limit, and tells every caller where it stands."""

import time
from collections.abc import Callable
from typing import Any

import grpc

from identity.calls import current_call
from identity.errors import RateLimited
from identity.interceptors.wrapping import Behavior, Continuation, Handler, wrap
from identity.ratelimit.store import LimitStore
from identity.ratelimit.window import NANOSECONDS
from identity.servicers.metadata import add_trailing


class RateLimitInterceptor(grpc.ServerInterceptor):
    """One limit over all methods of ours. Runs inside ObserveInterceptor, which says who calls."""

    def __init__(
        self,
        store: LimitStore,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """`wall_clock` gives Unix nanoseconds: only for telling callers when a window ends."""
        self._store = store
        self._wall_clock = wall_clock

    def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        return wrap(continuation, handler_call_details, self._limited)

    def _limited(self, behavior: Behavior, _details: grpc.HandlerCallDetails) -> Behavior:
        def limited(request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ANN401
            decision = self._store.hit(current_call.get().client)
            reset = -(-(self._wall_clock() + decision.reset_after_ns) // NANOSECONDS)
            add_trailing(
                context,
                ("x-ratelimit-limit", str(self._store.limit.calls)),
                ("x-ratelimit-remaining", str(decision.remaining)),
                ("x-ratelimit-reset", str(reset)),
            )
            if not decision.admitted:
                raise RateLimited(
                    retry_after_ns=decision.retry_after_ns, limit=str(self._store.limit)
                )
            return behavior(request, context)

        return limited

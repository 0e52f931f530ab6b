"""Counts calls, refuses those above the limit, and tells every caller where it stands."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from identity.calls import current_call
from identity.errors import RateLimited
from identity.interceptors.wrapping import Behavior, Wrapping
from identity.ratelimit.limits import Limits
from identity.ratelimit.window import NANOSECONDS
from identity.servicers.metadata import add_trailing


class RateLimitInterceptor(Wrapping):
    """Every call counts in one window. Runs inside ObserveInterceptor, which says who calls."""

    def __init__(self, limits: Limits, wall_clock: Callable[[], int] = time.time_ns) -> None:
        """`wall_clock` gives Unix nanoseconds: only for telling callers when a window ends."""
        super().__init__()
        self._limits = limits
        self._wall_clock = wall_clock

    def around(self, behavior: Behavior, method: str) -> Behavior:
        def limited(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:  # noqa: ANN401
            call = current_call.get()
            store = self._limits.store(method, call.client, call.caller.name)
            decision = store.hit(call.client)
            reset = -(-(self._wall_clock() + decision.reset_after_ns) // NANOSECONDS)
            add_trailing(
                context,
                ("x-ratelimit-limit", str(store.limit.calls)),
                ("x-ratelimit-remaining", str(decision.remaining)),
                ("x-ratelimit-reset", str(reset)),
            )
            if not decision.admitted:
                raise RateLimited(retry_after_ns=decision.retry_after_ns, limit=str(store.limit))
            return behavior(requests, context)

        return limited

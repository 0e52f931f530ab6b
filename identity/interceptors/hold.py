"""Holds back the replies of the last calls, so that none is lost when the server stops."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from identity.interceptors.wrapping import Behavior, Wrapping


class HoldInterceptor(Wrapping):
    """Runs outside of all others: a reply that is held has its log line already.

    When its server is told to stop, gRPC (1.85) ends calls with CANCELLED that it has received and
    not handed on yet, and those that come until the client knows of the stop (grpc/grpc#41785). No
    client repeats after that. But who waits for a reply makes no other call meanwhile.
    """

    def __init__(self) -> None:
        super().__init__()
        self._may_reply = threading.Event()
        self._may_reply.set()

    @contextmanager
    def replies(self) -> Iterator[None]:
        """Meanwhile calls are taken and done, and answered only at the end of the block."""
        self._may_reply.clear()
        try:
            yield
        finally:
            self._may_reply.set()

    def around(self, behavior: Behavior, method: str) -> Behavior:
        def held(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:  # noqa: ANN401
            try:
                return behavior(requests, context)
            finally:
                if not self._may_reply.is_set():
                    self._may_reply.wait()

        return held

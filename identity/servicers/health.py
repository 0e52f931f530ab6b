"""grpc.health.v1: whether this server should be sent calls. Tells nothing else.

In place of grpcio-health-checking's own servicer (1.85), which holds one lock while it sends to a
watcher and takes the same lock in gRPC's event thread when a watcher leaves: clients that open and
leave a few watches at once stop the whole server. Here no lock is held while anything is sent.
"""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from identity.interceptors.patience import Patience
from identity.servicers.pools import OpenPool

_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN: Final = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

# Each costs some memory. One client or load balancer holds one for a connection.
MAXIMUM_WATCHERS: Final = 1000

# For each kind of call, made as they are needed. One that sends no request keeps one for seconds.
THREADS: Final = 64

_Status: TypeAlias = Literal[1, 2, 3]  # the numbers above: the enum is no type
# None ends the stream.
_Send: TypeAlias = Callable[[health_pb2.HealthCheckResponse | None], None]


@dataclass(eq=False)
class _Watcher:
    service: str
    send: _Send
    context: grpc.ServicerContext
    told: _Status | None = None  # the status that it knows
    is_being_told: bool = False


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Every service has the same state; an unknown one has none."""

    def __init__(self, services: Iterable[str], patience: Patience) -> None:
        """`patience` is had with watchers that do not read what they are told."""
        self._patience = patience
        self._services = frozenset(services)
        self._status: _Status = _NOT_SERVING
        self._watchers: set[_Watcher] = set()
        self._is_closed = False
        self._lock = threading.Lock()
        # Sending waits for a slow watcher: in threads of our own, so that only watchers wait.
        self._tellers = ThreadPoolExecutor(2, thread_name_prefix="health")

    def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self._services:
            context.set_code(grpc.StatusCode.NOT_FOUND)
            return health_pb2.HealthCheckResponse()
        return health_pb2.HealthCheckResponse(status=self._status)

    # Threads of their own: health is told also while all others are busy.
    Check.experimental_thread_pool = OpenPool(THREADS, "check")  # type: ignore[attr-defined]

    def Watch(  # type: ignore[override]  # see below
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.ServicerContext,
        send: _Send,
    ) -> None:
        """Answers at once and with each change. Returns, and takes no thread meanwhile."""
        watcher = _Watcher(request.service, send, context)
        with self._lock:
            has_room = len(self._watchers) < MAXIMUM_WATCHERS and not self._is_closed
            if has_room:
                self._watchers.add(watcher)
        if not has_room:
            context.set_code(grpc.StatusCode.RESOURCE_EXHAUSTED)
            send(None)
        elif context.add_callback(lambda: self._forget(watcher)):
            self._tell(watcher)
        else:  # it has left already
            self._forget(watcher)

    # How grpcio knows that Watch is given `send` and keeps no thread.
    Watch.experimental_non_blocking = True  # type: ignore[attr-defined]
    Watch.experimental_thread_pool = OpenPool(THREADS, "watch")  # type: ignore[attr-defined]

    @property
    def is_serving(self) -> bool:
        return self._status == _SERVING

    def report(self, *, is_serving: bool) -> None:
        """Changes the state of all services. Does not wait for those that watch."""
        with self._lock:
            if self._is_closed:
                return
            self._status = _SERVING if is_serving else _NOT_SERVING
        self._tell_everybody()

    def close(self) -> None:
        """Tells everybody that nothing is served any more, and ends their watches."""
        with self._lock:
            self._is_closed = True
            self._status = _NOT_SERVING
        self._tell_everybody()
        self._tellers.shutdown(wait=False)

    def _forget(self, watcher: _Watcher) -> None:
        with self._lock:
            self._watchers.discard(watcher)

    def _tell_everybody(self) -> None:
        with self._lock:
            watchers = list(self._watchers)
        for watcher in watchers:
            self._tell(watcher)

    def _tell(self, watcher: _Watcher) -> None:
        with self._lock:
            if not watcher.is_being_told:
                watcher.is_being_told = True
                self._tellers.submit(self._tell_all, watcher)

    def _tell_all(self, watcher: _Watcher) -> None:
        """Sends what the watcher does not know yet; in one thread at a time for each."""
        while True:
            with self._lock:
                if watcher not in self._watchers:
                    return
                status = self._status_of(watcher.service)
                is_news = watcher.told != status
                if not is_news and not self._is_closed:
                    watcher.is_being_told = False
                    return
                if not is_news:
                    self._watchers.discard(watcher)
                watcher.told = status
            with self._patience.waiting(watcher.context):
                watcher.send(health_pb2.HealthCheckResponse(status=status) if is_news else None)

    def _status_of(self, service: str) -> _Status:
        return self._status if service in self._services else _SERVICE_UNKNOWN

"""Reads requests, and gives up those that do not come.

gRPC's Python server takes a thread for a call as soon as its headers are there, and waits in it for
the request. A caller that opens calls and sends nothing would hold every thread for as long as its
connections last. Here a call without a request is cancelled after a few seconds.

That takes handlers of streams, of which there is one request: only of those gRPC lets the handler
do the reading. On the wire they are the same. The innermost interceptor, so that calls are counted
before anybody waits for them.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc

from identity.interceptors.wrapping import Continuation, Handler
from identity.servicers.status import abort

# Seconds. Requests are under 64 KiB and mostly come with the headers.
PATIENCE: Final = 5.0
TICK: Final = 1.0  # seconds between two looks at who waits

_NOT_ONE: Final = "exactly one request message is required"  # as gRPC: UNIMPLEMENTED
_UNDECODABLE: Final = "Exception deserializing request!"  # as gRPC: INTERNAL


class Patience:
    """Cancels calls that wait for longer than they may."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._waiting: OrderedDict[int, tuple[float, grpc.ServicerContext]] = OrderedDict()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="patience", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    @contextmanager
    def waiting(self, context: grpc.ServicerContext) -> Iterator[None]:
        """For as long as the call waits."""
        key = id(context)  # which lives for as long
        with self._lock:
            self._waiting[key] = (self._clock() + self._seconds, context)
        try:
            yield
        finally:
            with self._lock:
                self._waiting.pop(key, None)

    def look(self) -> None:
        """Cancels those whose time is over."""
        while True:
            with self._lock:
                if not self._waiting:
                    return
                key, (until, context) = next(iter(self._waiting.items()))  # the oldest
                if until > self._clock():
                    return
                del self._waiting[key]
            context.cancel()

    def _run(self) -> None:
        # By the clock: waking this thread with each call would cost more than the call's reading.
        while not self._stopping.wait(TICK):
            self.look()


class ReadingInterceptor(grpc.ServerInterceptor):
    """Reads the one request of every unary RPC, also of those that are not ours."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._reading: dict[str, Handler] = {}

    def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        method = handler_call_details.method
        if method in self._reading:
            return self._reading[method]
        handler = continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        decode = handler.request_deserializer or bytes
        if handler.unary_unary is not None:
            self._reading[method] = grpc.stream_unary_rpc_method_handler(
                self._read(handler.unary_unary, decode),
                response_serializer=handler.response_serializer,
            )
        elif handler.unary_stream is not None:
            self._reading[method] = grpc.stream_stream_rpc_method_handler(
                self._read(handler.unary_stream, decode),
                response_serializer=handler.response_serializer,
            )
        return self._reading.get(method)

    def _read(
        self, behavior: Callable[..., Any], decode: Callable[[bytes], Any]
    ) -> Callable[..., Any]:
        def reading(
            requests: Iterator[bytes], context: grpc.ServicerContext, *others: object
        ) -> Any:  # noqa: ANN401
            return behavior(self._request(requests, context, decode), context, *others)

        # How gRPC knows which threads the behavior runs in, and whether it keeps one.
        for name in ("experimental_thread_pool", "experimental_non_blocking"):
            if hasattr(behavior, name):
                setattr(reading, name, getattr(behavior, name))
        return reading

    def _request(
        self,
        requests: Iterator[bytes],
        context: grpc.ServicerContext,
        decode: Callable[[bytes], Any],
    ) -> Any:  # noqa: ANN401
        try:
            with self._patience.waiting(context):
                request = next(requests)
        except StopIteration:
            abort(context, grpc.StatusCode.UNIMPLEMENTED, _NOT_ONE)
        except grpc.RpcError:  # cancelled by us, by the caller, or for its size by gRPC
            abort(context, grpc.StatusCode.CANCELLED, "", "REQUEST_NOT_RECEIVED")
        try:
            return decode(request)
        except Exception:  # noqa: BLE001 - whatever the decoder raises
            abort(context, grpc.StatusCode.INTERNAL, _UNDECODABLE)

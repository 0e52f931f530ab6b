"""Metrics and probes over HTTP, on a port of their own, for the platform and nobody else.

/metrics   everything that is counted, in Prometheus' text format
/livez     200 while the process answers at all
/readyz    200 while it serves: its database answers, and it is not stopping; else 503
"""

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6, SHUT_RDWR, socket
from socketserver import TCPServer
from typing import Any, Final

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from identity.startup import StartError
from identity.tracebacks import describe
from identity.values import Endpoint

REQUEST_TIMEOUT: Final = 2.0  # seconds for each step of a request
LONGEST_REQUEST: Final = 5.0  # seconds for all of it
MAXIMUM_REQUESTS: Final = 16  # at once; more are hung up on

_TEXT: Final = "text/plain; charset=utf-8"

_log = structlog.get_logger()


class Exposition:
    """The HTTP server."""

    def __init__(
        self, listen: Endpoint, registry: CollectorRegistry, is_serving: Callable[[], bool]
    ) -> None:
        """Takes the port. Raises StartError."""
        answers = {
            "/metrics": lambda: (200, CONTENT_TYPE_LATEST, generate_latest(registry)),
            "/livez": lambda: (200, _TEXT, b"ok\n"),
            "/readyz": lambda: (200, _TEXT, b"ok\n") if is_serving() else (503, _TEXT, b"no\n"),
        }
        handler = type("_Handler", (_Handler,), {"answers": answers})
        try:
            self._server = _Server(listen, handler)
        except OSError as error:
            why = f"cannot listen on {listen}: {error.strerror}"
            raise StartError(f"IDENTITY_METRICS_LISTEN: {why}") from None
        self.endpoint: Final = Endpoint(listen.host, self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="exposition", daemon=True
        )

    def start(self) -> None:
        self._thread.start()
        _log.info("metrics_listening", endpoint=str(self.endpoint))

    def stop(self) -> None:
        """Answers nothing any more. Does not wait for answers under way."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = MAXIMUM_REQUESTS

    def __init__(self, listen: Endpoint, handler: type[BaseHTTPRequestHandler]) -> None:
        self._open: dict[socket, float] = {}  # since when
        self._lock = threading.Lock()
        self.address_family = AF_INET6 if ":" in listen.host else AF_INET
        super().__init__((listen.host, listen.port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        with self._lock:
            has_room = len(self._open) < MAXIMUM_REQUESTS
            if has_room:
                self._open[request] = time.monotonic()
        if has_room:
            super().process_request(request, client_address)
        else:
            super().shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called every half a second: hangs up on those who take too long, however busily."""
        oldest = time.monotonic() - LONGEST_REQUEST
        with self._lock:
            overdue = [request for request, since in self._open.items() if since < oldest]
        for request in overdue:
            with suppress(OSError):  # it has left
                request.shutdown(SHUT_RDWR)

    def server_bind(self) -> None:
        """Without the base's look-up of our own name, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:  # noqa: ANN401
        """A client that leaves is nobody's business; anything else is a defect."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            _log.error("exposition_failed", **describe(error))


class _Handler(BaseHTTPRequestHandler):
    answers: dict[str, Callable[[], tuple[int, str, bytes]]]
    timeout = REQUEST_TIMEOUT
    server_version = "identity"
    sys_version = ""

    def do_GET(self) -> None:
        answer = self.answers.get(self.path.partition("?")[0])
        status, kind, body = answer() if answer else (404, _TEXT, b"not found\n")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Probes come every few seconds: a line for each helps nobody."""

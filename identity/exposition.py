"""Metrics and probes over HTTP, on a port of their own, for the platform and nobody else.

/metrics   everything that is counted, in Prometheus' text format
/livez     200 while the process answers at all
/readyz    200 while it serves: its database answers, and it is not stopping; else 503
"""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6, socket
from typing import Any, Final

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from identity.startup import StartError
from identity.values import Endpoint

REQUEST_TIMEOUT: Final = 2.0  # seconds for a client to send its request, and to take its answer
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
        self._room = threading.BoundedSemaphore(MAXIMUM_REQUESTS)
        self.address_family = AF_INET6 if ":" in listen.host else AF_INET
        super().__init__((listen.host, listen.port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:  # noqa: ANN401
        """A client that leaves is nobody's business."""


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

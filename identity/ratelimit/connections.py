"""Connections to a Valkey server on which every wait has an end.

The client's time-outs are for each step: a name that is looked up has none, and an answer that
comes byte by byte has one a byte. So connections are made beforehand, where nobody waits for them,
and what a call sends and reads has one deadline in all.
"""

import queue
import socket
import time
from contextlib import suppress
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
# Seconds. Below a millisecond poll() would not look at all, and leave an answer that is there.
_SHORTEST_WAIT: Final = 0.001


class Script(NamedTuple):
    """Lua, and its SHA-1, by which a server that has seen it knows it."""

    text: str
    digest: str


class Connections:
    """A few connections to one server, shared by all threads. What fails ends all of them."""

    def __init__(self, server: ValkeyServer) -> None:
        """Connects. Takes as long as name server, network and server do; raises their errors."""
        # Not a SimpleQueue: its get() with a time-out may wait for ever (seen on CPython 3.11.7).
        self._free: queue.Queue[_Connection] = queue.Queue()
        self._closed = False
        try:
            for _ in range(CONNECTIONS):
                self._free.put(_connection(server))
        except BaseException:
            self.close()
            raise

    def evaluate(self, script: Script, key: str, *arguments: int, patience: float) -> Any:  # noqa: ANN401 - what the script returns
        """Runs the script on the key. Raises what goes wrong, after `patience` seconds at most."""
        deadline = time.monotonic() + patience
        try:
            # The one that was used longest ago: so none is idle until something cuts it off.
            connection = self._free.get(timeout=patience)
        except queue.Empty:
            raise TimeoutError("no connection was free in time") from None
        answer = None
        with suppress(NoScriptError):
            answer = connection.ask(deadline, "EVALSHA", script.digest, 1, key, *arguments)
        if answer is None:  # a server that was restarted, or whose scripts were flushed
            answer = connection.ask(deadline, "EVAL", script.text, 1, key, *arguments)
        self._free.put(connection)
        if self._closed:
            self.close()
        return answer

    def close(self) -> None:
        """Closes those that are free; those in use are closed when they come back."""
        self._closed = True
        while True:
            try:
                self._free.get_nowait().disconnect()
            except queue.Empty:
                return


class _Connection(Protocol):
    def ask(self, deadline: float, *command: str | int) -> Any: ...  # noqa: ANN401

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

    def ask(self, deadline: float, *command: str | int) -> Any:  # noqa: ANN401
        """The answer, at `time.monotonic() == deadline` at the latest.

        After any other error than a server's own word the connection is of no use.
        """
        self._bounded.deadline = deadline
        self.send_command(*command)  # type: ignore[attr-defined]
        return self.read_response()  # type: ignore[attr-defined]


class _Plain(_Deadline, valkey.Connection):
    pass


class _Tls(_Deadline, valkey.SSLConnection):
    pass


class _BoundedSocket:
    """As much of a socket as the client uses, with one deadline for all that is sent and read."""

    def __init__(self, wrapped: socket.socket) -> None:
        self._wrapped = wrapped
        self.deadline = time.monotonic() + CONNECT_TIMEOUT  # for AUTH and SELECT

    def _wait_no_longer(self) -> None:
        self._wrapped.settimeout(max(self.deadline - time.monotonic(), _SHORTEST_WAIT))

    def sendall(self, octets: bytes) -> None:
        self._wait_no_longer()
        self._wrapped.sendall(octets)

    def recv(self, size: int) -> bytes:
        self._wait_no_longer()
        return self._wrapped.recv(size)

    def recv_into(self, buffer: bytearray) -> int:  # what the client uses with libvalkey
        self._wait_no_longer()
        return self._wrapped.recv_into(buffer)

    def settimeout(self, timeout: float | None) -> None:
        """Nothing to do: the deadline holds."""

    def shutdown(self, how: int) -> None:
        self._wrapped.shutdown(how)

    def close(self) -> None:
        self._wrapped.close()

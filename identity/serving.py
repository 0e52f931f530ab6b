"""One server process, from its start to its end."""

import os
import signal
import socket
import sys
from contextlib import suppress
from typing import Final

from identity.config import Settings
from identity.log_writer import LineWriter
from identity.monitoring import Monitoring
from identity.startup import StartError, announce
from identity.worker_process import Supervision

# How long a thread may keep the interpreter before another gets a turn. A tenth of the default:
# a call waits for the turn several times, and its answer is short (1,000 -> 1,260 calls/s).
SWITCH_INTERVAL: Final = 0.0005  # seconds


class _StopSignal:
    """SIGTERM, SIGINT, or a word from another thread.

    A pair of sockets, and not an Event: set by a handler that interrupts its own `wait` at the
    wrong moment, it would wait for itself. And a signal that comes to another thread does not wake
    the main one, which runs the handlers, from the wait for a lock.
    """

    def __init__(self) -> None:
        self._awaited, self._given = socket.socketpair()
        self._given.setblocking(False)
        signal.set_wakeup_fd(self._given.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)  # each is a byte to `_awaited`

    def give(self) -> None:
        with suppress(BlockingIOError):  # it was given often enough
            self._given.send(b"\0")

    def wait(self) -> None:
        self._awaited.recv(1)


def run(settings: Settings, supervision: Supervision | None = None) -> int:
    """Serves until SIGTERM or SIGINT, or until the supervisor is gone.

    Does not return after that, but ends the process. Raises ConfigurationError, StartError or
    DatabaseUnavailable where it can't start.
    """
    stop = _StopSignal()
    if supervision:
        # Meant for the supervisor; some tools send it to every process of a service.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        supervision.on_end(stop.give)
    # gRPC's core writes lines of a form of its own to stderr, which readers of JSON lines trip
    # over. With TLS they are read for the handshakes that failed. Read when gRPC is imported.
    tells_of_tls = settings.tls_cert is not None and sys.stderr is not None
    os.environ["GRPC_VERBOSITY"] = "INFO" if tells_of_tls else "NONE"
    from identity import grpc_log, logs  # noqa: PLC0415 - `--help` starts without the server

    monitoring = Monitoring(settings, supervision.slot if supervision else None)
    lines = LineWriter(_stderr())
    if tells_of_tls:
        grpc_log.follow(monitoring.meters, lines.write)
    logs.configure(
        logs.LogFormat(settings.log_format),
        logs.LogLevel(settings.log_level),
        lines,
        for_good=True,
    )
    try:
        _serve(settings, monitoring, supervision, stop)
    finally:
        lines.close()
    with suppress(AttributeError, OSError, ValueError):  # there is none, or nobody reads it
        sys.stdout.flush()
    # Not sys.exit(), which waits for every thread of a pool: those still at work are in calls
    # that nobody waits for any more, and a supervisor would kill us meanwhile.
    os._exit(0)


def _stderr() -> int:
    """The descriptor for lines. Not 2 where the process was started without it: whatever is opened
    first, such as the database, may have that number now."""
    return os.open(os.devnull, os.O_WRONLY) if sys.stderr is None else os.dup(sys.stderr.fileno())


def _serve(
    settings: Settings,
    monitoring: Monitoring,
    supervision: Supervision | None,
    stop: _StopSignal,
) -> None:
    from identity.server import Service  # noqa: PLC0415

    sys.setswitchinterval(SWITCH_INTERVAL)
    service = Service(settings, meters=monitoring.meters, supervision=supervision)
    with monitoring.shown(service.is_serving):
        service.start()
        if not supervision:
            try:
                announce(service.endpoint)
            except StartError:
                service.stop()
                raise
        stop.wait()
        service.stop()

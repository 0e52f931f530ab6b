"""One worker process, and the line between it and its supervisor: both ends of it.

A line is a pair of sockets. The worker tells each change of its health in one byte; the supervisor
tells nothing. Whose end reads the end of the line knows that the other is gone, however it went.
"""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

_SERVING: Final = b"+"
_NOT_SERVING: Final = b"-"


class Workers(NamedTuple):
    """The workers of one supervisor, in numbers."""

    running: int
    serving: int  # of these, how many can do their work
    restarts: int  # since the start


class Supervision:
    """The worker's end."""

    def __init__(self, descriptor: int, slot: int) -> None:
        """`slot` is a number that no other worker of this supervisor has at the same time."""
        self.slot = slot
        self._line = socket.socket(fileno=descriptor)

    def report(self, *, is_serving: bool) -> None:
        """Tells whether the worker can do its work; the first time, that it answers calls."""
        with suppress(OSError):  # the supervisor is gone: see on_end
            self._line.sendall(_SERVING if is_serving else _NOT_SERVING)

    def on_end(self, end: Callable[[], None]) -> None:
        """Has `end` called, in another thread, when the supervisor is gone."""
        threading.Thread(target=self._await_end, args=(end,), name="line", daemon=True).start()

    def _await_end(self, end: Callable[[], None]) -> None:
        with suppress(OSError):
            while self._line.recv(1):
                pass
        end()


class WorkerProcess:
    """The supervisor's end, and the process itself. Not for use by several threads.

    Starts a fresh process, which reads the environment and its files by itself.
    """

    def __init__(
        self, slot: int, environment: Mapping[str, str], failures: int, limit: float | None
    ) -> None:
        """`failures`: how many in a row have died early before it, in its place.

        One that does not serve within `limit` seconds is overdue. Raises OSError.
        """
        self.slot = slot
        self.failures = failures
        self.is_serving = False
        self.is_retired = False
        self.line, theirs = socket.socketpair()
        self._served_first: float | None = None
        self._overdue_at = None if limit is None else time.monotonic() + limit
        with theirs:
            try:
                self._process = self._start(theirs.fileno(), environment)
            except OSError:
                self.line.close()
                raise
        self.line.setblocking(False)

    def _start(self, descriptor: int, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        # The way that this process was started, with the same options of the interpreter: another
        # way might find another release.
        arguments = ["--supervised", str(descriptor), "--slot", str(self.slot)]
        return subprocess.Popen(  # noqa: S603
            [sys.executable, *sys.orig_argv[1:], *arguments],
            env=environment,
            pass_fds=(descriptor,),
            # Out of reach of a terminal's Ctrl-C, which goes to a whole group.
            process_group=0,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_served(self) -> bool:
        return self._served_first is not None

    def has_served_for(self, seconds: float) -> bool:
        since = self._served_first
        return since is not None and time.monotonic() - since >= seconds

    def hear(self) -> bool:
        """Takes in what it has told. False when it will tell nothing more."""
        try:
            told = self.line.recv(1024)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.is_serving = told.endswith(_SERVING)
        if self.is_serving and not self.has_served:
            self._served_first = time.monotonic()
            if not self.is_retired:
                self._overdue_at = None
        return bool(told)

    def retire(self, limit: float) -> None:
        """Tells it to let its calls end and to end then. After `limit` seconds it is overdue."""
        if not self.is_retired:
            self.is_retired = True
            self._overdue_at = time.monotonic() + limit
        self._process.send_signal(signal.SIGTERM)

    def is_overdue(self) -> bool:
        """Whether it has not begun to serve, or not ended, within its time."""
        return self._overdue_at is not None and time.monotonic() >= self._overdue_at

    def seconds_left(self) -> float | None:
        """Until it is overdue; None if it is not awaited."""
        return None if self._overdue_at is None else max(0.0, self._overdue_at - time.monotonic())

    def kill(self) -> None:
        self._overdue_at = None
        self._process.kill()

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def exit_code(self) -> int | None:
        """None while it runs, and where a signal ended it."""
        code = self._process.poll()
        return None if code is None or code < 0 else code

    def how_it_ended(self) -> dict[str, int | str]:
        """For the log."""
        code = self._process.wait()
        if code >= 0:
            return {"exit_code": code}
        try:
            return {"signal": signal.Signals(-code).name}
        except ValueError:  # a real-time signal
            return {"signal": -code}

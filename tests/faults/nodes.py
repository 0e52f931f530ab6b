"""Processes of the service, each on a port that it keeps when it is started again."""

import json
import signal
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import grpc
import psutil
from sqlalchemy.engine import URL

from identity import migrate
from tests.processes import Program

KEYS: Final = "k" * 32
# A channel must not wait for long before it looks for a process that was started again.
CHANNEL_OPTIONS: Final = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
)


class Node:
    """One process of the service, started, killed, and started again."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.endpoint = f"127.0.0.1:{port}"
        self._folder = folder
        self._settings = settings | {"LISTEN": self.endpoint}
        self._program: Program | None = None
        self.lines: list[dict[str, Any]] = []  # what the processes that have ended logged
        self.exit_code: int | None = None  # of the last process that has ended
        self.killed = 0  # processes that SIGKILL ended; others ended by themselves

    @property
    def pid(self) -> int:
        assert self._program
        return self._program.process.pid

    def begin(self) -> None:
        """Starts the process, and does not wait for it."""
        self._program = Program(self._folder, dict(self._settings))

    def ready(self) -> None:
        """Waits until it answers calls."""
        assert self._program
        self._program.line(r"^listening on (\S+)$")

    def is_ready(self) -> bool:
        """Whether it has said that it answers calls, and `ready` has not been told yet."""
        return self._program is not None and self._program.has_spoken()

    def workers(self) -> list[psutil.Process]:
        """Its worker processes, if it has several."""
        found: list[psutil.Process] = psutil.Process(self.pid).children()
        return found

    def wait_for(self, event: str) -> None:
        """Waits until it logs that."""
        assert self._program
        self._program.event(event)

    def start(self) -> None:
        self.begin()
        self.ready()

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As a supervisor does: what has begun may end."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self._program is None:
            return
        self._program.process.send_signal(number)
        code, stderr = self._program.end()
        self._program = None
        self.exit_code = code
        self.killed += code == -signal.SIGKILL
        # The last line of a process that was killed may be cut.
        for line in stderr.splitlines():
            if line.startswith("{") and line.endswith("}"):
                self.lines.append(json.loads(line))

    def events(self, *names: str) -> list[dict[str, Any]]:
        """Lines of those events, of processes that have ended."""
        return [line for line in self.lines if line.get("event") in names]


def settings_of(url: URL, smtp_port: int) -> dict[str, str]:
    """A service with quick hashes and no limit, that mails to the port."""
    return {
        "DATABASE_URL": url.render_as_string(hide_password=False),
        "SECRET_KEYS": KEYS,
        "BCRYPT_COST": "4",
        "EMAIL_SENDER": "smtp",
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(smtp_port),
        "SMTP_TLS": "none",
        "RATE_LIMIT": "100000/60s",
        "LOG_FORMAT": "json",
    }


def nodes(
    stack: ExitStack, folder: Path, url: URL, smtp_port: int, number: int, **settings: str
) -> list[Node]:
    """So many processes on one migrated database; not started, and killed when the stack ends."""
    migrate.upgrade(url)
    folder.mkdir(exist_ok=True)
    made = [Node(folder, settings_of(url, smtp_port) | settings) for _ in range(number)]
    for node in made:
        stack.callback(node.kill)
    return made


def channel_to(node: Node) -> grpc.Channel:
    return grpc.insecure_channel(node.endpoint, options=CHANNEL_OPTIONS)

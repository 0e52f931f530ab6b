"""The mail server of the bench, and questions to it."""

import socket
from pathlib import Path
from typing import Final, Self

from tests.bench.programs import Program


class Sink:
    """Runs while it is open as a context."""

    def __init__(self, log: Path) -> None:
        self.program: Final = Program(log, "tests.bench.smtp_sink")
        self.port, self.question_port = (int(port) for port in self.program.listening().split())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.program.end()

    def forget(self) -> None:
        """Starts to count anew."""
        with Questions(self.question_port) as questions:
            questions.ask("forget")

    def wait_for(self, mails: int) -> tuple[float, int]:
        """Waits until so many have come: seconds from the first to the last, and connections."""
        with Questions(self.question_port) as questions:
            seconds, connections = questions.ask(f"mails {mails}").split()
        return float(seconds), int(connections)


class Questions:
    """A connection to the sink's second port."""

    def __init__(self, port: int, patience: float = 120.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), patience)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._socket.close()

    def ask(self, question: str) -> str:
        """Waits for the answer. Raises TimeoutError."""
        self._socket.sendall(f"{question}\n".encode())
        return self._answers.readline().strip()

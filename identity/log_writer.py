"""Writes lines of the log in a thread of its own.

A thread that answers a call gives up its turn with every system call, and has to wait for the next
one; and where nobody reads the other end of a pipe, it would wait for ever. Here it puts its line
into a queue. Many are written at once; a process that is killed loses those of the last moments.
"""

import os
import select
import threading
import time
from collections import deque
from typing import Final

import orjson

# Seconds in which lines gather after a write. What a killed process may not have written.
LINGER: Final = 0.01
# Lines that wait while the other end does not read, 4 MB; later ones are counted only.
MAXIMUM_LINES: Final = 20_000
STALL: Final = 1.0  # seconds between two looks whether the other end reads again
CLOSE_PATIENCE: Final = 1.0  # seconds for the last lines


def _whole_lines(text: bytes) -> bytes:
    """As many lines as a pipe takes in one piece: other processes may write to the same one."""
    if len(text) <= select.PIPE_BUF:
        return text
    end = text.rfind(b"\n", 0, select.PIPE_BUF) + 1
    return text[: end or text.find(b"\n") + 1]


class LineWriter:
    """Takes lines from any thread, writes them to a file descriptor in their order."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()
        self._left_out = 0
        self._wanted = threading.Event()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, line: str | bytes) -> None:
        """Never waits, and never fails."""
        if len(self._lines) >= MAXIMUM_LINES:
            self._left_out += 1
            return
        self._lines.append(line if isinstance(line, bytes) else line.encode(errors="replace"))
        if not self._wanted.is_set():
            self._wanted.set()

    def flush(self) -> None:
        """Nothing: what was taken is written shortly."""

    def close(self) -> None:
        """Returns when all is written, or after a second."""
        self._is_closing = True
        self._wanted.set()
        self._thread.join(CLOSE_PATIENCE)

    def _run(self) -> None:
        while not self._is_closing:
            self._wanted.wait()
            self._wanted.clear()  # before the look: a line that comes meanwhile sets it again
            self._write_all()
            if not self._is_closing:
                time.sleep(LINGER)
        self._write_all()

    def _write_all(self) -> None:
        number = len(self._lines)
        text = b"".join(self._lines.popleft() for _ in range(number))
        left_out, self._left_out = self._left_out, 0
        if left_out:
            text += orjson.dumps({"event": "log_lines_left_out", "lines": left_out}) + b"\n"
        while text:
            try:
                text = text[os.write(self._descriptor, _whole_lines(text)) :]
            except BlockingIOError:  # whoever started us shares the descriptor, and its modes
                select.select([], [self._descriptor], [], STALL)
            except OSError:  # a full disk, a reader that has left: nobody's call fails for it
                self._left_out += text.count(b"\n")
                return

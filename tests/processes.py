"""The program `identity` as a process of its own."""

import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

PATIENCE = 30  # seconds until a test gives up on a process


class Program:
    """`identity serve` in a folder of its own; its stdout is read as it comes."""

    def __init__(self, folder: Path, settings: dict[str, str], *command: str) -> None:
        preexec = partial(os.close, 2) if settings.pop("stderr_closed", None) is not None else None
        environment = {k: v for k, v in os.environ.items() if not k.startswith("IDENTITY_")}
        environment |= {f"IDENTITY_{name}": value for name, value in settings.items()}
        # Not a pipe: nobody reads it before the end, and a full one would stop the process.
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - see end()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "identity", *(command or ("serve",))],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            encoding="utf-8",
            preexec_fn=preexec,  # noqa: PLW1509 - no thread of this process holds a lock then
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def line(self, pattern: str) -> str:
        """Waits for a line of stdout; returns the pattern's first group."""
        while True:
            found = re.search(pattern, self._lines.get(timeout=PATIENCE))
            if found:
                return found[1]

    def has_spoken(self) -> bool:
        """Whether there is a line of stdout that was not waited for yet."""
        return not self._lines.empty()

    def end(self) -> tuple[int, str]:
        """Waits for the end; the exit code and stderr."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        with self._stderr:
            self._stderr.seek(0)
            return code, self._stderr.read()


Start = Callable[..., Program]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Program] = []

    def begin(*command: str, **settings: str) -> Program:
        defaults = {"LISTEN": "127.0.0.1:0", "BCRYPT_COST": "4"}
        started.append(Program(tmp_path, defaults | settings, *command))
        return started[-1]

    yield begin
    for program in started:
        if program.process.poll() is None:
            program.process.kill()
            program.end()

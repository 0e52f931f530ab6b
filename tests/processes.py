"""The program `identity` as a process of its own."""

import json
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import pytest

PATIENCE = 30  # seconds until a test gives up on a process


class _Lines:
    """What a process writes into a pipe, read as it comes, so that the pipe is never full."""

    def __init__(self, pipe: IO[str]) -> None:
        self._pipe = pipe
        self._all: list[str] = []
        self._new: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._pipe:
            self._all.append(line)
            self._new.put(line)

    def next(self) -> str:
        """Waits for a line that was not waited for yet."""
        return self._new.get(timeout=PATIENCE)

    def has_next(self) -> bool:
        return not self._new.empty()

    def end(self) -> str:
        """Waits until all writers have closed it; all there was."""
        self._reader.join(PATIENCE)
        self._pipe.close()
        return "".join(self._all)


class Program:
    """`identity serve` in a folder of its own; what it says is read as it comes."""

    def __init__(self, folder: Path, settings: dict[str, str], *command: str) -> None:
        preexec = partial(os.close, 2) if settings.pop("stderr_closed", None) is not None else None
        environment = {k: v for k, v in os.environ.items() if not k.startswith("IDENTITY_")}
        environment |= {f"IDENTITY_{name}": value for name, value in settings.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "identity", *(command or ("serve",))],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            preexec_fn=preexec,  # noqa: PLW1509 - no thread of this process holds a lock then
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.has_ended = False
        self._out = _Lines(self.process.stdout)
        self._log = _Lines(self.process.stderr)

    def line(self, pattern: str) -> str:
        """Waits for a line of stdout; returns the pattern's first group."""
        while True:
            found = re.search(pattern, self._out.next())
            if found:
                return found[1]

    def has_spoken(self) -> bool:
        """Whether there is a line of stdout that was not waited for yet."""
        return self._out.has_next()

    def event(self, name: str) -> dict[str, Any]:
        """Waits for a line of the log, in JSON, of that event."""
        while True:
            line = self._log.next()
            if line.startswith("{") and (found := json.loads(line))["event"] == name:
                event: dict[str, Any] = found
                return event

    def end(self) -> tuple[int, str]:
        """Waits for the end; the exit code and stderr."""
        code = self.process.wait(PATIENCE)
        self.has_ended = True
        self._out.end()
        return code, self._log.end()


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
        if not program.has_ended:
            program.process.kill()
            program.end()

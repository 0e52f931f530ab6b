"""Programs of the bench, each a process of its own whose work can be told from that of others."""

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final, Self

import psutil

PATIENCE: Final = 300.0  # seconds; nothing takes that long unless it has failed


class Program:
    """A Python module that runs, says things on stdout line by line, and can be spoken to.

    What it logs goes to a file, as in production. Ended with the context.
    """

    def __init__(
        self,
        log: Path,
        *arguments: str,
        settings: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """`settings` are the service's, without their prefix."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("IDENTITY_")}
        environment |= {f"IDENTITY_{name}": value for name, value in (settings or {}).items()}
        with log.open("a") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=folder,
                env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                encoding="utf-8",
            )
        assert self._process.stdin
        assert self._process.stdout
        self._stdin = self._process.stdin
        self._log = log
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()
        self.process: Final = psutil.Process(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def line(self) -> str:
        """The next line; waits for it."""
        found = self._lines.get(timeout=PATIENCE)
        if found is None:
            raise RuntimeError(f"it ended: {self._log.read_text()[-1000:]}")
        return found.rstrip("\n")

    def listening(self) -> str:
        """Where it says that it listens."""
        return self.line().removeprefix("listening on ")

    def say(self, line: str) -> None:
        """Writes a line to its stdin."""
        self._stdin.write(line + "\n")
        self._stdin.flush()

    def cpu(self) -> float:
        """Seconds of work so far, with that of its children that live."""
        return work_of([self.process, *self.process.children(recursive=True)])

    def end(self) -> None:
        """Ends it as a supervisor does."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE)
        with suppress(BrokenPipeError):
            self._stdin.close()

    def _read(self, stdout: IO[str]) -> None:
        with stdout:
            for line in stdout:
                self._lines.put(line)
        self._lines.put(None)


def work_of(processes: Sequence[psutil.Process]) -> float:
    """Seconds of work that they have done, those that are gone left out."""
    seconds = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds += times.user + times.system
    return seconds

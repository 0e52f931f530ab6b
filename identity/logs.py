"""One line an event on stderr: for people (console) or for machines (json)."""

import logging
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol, TextIO

import orjson
import structlog
from structlog.typing import Processor


class LogFormat(StrEnum):
    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"

    @property
    def number(self) -> int:
        """The level as the standard library counts it."""
        return logging.getLevelNamesMapping()[self.name]


class Lines(Protocol):
    """Takes lines, whole and with their end. Does not fail."""

    def write(self, line: str | bytes, /) -> None: ...

    def flush(self) -> None: ...


class _Unbreakable:
    """A stream whose failure is not the caller's: a full disk must not fail a registration."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, line: str | bytes) -> None:
        if self._stream is None:
            return
        text = line if isinstance(line, str) else line.decode()
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # ValueError: the stream is closed
            return

    def flush(self) -> None:
        """Done with each line."""


class _Foreign(logging.Handler):
    """Lines of libraries. Their exceptions' texts are left out: they quote what they were about."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, "library", logger=record.name, message=str(record.msg)
        )


def configure(
    log_format: LogFormat,
    level: LogLevel,
    out: Lines | None = None,
    *,
    for_good: bool = False,
) -> None:
    """Sets up logging for the whole process. Call it before the first line.

    `out` takes the lines; stderr, if it is left out. `for_good`: nobody configures it again, so
    that loggers need not look how it is configured.
    """
    out = out or _Unbreakable(sys.stderr)  # None where the process was started without one
    renderer: Processor
    factory: Callable[..., object]
    if log_format is LogFormat.JSON:
        renderer = structlog.processors.JSONRenderer(serializer=orjson.dumps)
        factory = structlog.BytesLoggerFactory(file=out)  # type: ignore[arg-type]
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=False)
        factory = structlog.WriteLoggerFactory(file=out)  # type: ignore[arg-type]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level.number),
        logger_factory=factory,
        cache_logger_on_first_use=for_good,
    )
    root = logging.getLogger()
    root.handlers = [_Foreign()]
    # Below warning, libraries tell of statements and messages, whose values are people's.
    root.setLevel(max(level.number, logging.WARNING))
